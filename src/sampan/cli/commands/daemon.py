"""`sampan daemon`: the engine itself, the same as sampand; `sampan daemon stop` ends it."""

from __future__ import annotations

import os
import select
import sys

from sampan.cli import roots, signals
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()
STOP_TIMEOUT_S = 60


def forward(arguments: list[str]) -> int:
    """Become the daemon, with its own command line."""
    from sampan.cli.autostart import daemon_argv

    argv = daemon_argv(arguments)
    sys.stdout.flush()
    os.execv(argv[0], argv)


def run(call: Call) -> int:
    """Run the daemon, or stop the one that runs."""
    if call.args[:1] == ["stop"]:
        return _stop(call, call.args[1:])
    return forward(call.args)


def _stop(call: Call, arguments: list[str]) -> int:
    """Ask the daemon to end, and wait until it has; containers go on."""
    path = _pid_path(call, arguments)
    pid = _daemon_pid(path)
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        raise _none(path) from None
    if not _is_locked(path):
        raise _none(path)
    # The number could have become another process's in between; the descriptor cannot.
    signals.raw.pidfd_send_signal(pidfd, signals.raw.SIGTERM)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(STOP_TIMEOUT_S * 1000):
        raise CommandError(f"the engine (pid {pid}) has not ended after {STOP_TIMEOUT_S} s")
    call.say(f"engine stopped (pid {pid}); running containers go on")
    return 0


def _pid_path(call: Call, arguments: list[str]) -> str:
    from sampan.cli import flags

    rows = (
        ("exec-root", "", "string", f'"{roots.exec_root(call.environ)}"', "State of the engine"),
        ("pidfile", "p", "string", "", "Path of the engine's PID file"),
    )
    parsed = flags.parse(rows, arguments)
    if parsed.args:
        raise CommandError("'sampan daemon stop' accepts no arguments", prefix=True)
    return parsed["pidfile"] or f"{parsed['exec-root']}/sampand.pid"


def _daemon_pid(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read().split()[0])
    except FileNotFoundError:
        raise _none(path) from None
    except (OSError, ValueError, IndexError) as error:
        raise CommandError(f"cannot read the engine's PID file {path}: {error}") from None


def _is_locked(path: str) -> bool:
    """Whether a living daemon holds the file: a pid that a crash left behind means nothing."""
    import fcntl

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _none(path: str) -> CommandError:
    return CommandError(f"no engine is running (none holds {path})")
