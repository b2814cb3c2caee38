"""The text of a Go template as a tree: what `template` runs."""

from __future__ import annotations

from sampan.cli.failures import CommandError
from sampan.cli.gotext import functions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SPACE = " \t\r\n"
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")

_UNSUPPORTED = ("define", "block", "template")


class ParseError(CommandError):
    """The text is no template."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"failed to parse template: template: :{line}: {reason}")
        self.detail = f"template: :{line}: {reason}"


class Token:
    """A piece of an action: kind `name field variable string number char punctuation dot`."""

    __slots__ = ("kind", "offset", "spaced", "text")

    def __init__(self, kind: str, text: str, offset: int, spaced: bool) -> None:
        self.kind = kind
        self.text = text
        self.offset = offset
        self.spaced = spaced


class Node:
    """A node of the parsed template; `kind` names it, `value` and `parts` are what it holds."""

    __slots__ = ("kind", "offset", "parts", "source", "value")

    def __init__(self, kind: str, value: Any, parts: Any, offset: int, source: str) -> None:
        self.kind = kind
        self.value = value
        self.parts = parts
        self.offset = offset
        self.source = source


def _tokens(text: str, base: int, line: Callable[[int], int]) -> list[Token]:
    """Split the inside of an action, which begins at offset `base` of the template."""
    found: list[Token] = []
    position, size, spaced = 0, len(text), True
    while position < size:
        letter = text[position]
        start = position
        if letter in _SPACE:
            position += 1
            spaced = True
            continue
        if letter in "\"`'":
            position = _string_end(text, position, letter, line(base + position))
            kind = "char" if letter == "'" else "string"
        elif letter in "|(),=" or text.startswith(":=", position):
            position += 2 if letter == ":" else 1
            kind = "punctuation"
        elif letter in ".$" or letter in _NAME or letter in "+-":
            position, kind = _word(text, position)
        else:
            raise ParseError(line(base + start), f"unexpected {letter!r} in command")
        found.append(Token(kind, text[start:position], base + start, spaced))
        spaced = False
    return found


def _string_end(text: str, start: int, mark: str, line: int) -> int:
    position = start + 1
    while position < len(text):
        if text[position] == "\\" and mark != "`":
            position += 1
        elif text[position] == mark:
            return position + 1
        position += 1
    raise ParseError(
        line, "unterminated quoted string" if mark != "'" else "unterminated character constant"
    )


def _word(text: str, start: int) -> tuple[int, str]:
    letter = text[start]
    end = start + 1
    if letter.isdecimal() or letter in "+-" or (letter == "." and text[end : end + 1].isdecimal()):
        while end < len(text) and (text[end] in _NAME or text[end] == "."):
            end += 1
        return end, "number"
    while end < len(text) and text[end] in _NAME:
        end += 1
    if letter == ".":
        return end, "field" if end > start + 1 else "dot"
    return end, "variable" if letter == "$" else "name"


def _unquote(token: Token) -> str:
    text = token.text
    if text[0] == "`":
        return text[1:-1]
    from codecs import escape_decode

    body = text[1:-1].encode()
    if b"\\u" in body or b"\\U" in body:
        return body.decode("unicode_escape").encode("latin-1", "replace").decode("utf-8", "replace")
    return bytes(escape_decode(body)[0]).decode("utf-8", "replace")


class Parser:
    """Text and actions to nodes."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.position = 0
        self.line = 1
        self.loops = 0
        self.variables = {"$"}
        self.pending: list[Token] = []
        self.known = functions()

    def line_at(self, offset: int) -> int:
        return self.source.count("\n", 0, offset) + 1

    def block(self) -> tuple[list[Node], str]:
        """Nodes up to the end of the text or to an `else` or `end`, which is handed back."""
        nodes: list[Node] = []
        while True:
            start = self.source.find("{{", self.position)
            text = self.source[self.position :] if start < 0 else self.source[self.position : start]
            if start < 0:
                self.position = len(self.source)
                return _with_text(nodes, text), ""
            inner, base = self._action(start)
            if self.source.startswith("- ", start + 2):
                text = text.rstrip(_SPACE)
            _with_text(nodes, text)
            if inner.startswith("/*"):
                continue
            tokens = _tokens(inner, base, self.line_at)
            self.line = self.line_at(base)
            if not tokens:
                raise ParseError(self.line, "missing value for command")
            if tokens[0].kind == "name" and tokens[0].text in ("else", "end"):
                self.pending = tokens
                return nodes, inner.strip()
            nodes.append(self._node(tokens))

    def _action(self, start: int) -> tuple[str, int]:
        """The inside of the action at `start`, trimmed of its markers, and its offset."""
        base = start + 2
        if self.source.startswith("- ", base):
            base += 2
        end = self._action_end(base)
        inner = self.source[base:end]
        self.position = end + 2
        if inner.endswith(" -"):
            inner = inner[:-2]
            while self.source[self.position : self.position + 1] in tuple(_SPACE):
                self.position += 1
        return (inner.strip() if inner.lstrip().startswith("/*") else inner), base

    def _action_end(self, base: int) -> int:
        position, source = base, self.source
        if source[base:].lstrip().startswith("/*"):
            close = source.find("*/", base)
            position = close if close >= 0 else len(source)
        while position < len(source):
            letter = source[position]
            if source.startswith("}}", position):
                return position
            if letter in "\"`'":
                position = _string_end(source, position, letter, self.line_at(base))
            else:
                position += 1
        raise ParseError(self.line_at(base), "unclosed action")

    def _node(self, tokens: list[Token]) -> Node:
        word = tokens[0].text if tokens[0].kind == "name" else ""
        if word in _UNSUPPORTED:
            raise ParseError(self.line, f"{word} is not supported")
        if word in ("break", "continue"):
            if not self.loops:
                raise ParseError(self.line, f"{{{{{word}}}}} outside {{{{range}}}}")
            return Node(word, None, (), tokens[0].offset, word)
        if word in ("if", "range", "with"):
            return self._control(word, tokens[1:])
        return Node("action", self._pipeline(tokens), (), tokens[0].offset, "")

    def _control(self, word: str, tokens: list[Token]) -> Node:
        if not tokens:
            raise ParseError(self.line, f"missing value for {word}")
        head = self._pipeline(tokens)
        self.loops += word == "range"
        body, ended_by = self.block()
        self.loops -= word == "range"
        otherwise: list[Node] = []
        if ended_by.startswith("else"):
            rest = self.pending[1:]
            if rest and rest[0].text in ("if", "with"):
                otherwise = [self._control(rest[0].text, rest[1:])]
                return Node(word, head, (body, otherwise), tokens[0].offset, "")
            otherwise, ended_by = self.block()
        if ended_by != "end":
            raise ParseError(self.line, "unexpected EOF")
        return Node(word, head, (body, otherwise), tokens[0].offset, "")

    def _pipeline(self, tokens: list[Token]) -> Node:
        names, declares = [], ""
        rest = list(tokens)
        marks = [index for index, token in enumerate(rest) if token.text in (":=", "=")]
        if marks and rest[0].kind == "variable":
            declares = rest[marks[0]].text
            names = [token.text for token in rest[: marks[0]] if token.kind == "variable"]
            rest = rest[marks[0] + 1 :]
            self.variables.update(names)
        commands, left = self._commands(rest)
        if left:
            raise ParseError(self.line, "unexpected right paren")
        return Node("pipeline", (declares, names), commands, tokens[0].offset, "")

    def _commands(self, tokens: list[Token]) -> tuple[list[Node], list[Token]]:
        """Commands parted by `|`, up to the end or a closing parenthesis."""
        commands: list[Node] = []
        operands: list[Node] = []
        while tokens and tokens[0].text != ")":
            if tokens[0].text == "|":
                tokens = tokens[1:]
                commands.append(self._command(operands))
                operands = []
                continue
            operand, tokens = self._operand(tokens)
            operands.append(operand)
        commands.append(self._command(operands))
        return commands, tokens

    def _command(self, operands: list[Node]) -> Node:
        if not operands:
            raise ParseError(self.line, "missing value for command")
        source = " ".join(node.source for node in operands)
        return Node("command", None, operands, operands[0].offset, source)

    def _operand(self, tokens: list[Token]) -> tuple[Node, list[Token]]:
        token, rest = tokens[0], tokens[1:]
        kind, text = token.kind, token.text
        if text == "(":
            commands, rest = self._commands(rest)
            if not rest:
                raise ParseError(self.line, "unclosed left paren")
            source = "(" + " | ".join(command.source for command in commands) + ")"
            inner = Node("pipeline", ("", []), commands, token.offset, source)
            node, rest = Node("group", inner, (), token.offset, source), rest[1:]
        elif kind == "name":
            node = self._named(token)
        elif kind in ("string", "char", "number"):
            node = Node("literal", _literal(token, self.line), (), token.offset, text)
        elif kind == "variable":
            if text not in self.variables:
                raise ParseError(self.line, f'undefined variable "{text}"')
            node = Node("variable", text, (), token.offset, text)
        elif kind in ("field", "dot"):
            node = Node("dot", None, (), token.offset, "." if kind == "dot" else "")
            if kind == "field":
                rest = [token, *rest]
        else:
            raise ParseError(self.line, f'unexpected "{text}" in operand')
        return self._fields(node, rest, token)

    def _fields(self, node: Node, rest: list[Token], first: Token) -> tuple[Node, list[Token]]:
        names: list[str] = []
        offset, source = node.offset, node.source
        while rest and rest[0].kind == "field" and (rest[0] is first or not rest[0].spaced):
            names.append(rest[0].text[1:])
            offset, source = rest[0].offset, source + rest[0].text
            rest = rest[1:]
        if not names:
            return node, rest
        return Node("fields", node, names, offset, source), rest

    def _named(self, token: Token) -> Node:
        text = token.text
        if text in ("true", "false"):
            return Node("literal", text == "true", (), token.offset, text)
        if text == "nil":
            return Node("literal", None, (), token.offset, text)
        if text not in self.known:
            raise ParseError(self.line, f'function "{text}" not defined')
        return Node("function", text, (), token.offset, text)


def _with_text(nodes: list[Node], text: str) -> list[Node]:
    if text:
        nodes.append(Node("text", text, (), 0, ""))
    return nodes


def _literal(token: Token, line: int) -> Any:
    if token.kind == "string":
        return _unquote(token)
    if token.kind == "char":
        return ord(_unquote(token)[:1] or "\0")
    text = token.text.replace("_", "")
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise ParseError(line, f'bad number syntax: "{token.text}"') from None
