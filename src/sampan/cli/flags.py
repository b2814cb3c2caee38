"""Flags as pflag reads them, from the rows of a command's flag table.

A row is `(name, shorthand, kind, default, usage)`, all strings; `default` is the text that help
shows, and "" where it shows none. A kind says how a value is read and what help calls it:

    FLAGS = (
        ("all", "a", "bool", "", "Show all containers"),
        ("last", "n", "int", "-1", "Show n last created containers"),
    )

Rules that differ from getopt's and argparse's: no abbreviations; `--rm=false`; `-it`, `-n5`, `-n=5`
and `-n 5`; a flag may be repeated; a command whose arguments end in another command line (`run`,
`exec`) stops at its first argument. A row whose usage is "" is accepted and not shown.
"""

from __future__ import annotations

from sampan.cli.failures import FlagError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Row = tuple[str, str, str, str, str]

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_CHECKED_LISTS = (
    *("ulimit", "streams", "envs", "addresses", "extra-hosts", "sysctls", "device-rules"),
    *("byte-rates", "rates", "weights", "mount", "gpu-request"),
)
_COLLECTIONS = ("list", "map", "filter", "strings", "network", *_CHECKED_LISTS)
_VALIDATED = ("decimal", "bytes", "swapbytes", "duration", *_CHECKED_LISTS)


class HelpWanted(Exception):
    """`--help` was among the flags; `notice` is said before the help text."""

    def __init__(self, notice: str = "") -> None:
        super().__init__(notice)
        self.notice = notice


class Parsed:
    """The values of one command line: `flags[name]`, `changed` names, positional `args`."""

    __slots__ = ("args", "changed", "help", "values")

    def __init__(self, rows: Sequence[Row]) -> None:
        self.values: dict[str, Any] = {row[0]: _default(row) for row in rows}
        self.changed: set[str] = set()
        self.args: list[str] = []
        self.help: HelpWanted | None = None

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def _default(row: Row) -> Any:
    kind, default = row[2], row[3]
    if kind == "bool":
        return default == "true"
    if kind in _COLLECTIONS:
        return []
    if kind in ("int", "uint", "uint16", "bytes", "swapbytes", "decimal", "duration"):
        return int(default) if default.lstrip("-").isdecimal() else 0
    return default.strip('"')


def parse(rows: Sequence[Row], argv: Sequence[str], *, interspersed: bool = True) -> Parsed:
    """Read `argv` (without the command's name) by the table.

    Raises:
        FlagError: in pflag's words.
        HelpWanted: `--help`, or `-h` where no flag has that letter.
    """
    parsed = Parsed(rows)
    size = len(argv)
    position = 0
    while position < size:
        word = argv[position]
        position += 1
        if word == "--":
            parsed.args.extend(argv[position:])
            break
        if len(word) < 2 or word[0] != "-":
            parsed.args.append(word)
            if not interspersed:
                parsed.args.extend(argv[position:])
                break
        elif word[1] == "-":
            position = _long(rows, parsed, word, argv, position)
        else:
            position = _short(rows, parsed, word, argv, position)
    if parsed.help is not None:
        raise parsed.help
    return parsed


def _long(
    rows: Sequence[Row], parsed: Parsed, word: str, argv: Sequence[str], position: int
) -> int:
    name, mark, value = word[2:].partition("=")
    if not name or name[0] == "-":
        raise FlagError(f"bad flag syntax: {word}")
    row = next((row for row in rows if row[0] == name), None)
    if row is None:
        if name == "help":
            parsed.help = HelpWanted()
            return position
        raise FlagError(f"unknown flag: --{name}")
    if not mark:
        if row[2] == "bool":
            value = "true"
        elif position < len(argv):
            value = argv[position]
            position += 1
        else:
            raise FlagError(f"flag needs an argument: --{name}")
    store(parsed, row, value)
    return position


def _short(
    rows: Sequence[Row], parsed: Parsed, word: str, argv: Sequence[str], position: int
) -> int:
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        row = next((row for row in rows if row[1] == letter), None)
        if row is None:
            if letter == "h":
                parsed.help = HelpWanted("Flag shorthand -h has been deprecated, use --help\n")
                continue
            raise FlagError(f"unknown shorthand flag: {letter!r} in {word}")
        if letters.startswith("=") and len(letters) > 1:
            store(parsed, row, letters[1:])
            return position
        if row[2] == "bool":
            store(parsed, row, "true")
            continue
        if letters:
            value = letters
        elif position < len(argv):
            value = argv[position]
            position += 1
        else:
            raise FlagError(f"flag needs an argument: {letter!r} in {word}")
        store(parsed, row, value)
        return position
    return position


def store(parsed: Parsed, row: Row, text: str) -> None:
    """Read `text` as a value of the row's kind and keep it.

    Raises:
        FlagError: it is none.
    """
    name, kind = row[0], row[2]
    try:
        value = convert(kind, text)
    except ValueError as error:
        shown = f"-{row[1]}, --{name}" if row[1] else f"--{name}"
        raise FlagError(f'invalid argument "{text}" for "{shown}" flag: {error}') from None
    if kind == "strings":
        parsed.values[name].extend(value)
    elif kind in _COLLECTIONS:
        parsed.values[name].append(value)
    else:
        parsed.values[name] = value
    parsed.changed.add(name)


def convert(kind: str, text: str) -> Any:
    """The value of one kind that `text` stands for.

    Raises:
        ValueError: in the words of docker's own value types.
    """
    if kind == "bool":
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    if kind == "int":
        return _integer(text, -(1 << 63), (1 << 63) - 1, "ParseInt")
    if kind in ("uint", "uint16"):
        return _integer(text, 0, 65535 if kind == "uint16" else (1 << 64) - 1, "ParseUint")
    if kind in ("filter", "network"):
        return _pair(kind, text)
    if kind == "strings":
        return text.split(",")
    if kind in _VALIDATED:
        from sampan.cli import values

        return values.convert(kind, text)
    return text


def _pair(kind: str, text: str) -> Any:
    if kind == "network":
        return text
    name, mark, value = text.partition("=")
    if not mark:
        raise ValueError("bad format of filter (expected name=value)")
    return name.strip().lower(), value.strip()


def _integer(text: str, low: int, high: int, function: str) -> int:
    """A Go integer literal: sign, 0x, 0o, 0b, leading 0 for octal, underscores between digits."""
    digits = text.lstrip("+-") if function == "ParseInt" else text
    octal = len(digits) > 1 and digits[0] == "0" and digits.isdecimal()
    try:
        if not digits or text.strip() != text or len(text) - len(digits) > 1:
            raise ValueError(text)
        value = int(text, 8 if octal else 0)
    except ValueError:
        raise ValueError(f'strconv.{function}: parsing "{text}": invalid syntax') from None
    if not low <= value <= high:
        raise ValueError(f'strconv.{function}: parsing "{text}": value out of range')
    return value


def assignments(texts: Sequence[str]) -> dict[str, str]:
    """`name=value` texts as a mapping; a bare name has the value ""."""
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def filters_json(pairs: Sequence[tuple[str, str]]) -> str:
    """The `filters` query value of repeated `--filter` flags, "" for none."""
    if not pairs:
        return ""
    from sampan.cli import jsontext

    table: dict[str, dict[str, bool]] = {}
    for name, value in pairs:
        table.setdefault(name, {})[value] = True
    return jsontext.encode(table)
