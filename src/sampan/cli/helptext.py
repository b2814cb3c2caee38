"""Help and usage texts, from the command table; wrapped to the terminal as pflag wraps them."""

from __future__ import annotations

import os

from sampan.cli import table
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SLOP = 5
_NARROWEST = 24
_SHOWN_KINDS = {
    "swapbytes": "bytes", "sysctls": "map", "envs": "list", "streams": "list", "addresses": "list",
    "extra-hosts": "list", "device-rules": "list", "byte-rates": "list", "rates": "list",
    "weights": "list",
}  # fmt: skip


def for_words(program: str, words: Sequence[str]) -> str:
    """The help of the program ([]), of a management command, or of a command.

    Raises:
        CommandError: there is no such command.
    """
    if not words:
        return _overview(program)
    if len(words) == 1 and words[0] in table.MANAGEMENT:
        return _management(program, words[0])
    found = table.find(list(words))
    if found is None:
        raise CommandError(f"unknown help topic: {' '.join(words)}")
    name, row, taken = found
    return _command(program, name, row, " ".join(words[:taken]))


def _command(program: str, name: str, row: table.CommandRow, shown: str) -> str:
    usage = row[0].replace(name, shown, 1)
    text = f"Usage:  {program} {usage}\n\n{row[1]}\n"
    if row[4]:
        names = (*row[4], name)
        text += "\nAliases:\n  " + ", ".join(f"{program} {alias}" for alias in names) + "\n"
    flags = flag_usages(table.load(row).FLAGS)
    return text + (f"\nOptions:\n{flags}" if flags else "")


def _overview(program: str) -> str:
    groups = (
        ("Common Commands", [(name, table.COMMANDS[name][1]) for name in table.COMMON]),
        ("Management Commands", list(table.MANAGEMENT.items())),
        (
            "Commands",
            [
                (name, row[1])
                for name, row in sorted(table.COMMANDS.items())
                if " " not in name and name not in table.COMMON
            ],
        ),
    )
    text = f"Usage:  {program} [OPTIONS] COMMAND\n\nContainers that start fast and outlive their daemon\n"
    for title, rows in groups:
        text += f"\n{title}:\n" + _rows(rows)
    text += f"\nGlobal Options:\n{flag_usages(table.GLOBAL_FLAGS)}"
    return text + f"\nRun '{program} COMMAND --help' for more information on a command.\n"


def _management(program: str, group: str) -> str:
    rows: dict[str, str] = {}
    for name, row in table.COMMANDS.items():
        for alias in (name, *row[4]):
            if alias.startswith(group + " "):
                rows.setdefault(row[1], alias.partition(" ")[2])
    listed = sorted((alias, summary) for summary, alias in rows.items())
    return (
        f"Usage:  {program} {group} COMMAND\n\n{table.MANAGEMENT[group]}\n\nCommands:\n{_rows(listed)}"
        f"\nRun '{program} {group} COMMAND --help' for more information on a command.\n"
    )


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    width = max(max(len(name) for name, _ in rows), 11)
    return "".join(f"  {name:<{width}} {summary}\n" for name, summary in rows)


def flag_usages(rows: Sequence[tuple[str, str, str, str, str]]) -> str:
    """The flags and what they do, one under the other, in the width of the terminal."""
    heads = []
    for name, short, kind, default, usage in sorted(rows):
        if not usage:
            continue
        head = f"  -{short}, --{name}" if short else f"      --{name}"
        if kind != "bool":
            head += " " + _SHOWN_KINDS.get(kind, kind)
        shown = f" (default {default})" if default else ""
        heads.append((head, usage + shown))
    if not heads:
        return ""
    indent = max(len(head) for head, _ in heads) + 3
    width = _terminal_width() - 1
    return "".join(f"{head:<{indent}}{wrap(indent, width, usage)}\n" for head, usage in heads)


def _terminal_width() -> int:
    try:
        return os.get_terminal_size(0).columns or 80
    except OSError:
        return 80


def wrap(indent: int, width: int, text: str) -> str:
    """`text` in lines of at most `width - indent` columns, the later ones indented (pflag's rule:
    a line may be five longer if that ends the text)."""
    room = width - indent
    lead = ""
    if room < _NARROWEST:
        indent, room = 16, width - 16
        lead = "\n" + " " * indent
    if room < _NARROWEST:
        return text.replace("\n", "\n" + " " * indent)
    lines = []
    while text:
        line, text = _first_line(room - _SLOP, text)
        lines.append(line)
    return lead + ("\n" + " " * indent).join("\n".join(lines).split("\n"))


def _first_line(room: int, text: str) -> tuple[str, str]:
    if room + _SLOP > len(text):
        return text, ""
    head = text[:room]
    cut = max(head.rfind(" "), head.rfind("\t"), head.rfind("\n"))
    if cut <= 0:
        return text, ""
    newline = head.rfind("\n")
    if 0 < newline < cut:
        cut = newline
    return text[:cut], text[cut + 1 :]
