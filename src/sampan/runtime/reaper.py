"""A PID 1 for programs that cannot be one: forwards signals, reaps orphans, ends as its child does.

It is the runtime's own process that stays, with the container's user, capabilities and filter; it
holds no file but what it needs, and Python's memory is shared with the process it came from.
"""

from __future__ import annotations

import os

from sampan.errors import RuntimeFailure
from sampan.linux import process
from sampan.linux import syscalls as sys
from sampan.runtime import messages, program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.linux.seqpacket import Socket
    from sampan.runtime.identity import Identity

# asm-generic/signal.h
_SIGTTIN = 21
_SIGTTOU = 22
# what the kernel sends about this process itself is not for the child
_OWN = frozenset((sys.SIGCHLD, _SIGTTIN, _SIGTTOU))
# what `docker run --init` shows
_TITLE = b"/sbin/docker-init"
_NAME = b"docker-init"
_ALL = b"\xff" * 128


def run(path: str, identity: Identity, sock: Socket, area: tuple[int, int]) -> None:
    """Start the program as a child and stay until it ends; never returns.

    `area` is the memory of the command line, which shows the machine's paths until then.
    """
    sys.libc.sigprocmask(sys.SIG_SETMASK, _ALL, None)
    child = os.fork()  # not clone3(2), which docker's filter answers with ENOSYS
    if child == 0:
        _be_child(path, identity, sock)
    process.set_title(area, [_TITLE, b"--", *map(os.fsencode, identity.args)])
    process.set_name(_NAME)
    sock.close()
    sys.close_range(0)
    os._exit(_attend(child))


def _be_child(path: str, identity: Identity, sock: Socket) -> None:
    try:
        os.setpgid(0, 0)
        if os.isatty(0):
            os.tcsetpgrp(0, os.getpgrp())  # SIGTTOU is blocked
        program.become(path, identity)
    except (OSError, RuntimeFailure) as error:
        progress = messages.Progress()
        progress.at("exec", path)
        messages.send_failure(sock, progress.failure(error))
    finally:
        os._exit(127)


def _attend(child: int) -> int:
    """Forward signals and reap until the child has ended; returns the exit code to end with."""
    while True:
        number = sys.libc.sigwaitinfo(_ALL, None)
        if number == sys.SIGCHLD:
            code = _reap(child)
            if code is not None:
                return code
        elif number > 0 and number not in _OWN:
            try:
                os.kill(child, number)
            except (ProcessLookupError, PermissionError):
                continue  # it has ended, or is another user's by now, whom we may not signal


def _reap(child: int) -> int | None:
    """Take the status of every ended child; the exit code if the program was among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            ended = os.waitstatus_to_exitcode(status)
            code = 128 - ended if ended < 0 else ended
