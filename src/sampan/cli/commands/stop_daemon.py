"""`sampan daemon stop`: end the engine of this machine; its containers go on."""

from __future__ import annotations

import os
import select

from sampan.cli import roots, signals
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    ("exec-root", "", "string", "", "Root directory of the engine's state"),
    ("pidfile", "p", "string", "", "Path of the engine's PID file"),
)
STOP_TIMEOUT_S = 60


def run(call: Call) -> int:
    """Ask the daemon to end, and wait until it has."""
    root = call.text("exec-root") or roots.exec_root(call.environ)
    path = call.text("pidfile") or f"{root}/sampand.pid"
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
