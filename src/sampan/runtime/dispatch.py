"""From the words of a command line to a verb, and from a failure to the log and an exit code."""

from __future__ import annotations

import os
import sys
import time

from sampan import __version__, jsontext
from sampan.errors import InvalidArgument, RuntimeFailure, SampanError
from sampan.runtime.options import FLAG, LIST, NUMBER, TEXT, Option, Values, describe, parse
from sampan.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SPEC_VERSION = "1.2.0"
_DEFAULT_ROOT = "/run/sampan-oci"
_STARTING = frozenset(("create", "run", "start", "exec"))
_START_FAILED = "unable to start container process: "  # runc's words

GLOBAL: dict[str, Option] = {
    "debug": Option(FLAG, "enable debug logging"),
    "log": Option(TEXT, "set the log file to write logs to (default: stderr)"),
    "log-format": Option(TEXT, "set the log format: text (default) or json"),
    "root": Option(TEXT, f"root directory for container state (default: {_DEFAULT_ROOT})"),
    "criu": Option(TEXT, "ignored: there is no checkpoint"),
    "systemd-cgroup": Option(
        FLAG, "enable systemd cgroup support, cgroupsPath is slice:prefix:name"
    ),
    "rootless": Option(TEXT, "ignored: decided by the user who runs this"),
    "help": Option(FLAG, "show help", "h"),
    "version": Option(FLAG, "print the version", "v"),
}

_BUNDLE = Option(TEXT, "path to the root of the bundle directory (default: .)", "b")
_CONSOLE = Option(TEXT, "path to a unix socket which receives the console's master")
_PID_FILE = Option(TEXT, "file to write the process ID to")
_PRESERVE = Option(NUMBER, "pass N additional file descriptors to the container")
_FORMAT = Option(TEXT, "table (default) or json", "f")

_CREATE: dict[str, Option] = {
    "bundle": _BUNDLE,
    "console-socket": _CONSOLE,
    "pid-file": _PID_FILE,
    "no-pivot": Option(FLAG, "move the root instead of pivot_root, as for a root on a ramfs"),
    "no-new-keyring": Option(FLAG, "do not create a new session keyring"),
    "preserve-fds": _PRESERVE,
}

VERBS: dict[str, tuple[str, dict[str, Option]]] = {
    "create": ("create a container", _CREATE),
    "delete": (
        "delete what a container holds",
        {"force": Option(FLAG, "kill it if it still runs", "f")},
    ),
    "exec": (
        "run a further process in a container",
        {
            "console-socket": _CONSOLE,
            "cwd": Option(TEXT, "current working directory in the container"),
            "env": Option(LIST, "set environment variables", "e"),
            "tty": Option(FLAG, "allocate a pseudo-TTY", "t"),
            "user": Option(TEXT, "UID (format: <uid>[:<gid>])", "u"),
            "additional-gids": Option(LIST, "additional gids", "g"),
            "process": Option(TEXT, "path to the process.json", "p"),
            "detach": Option(FLAG, "detach from the container's process", "d"),
            "pid-file": _PID_FILE,
            "process-label": Option(TEXT, "SELinux label for the process"),
            "apparmor": Option(TEXT, "AppArmor profile for the process"),
            "no-new-privs": Option(FLAG, "set the no new privileges value for the process"),
            "cap": Option(LIST, "add a capability to the bounding set for the process", "c"),
            "preserve-fds": _PRESERVE,
            "cgroup": Option(LIST, "ignored: the process runs in the container's cgroup"),
            "ignore-paused": Option(FLAG, "allow exec in a paused container"),
        },
    ),
    "features": ("show the enabled features", {}),
    "kill": (
        "send a signal (default: SIGTERM) to a container's init process",
        {"all": Option(FLAG, "send the signal to all processes of the container", "a")},
    ),
    "list": (
        "list containers started with the given root",
        {"format": _FORMAT, "quiet": Option(FLAG, "display only container IDs", "q")},
    ),
    "pause": ("suspend all processes of a container", {}),
    "ps": ("display the processes of a container", {"format": _FORMAT}),
    "resume": ("resume all processes that were paused", {}),
    "run": (
        "create and run a container",
        {
            **_CREATE,
            "detach": Option(FLAG, "detach from the container's process", "d"),
            "keep": Option(FLAG, "do not delete the container after it exits"),
            "no-subreaper": Option(FLAG, "do not use the subreaper to reap reparented processes"),
        },
    ),
    "spec": (
        "create a specification file, config.json",
        {"bundle": _BUNDLE, "rootless": Option(FLAG, "ignored")},
    ),
    "start": ("execute the user-defined process in a created container", {}),
    "state": ("output the state of a container", {}),
    "update": (
        "update container resource constraints",
        {
            "resources": Option(TEXT, "file with the resources to update, - for stdin", "r"),
            "blkio-weight": Option(NUMBER, "specifies per cgroup weight, range is from 10 to 1000"),
            "cpu-period": Option(NUMBER, "CPU CFS period to be used for hardcapping (in usecs)"),
            "cpu-quota": Option(NUMBER, "CPU CFS hardcap limit (in usecs)"),
            "cpu-burst": Option(NUMBER, "CPU CFS hardcap burst limit (in usecs)"),
            "cpu-share": Option(NUMBER, "CPU shares (relative weight vs. other containers)"),
            "cpu-rt-period": Option(NUMBER, "CPU realtime period (in usecs)"),
            "cpu-rt-runtime": Option(NUMBER, "CPU realtime hardcap limit (in usecs)"),
            "cpuset-cpus": Option(TEXT, "CPU(s) to use"),
            "cpuset-mems": Option(TEXT, "memory node(s) to use"),
            "cpu-idle": Option(NUMBER, "set cgroup SCHED_IDLE or not"),
            "memory": Option(TEXT, "memory limit (in bytes)"),
            "memory-reservation": Option(TEXT, "memory reservation or soft limit (in bytes)"),
            "memory-swap": Option(TEXT, "total memory usage (memory + swap); -1: unlimited"),
            "pids-limit": Option(NUMBER, "maximum number of pids allowed in the container"),
        },
    ),
}


class Context:
    """What every verb gets: the global options put into objects."""

    __slots__ = ("options", "store", "systemd_cgroup")

    def __init__(self, options: Values) -> None:
        self.options = options
        self.store = Store(os.path.abspath(options.text("root") or _DEFAULT_ROOT))
        self.systemd_cgroup = options.flag("systemd-cgroup")

    def say(self, text: str) -> None:
        """Print a line of the verb's answer."""
        _say(text)

    def warn(self, message: str) -> None:
        """Note something in the log that is no failure."""
        _log(self.options, "warning", message)


def run(words: list[str]) -> int:
    """Do what a command line says; returns the exit code."""
    try:
        options, rest = parse(GLOBAL, words)
    except InvalidArgument as error:
        _complain(f"{error.message}\n\n{_usage()}")
        return 1
    if options.flag("version"):
        _say(f"sampan-oci version {__version__}\nspec: {SPEC_VERSION}")
        return 0
    if options.flag("help") or not rest or rest[0] in ("help", "h"):
        _say(_usage())
        return 0
    return _run_verb(options, rest[0], rest[1:])


def _run_verb(options: Values, verb: str, words: list[str]) -> int:
    if verb not in VERBS:
        _complain(f"No help topic for '{verb}'")
        return 3
    help_option = {"help": GLOBAL["help"]}
    try:
        values, arguments = parse(VERBS[verb][1] | help_option, words)
        if values.flag("help"):
            _say(f"sampan-oci {verb} - {VERBS[verb][0]}\n\nOPTIONS:\n{describe(VERBS[verb][1])}")
            return 0
        return _handler(verb)(Context(options), values, arguments)
    except SampanError as error:
        prefix = _START_FAILED if verb in _STARTING and isinstance(error, RuntimeFailure) else ""
        _fail(options, f"sampan-oci {verb} failed: {prefix}{error.message}", error)
    except OSError as error:
        name = f" {error.filename}" if error.filename else ""
        _fail(options, f"sampan-oci {verb} failed: {error.strerror or error}{name}", error)
    return 255 if verb == "exec" else 1


def _handler(verb: str) -> Callable[[Context, Values, list[str]], int]:
    if verb in ("create", "run", "start", "exec"):
        from sampan.runtime import verbs_start

        return verbs_start.HANDLERS[verb]
    from sampan.runtime import verbs

    return verbs.HANDLERS[verb]


def _fail(options: Values, message: str, error: BaseException) -> None:
    notes = getattr(error, "__notes__", [])
    hint = getattr(error, "hint", None)
    message = "; ".join([message, *notes])
    _log(options, "error", message)
    if options.text("log"):
        _complain(message)
    if hint:
        _complain(hint)


def _log(options: Values, level: str, message: str) -> None:
    """Add a line as runc's logger writes it; containerd reads the last error back from there."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if options.text("log-format") == "json":
        line = jsontext.encode({"level": level, "msg": message, "time": stamp})
    else:
        line = f'time="{stamp}" level={level} msg={jsontext.encode(message)}'
    path = options.text("log")
    if not path:
        _complain(line)
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _complain(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _usage() -> str:
    verbs = "\n".join(f"   {name}".ljust(14) + text for name, (text, _) in VERBS.items())
    return (
        "sampan-oci - Open Container Initiative runtime\n\n"
        "USAGE:\n   sampan-oci [global options] command [command options] [arguments...]\n\n"
        f"COMMANDS:\n{verbs}\n\nGLOBAL OPTIONS:\n{describe(GLOBAL)}"
    )
