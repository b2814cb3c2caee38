"""Go's text/template, as far as people write it behind `--format`, with docker's functions.

Actions: fields, methods, variables, pipelines, parentheses, `if`, `range`, `with`, `else`, `break`,
`continue`, comments, trim markers. Functions: those of text/template and docker's `json`, `join`,
`lower`, `upper`, `pad`, `split`, `title`, `truncate`, `println` … Not there: `define`, `block` and
`template`. Source: https://pkg.go.dev/text/template.

A text becomes a `Program` once and is run on any number of values. A value is what JSON gives, or an
object with `field(name)`, `method(name)`, `as_json()` and `type_name` (see `listing.Subject`).
"""

from __future__ import annotations

from sampan.cli.failures import CommandError
from sampan.cli.gotext import MISSING, FunctionError, functions, printed, true

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_SPACE = " \t\r\n"
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_KEYWORDS = ("if", "range", "with", "else", "end", "break", "continue")
_USER_MAPS = frozenset(
    [
        "Annotations",
        "Attributes",
        "Data",
        "DriverOpts",
        "ExposedPorts",
        "Labels",
        "Networks",
        "Options",
        "PortBindings",
        "Ports",
        "StorageOpt",
        "Sysctls",
        "Tmpfs",
        "Volumes",
    ]
)
_UNSUPPORTED = ("define", "block", "template")


class ParseError(CommandError):
    """The text is no template."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"failed to parse template: template: :{line}: {reason}")
        self.detail = f"template: :{line}: {reason}"


class ExecuteError(CommandError):
    """The template does not fit the value."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"failed to execute template: {detail}")
        self.detail = detail


class _Break(Exception):
    """`{{break}}`."""


class _Continue(Exception):
    """`{{continue}}`."""


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


def parse(source: str) -> Program:
    """Read a template.

    Raises:
        ParseError: with Go's words.
    """
    parser = _Parser(source)
    nodes, ended_by = parser.block()
    if ended_by:
        raise ParseError(parser.line, f"unexpected {{{{{ended_by}}}}}")
    return Program(source, nodes)


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


class _Parser:
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


class Program:
    """A template ready to run."""

    def __init__(self, source: str, nodes: list[Node]) -> None:
        self._source = source
        self._nodes = nodes

    def run(self, value: Any, *, heading: bool = False) -> str:
        """The text for `value`. With `heading`, functions leave what they are given as it is.

        Raises:
            ExecuteError: with Go's words.
        """
        return "".join(_Run(self._source, value, heading).walk(self._nodes, value))


class _Run:
    """One execution: variables and functions."""

    def __init__(self, source: str, value: Any, heading: bool) -> None:
        self.source = source
        self.heading = heading
        self.functions = functions()
        self.variables: list[tuple[str, Any]] = [("$", value)]

    def walk(self, nodes: list[Node], dot: Any) -> Iterator[str]:
        for node in nodes:
            if node.kind == "text":
                yield node.value
            elif node.kind == "action":
                value = self.pipeline(node.value, dot)
                if not node.value.value[0]:
                    yield self._shown(value)
            elif node.kind == "break":
                raise _Break
            elif node.kind == "continue":
                raise _Continue
            else:
                yield from self._control(node, dot)

    def _shown(self, value: Any) -> str:
        return printed(value.as_json() if hasattr(value, "as_json") else value, top=True)

    def _control(self, node: Node, dot: Any) -> Iterator[str]:
        body, otherwise = node.parts
        mark = len(self.variables)
        value = self.pipeline(node.value, dot, declare=node.kind != "range")
        if node.kind == "range":
            yield from self._range(node, dot, value)
        elif true(value):
            yield from self.walk(body, value if node.kind == "with" else dot)
        else:
            yield from self.walk(otherwise, dot)
        del self.variables[mark:]

    def _range(self, node: Node, dot: Any, value: Any) -> Iterator[str]:
        body, otherwise = node.parts
        pairs = self._pairs(node, value)
        if not pairs:
            yield from self.walk(otherwise, dot)
        for key, item in pairs:
            mark = len(self.variables)
            names = node.value.value[1]
            if len(names) == 2:
                self.variables += [(names[0], key), (names[1], item)]
            elif names:
                self.variables.append((names[0], item))
            try:
                yield from self.walk(body, item)
            except _Break:
                break
            except _Continue:
                continue
            finally:
                del self.variables[mark:]

    def _pairs(self, node: Node, value: Any) -> list[tuple[Any, Any]]:
        if value is None or value is MISSING:
            return []
        if isinstance(value, dict):
            return sorted(value.items())
        if isinstance(value, list):
            return list(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            return [(number, number) for number in range(value)]
        raise self._error(node.value.parts[0], f"range can't iterate over {printed(value)}")

    def _error(self, node: Node, reason: str) -> ExecuteError:
        line_start = self.source.rfind("\n", 0, node.offset) + 1
        line = self.source.count("\n", 0, node.offset) + 1
        shown = node.source if len(node.source) <= 20 else node.source[:20] + "..."
        if node.kind in ("command", "fields") and len(node.source) > 20:
            shown = node.source
        place = f"template: :{line}:{node.offset - line_start}"
        return ExecuteError(f'{place}: executing "" at <{shown}>: {reason}')

    def pipeline(self, node: Node, dot: Any, *, declare: bool = True) -> Any:
        value: Any = MISSING
        for index, command in enumerate(node.parts):
            value = self._command(command, dot, (value,) if index else ())
        mark, names = node.value
        if names and declare:
            self._assign(mark, names[0], value)
        return value

    def _assign(self, mark: str, name: str, value: Any) -> None:
        if mark == "=":
            for index in range(len(self.variables) - 1, -1, -1):
                if self.variables[index][0] == name:
                    self.variables[index] = (name, value)
                    return
        self.variables.append((name, value))

    def _command(self, command: Node, dot: Any, final: tuple[Any, ...]) -> Any:
        first, arguments = command.parts[0], command.parts[1:]
        if first.kind == "function":
            return self._call(command, first.value, arguments, dot, final)
        if first.kind == "fields" and (arguments or final):
            return self._method(command, first, arguments, dot, final)
        if arguments or final:
            raise self._error(first, f"can't give argument to non-function {first.source}")
        return self._value(first, dot)

    def _call(
        self, command: Node, name: str, arguments: list[Node], dot: Any, final: tuple[Any, ...]
    ) -> Any:
        if name in ("and", "or"):
            return self._short_circuit(name, arguments, dot, final)
        values = [self._value(argument, dot) for argument in arguments] + list(final)
        if self.heading and name in ("json", "title", "lower", "upper", "truncate"):
            return values[0] if values else ""
        try:
            return self.functions[name](*values)
        except FunctionError as error:
            raise self._error(command, f"error calling {name}: {error}") from None
        except (TypeError, AttributeError):
            raise self._error(command, f"wrong number or type of args for {name}") from None

    def _short_circuit(
        self, name: str, arguments: list[Node], dot: Any, final: tuple[Any, ...]
    ) -> Any:
        value: Any = None
        for argument in arguments:
            value = self._value(argument, dot)
            if true(value) == (name == "or"):
                return value
        return final[0] if final else value

    def _method(
        self, command: Node, first: Node, arguments: list[Node], dot: Any, final: tuple[Any, ...]
    ) -> Any:
        owner = self._value(first.value, dot)
        for name in first.parts[:-1]:
            owner = self._field(first, owner, name)
        name = first.parts[-1]
        method = owner.method(name) if hasattr(owner, "method") else None
        if method is None:
            self._field(first, owner, name)
            count = len(arguments) + len(final)
            raise self._error(first, f"wrong number of args for {name}: want 0 got {count}")
        return method(*[self._value(argument, dot) for argument in arguments], *final)

    def _value(self, node: Node, dot: Any) -> Any:
        kind = node.kind
        if kind == "dot":
            return dot
        if kind == "literal":
            return node.value
        if kind == "variable":
            return self._variable(node)
        if kind == "group":
            return self.pipeline(node.value, dot)
        if kind == "function":
            return self._call(node, node.value, [], dot, ())
        value = self._value(node.value, dot)
        parent = ""
        for name in node.parts:
            value = self._field(node, value, name, parent)
            parent = name
        return value

    def _variable(self, node: Node) -> Any:
        for name, value in reversed(self.variables):
            if name == node.value:
                return value
        raise self._error(node, f"undefined variable: {node.value}")

    def _field(self, node: Node, value: Any, name: str, parent: str = "") -> Any:
        if hasattr(value, "field"):
            try:
                return value.field(name)
            except KeyError:
                raise self._error(
                    node, f"can't evaluate field {name} in type {value.type_name}"
                ) from None
        if isinstance(value, dict):
            if name in value:
                return value[name]
            if parent in _USER_MAPS or _is_user_map(value):
                return MISSING
            raise self._error(node, f'map has no entry for key "{name}"')
        if value is None or value is MISSING:
            return MISSING
        kind = {str: "string", bool: "bool", int: "int", float: "float64", list: "[]interface {}"}
        shown = kind.get(type(value), "interface {}")
        raise self._error(node, f"can't evaluate field {name} in type {shown}")


def _is_user_map(value: dict[str, Any]) -> bool:
    """Whether a JSON object is a Go map with the user's keys (labels, options) and no struct.

    Docker's structs have exported names; a map answers an absent key with no value.
    """
    return not any(key[:1].isupper() for key in value)
