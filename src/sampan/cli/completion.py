"""Completion: what could stand at the cursor, from the command table; names from the engine.

`sampan __complete WORDS… PREFIX` prints candidates, one a line, `candidate<TAB>description`, and a
last line `:DIRECTIVE` as cobra's does (0: file names too; 4: nothing but these). The scripts that
`sampan completion bash|zsh|fish` prints call it, so they never need a change.
"""

from __future__ import annotations

import sys

from sampan.cli import flags, table
from sampan.cli.call import Call
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FILES = 0
NO_FILES = 4
RUNNING = ("attach", "enter", "exec", "kill", "pause", "stop", "top")
CONTAINERS = (*RUNNING, "container history", "container inspect", "logs", "rename", "restart", "rm", "start", "unpause", "update", "wait")  # fmt: skip
IMAGES = (
    "create",
    "history",
    "image history",
    "image inspect",
    "images",
    "rmi",
    "run",
    "save",
    "tag",
)
CHOICES = {
    "network": ("bridge", "host", "none"),
    "pull": ("always", "missing", "never"),
    "restart": ("no", "always", "on-failure", "unless-stopped"),
    "log-driver": ("json-file", "none"),
    "cgroupns": ("host", "private"),
    "type": ("container", "image", "network", "volume"),
    "pid": ("host",),
    "uts": ("host",),
    "userns": ("host",),
    "ipc": ("host", "none", "private", "shareable"),
    "signal": ("HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2"),
    "stop-signal": ("HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2"),
    "format": ("json", "table"),
    "log-level": ("debug", "info", "warn", "error", "fatal"),
}


def complete(words: Sequence[str], environ: dict[str, str]) -> int:
    """Print the candidates for the last of `words`."""
    candidates, directive = candidates_for(list(words) or [""], environ)
    prefix = words[-1] if words else ""
    for name, description in candidates:
        if name.startswith(prefix):
            sys.stdout.write(f"{name}\t{description}\n" if description else f"{name}\n")
    sys.stdout.write(f":{directive}\n")
    return 0


def candidates_for(
    words: list[str], environ: dict[str, str]
) -> tuple[Iterable[tuple[str, str]], int]:
    """What could stand in the place of the last word, and what the shell may add."""
    *before, prefix = words
    before, hosts = _without_globals(before)
    if not before:
        if prefix.startswith("-"):
            return _flag_names(table.GLOBAL_FLAGS), NO_FILES
        return _top_level(), NO_FILES
    found = table.find(before)
    if found is None:
        if len(before) == 1 and before[0] in table.MANAGEMENT:
            return _group(before[0]), NO_FILES
        return (), NO_FILES
    name, row, taken = found
    rows = table.load(row).FLAGS
    pending = _flag_without_value(rows, before[taken:])
    if pending:
        values = CHOICES.get(pending)
        return [(value, "") for value in values or ()], NO_FILES if values else FILES
    if prefix.startswith("-"):
        return _flag_names(rows), NO_FILES
    return _arguments(name, row, before[taken:], hosts, environ)


def _without_globals(words: list[str]) -> tuple[list[str], list[str]]:
    try:
        top = flags.parse(table.GLOBAL_FLAGS, words, interspersed=False)
    except (CommandError, flags.HelpWanted):
        return words, []
    return top.args, top["host"]


def _top_level() -> list[tuple[str, str]]:
    names = [(name, row[1]) for name, row in table.COMMANDS.items() if " " not in name]
    return sorted([*names, *table.MANAGEMENT.items(), ("help", "Help about any command")])


def _group(group: str) -> list[tuple[str, str]]:
    found = {
        alias.partition(" ")[2]: row[1]
        for name, row in table.COMMANDS.items()
        for alias in (name, *row[4])
        if alias.startswith(group + " ")
    }
    return sorted(found.items())


def _flag_names(rows: Sequence[flags.Row]) -> list[tuple[str, str]]:
    shown = sorted((f"--{row[0]}", row[4].split("\n")[0]) for row in rows if row[4])
    return [*shown, ("--help", "Print usage")]


def _flag_without_value(rows: Sequence[flags.Row], words: list[str]) -> str:
    """The name of the flag whose value the cursor stands at, "" if at none's."""
    last = words[-1] if words else ""
    if not last.startswith("-") or "=" in last or "--" in words:
        return ""
    for name, short, kind, _, _ in rows:
        if kind != "bool" and (
            last == f"--{name}" or (short and last[1:2] != "-" and last[-1] == short)
        ):
            return name
    return ""


def _arguments(
    name: str,
    row: table.CommandRow,
    words: list[str],
    hosts: list[str],
    environ: dict[str, str],
) -> tuple[Iterable[tuple[str, str]], int]:
    try:
        parsed = flags.parse(table.load(row).FLAGS, words, interspersed=not row[5])
    except (CommandError, flags.HelpWanted):
        return (), NO_FILES
    count = len(parsed.args)
    if name == "completion":
        return ([] if count else [(shell, "") for shell in ("bash", "fish", "zsh")]), NO_FILES
    if name == "daemon" and not count:
        return [("stop", table.COMMANDS["daemon stop"][1])], NO_FILES
    if name in ("load", "import") or (row[5] and count):
        return (), FILES
    if 0 <= row[2][1] <= count:
        return (), NO_FILES
    call = Call("sampan", name, parsed, environ)
    call.hosts = hosts
    return _objects(call, name, set(parsed.args)), NO_FILES


def _objects(call: Call, name: str, taken: set[str]) -> list[tuple[str, str]]:
    """Names of the engine's objects that fit; none where no engine answers."""
    names: list[tuple[str, str]] = []
    try:
        client = call.running_client()
        if name in CONTAINERS or name == "inspect":
            everything = "" if name in RUNNING else "?all=1"
            for container in client.call("GET", f"/containers/json{everything}"):
                names += [
                    (each.removeprefix("/"), container["Image"]) for each in container["Names"]
                ]
        if name in IMAGES or name == "inspect":
            for image in client.call("GET", "/images/json"):
                names += [(tag.removesuffix(":latest"), "") for tag in image.get("RepoTags") or ()]
            if name in ("run", "create"):
                names.append(("host", "this machine's own file system"))
        client.close()
    except (CommandError, OSError):
        return []
    return sorted(entry for entry in names if entry[0] not in taken)
