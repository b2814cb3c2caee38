"""Command-line options in the manner of runc (urfave/cli over Go's flag package).

One or two dashes mean the same, a value follows or is joined by `=`, and options end at the first
argument that is none. A verb's options are a table: name → `Option`.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))

FLAG = "flag"
TEXT = "text"
NUMBER = "number"
LIST = "list"


class Option:
    """One option: its kind (FLAG, TEXT, NUMBER or LIST), one-letter name and help."""

    __slots__ = ("help", "kind", "letter")

    def __init__(self, kind: str, help: str, letter: str = "") -> None:
        self.kind = kind
        self.help = help
        self.letter = letter


class Values:
    """The options given; what was not given is False, None or an empty list."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, object]) -> None:
        self._values = values

    def flag(self, name: str) -> bool:
        return self._values.get(name) is True

    def text(self, name: str) -> str | None:
        value = self._values.get(name)
        return value if isinstance(value, str) else None

    def number(self, name: str) -> int | None:
        value = self._values.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def items(self, name: str) -> list[str]:
        value = self._values.get(name)
        return value if isinstance(value, list) else []


def parse(table: dict[str, Option], words: list[str]) -> tuple[Values, list[str]]:
    """(options, the arguments after them).

    Raises:
        InvalidArgument: an unknown option, a missing or malformed value; Go's texts.
    """
    names = dict.fromkeys(table) | {
        option.letter: name for name, option in table.items() if option.letter
    }
    values: dict[str, object] = {}
    index = 0
    while index < len(words):
        word = words[index]
        if len(word) < 2 or not word.startswith("-"):
            break
        index += 1
        if word == "--":
            break
        given, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if given not in names:
            raise InvalidArgument(f"flag provided but not defined: -{given}")
        name = names[given] or given
        option = table[name]
        if option.kind == FLAG:
            values[name] = _truth(given, value) if equals else True
            continue
        if not equals:
            if index == len(words):
                raise InvalidArgument(f"flag needs an argument: -{given}")
            value = words[index]
            index += 1
        _store(values, name, given, option, value)
    return Values(values), words[index:]


def _store(values: dict[str, object], name: str, given: str, option: Option, value: str) -> None:
    if option.kind == LIST:
        present = values.setdefault(name, [])
        assert isinstance(present, list)
        present.append(value)
    elif option.kind == NUMBER:
        try:
            values[name] = int(value, 0)
        except ValueError:
            raise InvalidArgument(
                f'invalid value "{value}" for flag -{given}: parse error'
            ) from None
    else:
        values[name] = value


def _truth(given: str, value: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise InvalidArgument(f'invalid boolean value "{value}" for -{given}: parse error')


def describe(table: dict[str, Option]) -> str:
    """The options as lines of help."""
    lines = []
    for name, option in table.items():
        letter = f", -{option.letter}" if option.letter else ""
        value = "" if option.kind == FLAG else " value"
        lines.append(f"   --{name}{letter}{value}".ljust(34) + option.help)
    return "\n".join(lines)
