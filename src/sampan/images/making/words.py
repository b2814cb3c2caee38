"""Words of Dockerfile instructions: quotes, backslashes, `$NAME`, `${NAME:-word}`.

Source: Dockerfile reference, "Environment replacement"; the texts are those of moby's shell lexer.
"""

from __future__ import annotations

from collections.abc import Mapping

from sampan.errors import InvalidArgument

_SPECIAL = frozenset("@*#?-$!")
_NAME_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_DEPTH_MAX = 64
"""Variables in the words of variables: more than this nobody means."""
_NAME = _NAME_FIRST | frozenset("0123456789")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`text` without its quotes and backslashes, with the variables' values; an unknown one is "".

    Raises:
        InvalidArgument: a quote or a brace is not closed, or `${NAME:?message}` has no value.
    """
    try:
        return _Lexer(text, variables).upto("")
    except _Unfinished as error:
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        raise InvalidArgument(f'failed to process "{quoted}": {error}') from None


def split(text: str) -> list[str]:
    """The words of a line, with their quotes and backslashes still in them."""
    words: list[str] = []
    word, quote = "", ""
    characters = iter(text)
    for character in characters:
        if quote:
            word += character
            if character == "\\" and quote == '"':
                word += next(characters, "")
            elif character == quote:
                quote = ""
        elif character.isspace():
            if word:
                words.append(word)
            word = ""
        else:
            word += character
            if character == "\\":
                word += next(characters, "")
            elif character in "'\"":
                quote = character
    return [*words, word] if word else words


class _Unfinished(Exception):
    """The text ends, or goes on, where it must not."""


class _Lexer:
    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self._text = text
        self._variables = variables
        self._at = 0
        self._depth = 0

    def upto(self, stop: str) -> str:
        """Expand up to `stop`, which is taken; with "" up to the end."""
        result = ""
        while self._at < len(self._text):
            character = self._next()
            if character == stop:
                return result
            if character == "'":
                result += self._single()
            elif character == '"':
                result += self._double()
            elif character == "$":
                result += self._dollar()
            elif character == "\\":
                result += self._next()
            else:
                result += character
        if stop:
            raise _Unfinished("syntax error: missing '}'")
        return result

    def _next(self) -> str:
        character = self._text[self._at : self._at + 1]
        self._at += 1
        return character

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _single(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise _Unfinished("unexpected end of statement while looking for matching single-quote")
        inside = self._text[self._at : end]
        self._at = end + 1
        return inside

    def _double(self) -> str:
        result = ""
        while character := self._next():
            if character == '"':
                return result
            if character == "$":
                result += self._dollar()
            elif character == "\\":
                escaped = self._next()
                result += escaped if escaped in ('"', "$", "\\") else character + escaped
            else:
                result += character
        raise _Unfinished("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        if self._peek() != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._next()
        name = self._name()
        if not name:
            raise _Unfinished("syntax error: bad substitution")
        after = self._next()
        value = self._variables.get(name, "")
        if after == "}":
            return value
        if after != ":":
            raise _Unfinished("missing ':' in substitution")
        modifier = self._next()
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise _Unfinished("nested too deeply")
        word = self.upto("}")
        self._depth -= 1
        if modifier == "+":
            return word if value else ""
        if modifier == "-":
            return value or word
        if modifier == "?":
            if not value:
                raise _Unfinished(f"{name}: {word or 'is not allowed to be unset'}")
            return value
        raise _Unfinished(f"unsupported modifier ({modifier}) in substitution")

    def _name(self) -> str:
        first = self._peek()
        if first in _SPECIAL and first:
            return self._next()
        start = self._at
        if first.isascii() and first.isdigit():
            while self._peek().isascii() and self._peek().isdigit():
                self._next()
        elif first in _NAME_FIRST:
            while self._peek() in _NAME and self._peek():
                self._next()
        return self._text[start : self._at]
