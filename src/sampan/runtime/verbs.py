"""The verbs about containers that exist, and those that need none: state, kill, delete, list …"""

from __future__ import annotations

import os
import sys

from sampan import jsontext
from sampan.errors import Conflict, InvalidArgument, NotFound, RuntimeFailure
from sampan.runtime import control, hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.linux.cgroups.base import Cgroup
    from sampan.runtime.dispatch import Context
    from sampan.runtime.options import Values
    from sampan.runtime.store import Record


def state(context: Context, options: Values, arguments: list[str]) -> int:
    """`state ID`: the state as JSON."""
    del options
    import json

    context.say(json.dumps(context.store.load(_one(arguments)).to_state(), indent=2))
    return 0


def kill(context: Context, options: Values, arguments: list[str]) -> int:
    """`kill ID [SIGNAL]`."""
    if not 1 <= len(arguments) <= 2:
        raise InvalidArgument("kill needs a container ID and perhaps a signal")
    signal = _signal(arguments[1] if len(arguments) == 2 else "SIGTERM")
    record = context.store.load(arguments[0])
    status = record.status()
    cgroup = record.cgroup()
    if options.flag("all") and cgroup is not None:
        control.kill_all(cgroup, signal)
        return 0
    if status == control.STOPPED:
        raise Conflict("container not running")
    control.kill(record.pid, record.start_time, signal)
    if status == control.PAUSED and signal == 9 and cgroup is not None:
        control.resume(cgroup)  # a frozen process takes its SIGKILL only when it goes on
    return 0


def _signal(name: str) -> int:
    if name.isdecimal():
        return int(name)
    import signal

    try:
        return signal.Signals[
            name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
        ]
    except KeyError:
        raise InvalidArgument(f"unknown signal {name!r}") from None


def delete(context: Context, options: Values, arguments: list[str]) -> int:
    """`delete ID`: forget a stopped (or with --force any) container and remove its cgroup."""
    container_id = _one(arguments)
    force = options.flag("force")
    try:
        record = context.store.load(container_id)
    except NotFound:
        context.store.remove(container_id)
        if force:
            return 0
        raise
    status = record.status()
    if status not in (control.STOPPED, control.CREATED, "creating") and not force:
        raise Conflict(f"cannot delete container {container_id} that is not stopped: {status}")
    remove(context, record, force=True)
    return 0


def remove(context: Context, record: Record, *, force: bool) -> None:
    """Kill what runs (with `force`), remove cgroup and record, run the poststop hooks."""
    cgroup = record.cgroup()
    if force:
        control.end(record.pid, record.start_time, cgroup)
    if cgroup is not None:
        cgroup.delete()
    context.store.remove(record.id)
    table = record.config.get("hooks") or {}
    if table.get("poststop"):
        config = record.config
        document = hooks.state_document(
            record.id,
            "stopped",
            0,
            record.bundle,
            config.get("annotations"),
            config.get("ociVersion") or "",
        )
        for hook in table["poststop"]:
            try:
                hooks.run_hooks("poststop", [hook], document)
            except RuntimeFailure as failure:
                context.warn(failure.message)  # config.md: the remaining hooks are run


def list_containers(context: Context, options: Values, arguments: list[str]) -> int:
    """`list`: a table, or JSON as an array of states."""
    if arguments:
        raise InvalidArgument("list takes no argument")
    records = context.store.all()
    if options.flag("quiet"):
        for record in records:
            context.say(record.id)
        return 0
    states = [record.to_state() for record in records]
    if _format(options) == "json":
        context.say(jsontext.encode(states or None))
        return 0
    rows = [["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]]
    rows += [
        [s["id"], str(s["pid"]), s["status"], s["bundle"], s["created"], "root"] for s in states
    ]
    _print_table(context, rows)
    return 0


def _print_table(context: Context, rows: list[list[str]]) -> None:
    widths = [max(12, *(len(row[i]) + 3 for row in rows)) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        context.say("".join(cells) + row[-1])


def _format(options: Values) -> str:
    chosen = options.text("format") or "table"
    if chosen not in ("table", "json"):
        raise InvalidArgument("invalid format option")
    return chosen


def ps(context: Context, options: Values, arguments: list[str]) -> int:
    """`ps ID [ps options]`: the lines of ps(1) about the container, or its pids as JSON."""
    if not arguments:
        raise InvalidArgument("ps needs a container ID")
    record = context.store.load(arguments[0])
    pids = control.ps(_cgroup(record))
    if _format(options) == "json":
        context.say(jsontext.encode(pids))
        return 0
    import subprocess

    words = arguments[1:] or ["-ef"]
    listing = subprocess.run(["ps", *words], capture_output=True, text=True, check=False)
    if listing.returncode:
        raise RuntimeFailure("ps", listing.stderr.strip())
    lines = listing.stdout.splitlines()
    titles = lines[0].split()
    if "PID" not in titles:
        raise RuntimeFailure("ps", "couldn't find PID field in ps output")
    column = titles.index("PID")
    wanted = {str(pid) for pid in pids}
    context.say(lines[0])
    for line in lines[1:]:
        fields = line.split()
        if len(fields) > column and fields[column] in wanted:
            context.say(line)
    return 0


def pause(context: Context, options: Values, arguments: list[str]) -> int:
    """`pause ID`."""
    del options
    record = context.store.load(_one(arguments))
    status = record.status()
    if status not in (control.RUNNING, control.CREATED):
        raise Conflict("container not running or created: " + status)
    control.pause(_cgroup(record))
    return 0


def resume(context: Context, options: Values, arguments: list[str]) -> int:
    """`resume ID`."""
    del options
    record = context.store.load(_one(arguments))
    if record.status() != control.PAUSED:
        raise Conflict("container not paused")
    control.resume(_cgroup(record))
    return 0


def _cgroup(record: Record) -> Cgroup:
    cgroup = record.cgroup()
    if cgroup is None:
        raise Conflict(f"container {record.id} has no cgroup")
    return cgroup


def update(context: Context, options: Values, arguments: list[str]) -> int:
    """`update ID`: change limits, from a file or by options, and remember them."""
    record = context.store.load(_one(arguments))
    if record.status() == control.STOPPED:
        raise Conflict("container not running")
    resources = _resources(options)
    control.update(_cgroup(record), resources)
    known = record.config.setdefault("linux", {}).setdefault("resources", {})
    for name, values in resources.items():
        if isinstance(values, dict) and isinstance(known.get(name), dict):
            known[name].update(values)
        else:
            known[name] = values
    record.save()
    return 0


# option → (section, key) of `linux.resources`
_LIMITS: dict[str, tuple[str, str]] = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-idle": ("cpu", "idle"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-share": ("cpu", "shares"),
    "cpuset-cpus": ("cpu", "cpus"),
    "cpuset-mems": ("cpu", "mems"),
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "pids-limit": ("pids", "limit"),
}
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def _resources(options: Values) -> dict[str, Any]:
    if path := options.text("resources"):
        text = sys.stdin.read() if path == "-" else _read(path)
        try:
            loaded: dict[str, Any] = jsontext.decode(text)
        except ValueError as error:
            raise InvalidArgument(f"resources: {error}") from None
        return loaded
    resources: dict[str, Any] = {}
    for option, (section, key) in _LIMITS.items():
        value: int | str | None = options.number(option)
        if value is None:
            value = options.text(option)
        if value is None:
            continue
        if isinstance(value, str) and section == "memory":
            value = _size(option, value)
        resources.setdefault(section, {})[key] = value
    return resources


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _size(option: str, text: str) -> int:
    """A size in bytes as Docker's go-units reads it: `64m`, `1GiB`; -1 is no limit."""
    if text == "-1":
        return -1
    lowered = text.strip().lower().removesuffix("b").removesuffix("i")
    unit = lowered[-1:] if lowered[-1:].isalpha() else ""
    number = lowered.removesuffix(unit) if unit else lowered
    try:
        return int(float(number) * _SIZES[unit])
    except (KeyError, ValueError):
        raise InvalidArgument(f"invalid value for {option}: {text!r}") from None


def features(context: Context, options: Values, arguments: list[str]) -> int:
    """`features`: what this runtime can, as features.md says."""
    del options, arguments
    import json

    from sampan.runtime import features as table

    context.say(json.dumps(table.features(), indent=4))
    return 0


def spec(context: Context, options: Values, arguments: list[str]) -> int:
    """`spec`: write a config.json to start from."""
    del context, arguments
    import json

    from sampan.runtime import default_spec

    path = os.path.join(options.text("bundle") or ".", "config.json")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise Conflict(f"File {path} exists. Remove it first") from None
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(default_spec.default_spec(), file, indent="\t")
        file.write("\n")
    return 0


def _one(arguments: list[str]) -> str:
    if len(arguments) != 1:
        raise InvalidArgument(f'exactly 1 argument is needed, a container ID; got "{arguments}"')
    return arguments[0]


HANDLERS: dict[str, Callable[[Context, Values, list[str]], int]] = {
    "delete": delete,
    "features": features,
    "kill": kill,
    "list": list_containers,
    "pause": pause,
    "ps": ps,
    "resume": resume,
    "spec": spec,
    "state": state,
    "update": update,
}
