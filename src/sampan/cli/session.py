"""A child with a session of its own, between which and the caller's terminal bytes are carried.

Whoever holds a terminal can type into it (TIOCSTI) or read what is typed. A child that is not
trusted gets a pseudoterminal instead, and its session has no way to the caller's.
"""

from __future__ import annotations

import os
import select

from sampan.cli import signals
from sampan.cli.terminal import FORWARDED, RawTerminal, Signals, window_size
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK_BYTES = 65536


def open_terminal(root_fd: int) -> tuple[int, int] | None:
    """(master, slave) for a child, where one of our standard streams is a terminal; else None.

    It is of the devpts of the root at `root_fd`, so that it has a name there, or of the machine's.
    """
    if not any(os.isatty(fd) for fd in (0, 1, 2)):
        return None
    from sampan.linux import pty

    try:
        return pty.open_pair(root_fd)
    except OSError:
        return pty.open_pair()


def run(work: Callable[[], int], terminal: tuple[int, int] | None) -> int:
    """Fork a child that exits with what `work` returns, and be its way out; the child's status.

    Standard streams that are no terminal are the child's as they are. Signals go on to it.
    """
    with Signals((*FORWARDED, signals.raw.SIGCHLD)) as taken:
        child = os.fork()
        if child == 0:
            _child(work, terminal)
        if terminal is not None:
            os.close(terminal[1])
        with RawTerminal(wanted=terminal is not None):
            status = _serve(child, taken, terminal[0] if terminal else -1)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _child(work: Callable[[], int], terminal: tuple[int, int] | None) -> None:
    status = 1
    try:
        signals.raw.set_wakeup_fd(-1)
        for number in (*FORWARDED, signals.raw.SIGCHLD):
            signals.raw.signal(number, signals.raw.SIG_DFL)
        os.setsid()
        if terminal is not None:
            from sampan.linux import pty

            pty.make_controlling(terminal[1])
            for fd in (0, 1, 2):
                if os.isatty(fd):
                    os.dup2(terminal[1], fd)
        status = work()
    except (OSError, SampanError) as error:
        os.write(2, f"sampan: {error}\n".encode("utf-8", "surrogateescape"))
    finally:  # never back into what the parent does
        os._exit(status)


def _serve(child: int, taken: Signals, master: int) -> int:
    """Carry until the child has ended and all it wrote is out; its wait status."""
    screen = next((fd for fd in (1, 2, 0) if os.isatty(fd)), -1)
    poller = select.poll()
    poller.register(taken.fd, select.POLLIN)
    if master >= 0:
        _resize(master, screen)
        poller.register(master, select.POLLIN)
        if os.isatty(0):
            poller.register(0, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            if fd == 0:
                data = _read(0)
                if data:
                    _write_all(master, data)
                else:
                    poller.unregister(0)
            elif fd == master:
                data = _read(master)
                if data:
                    _write_all(screen, data)
                else:  # nobody has the slave open any more
                    poller.unregister(master)
            else:
                for number in taken.taken():
                    if number == signals.raw.SIGWINCH and master >= 0:
                        _resize(master, screen)
                    elif number != signals.raw.SIGCHLD:
                        _signal(child, number)
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    _drain(master, screen)
                    return status


def _drain(master: int, screen: int) -> None:
    """What is left in the terminal; a process that stayed behind with it is not waited for."""
    if master >= 0:
        os.set_blocking(master, False)
        while data := _read(master):
            _write_all(screen, data)
        os.close(master)


def _read(fd: int) -> bytes:
    """Empty at the end, which is EIO for the master of a terminal that nobody has open."""
    try:
        return os.read(fd, CHUNK_BYTES)
    except OSError:
        return b""


def _write_all(fd: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        return  # that side is gone; the child's end is told by its status


def _resize(master: int, screen: int) -> None:
    from sampan.linux import pty

    if size := window_size(screen):
        pty.resize(master, *size)


def _signal(child: int, number: int) -> None:
    """To the command, not to the process that waits for it: that one's group is the session."""
    try:
        os.killpg(child, number)
    except ProcessLookupError:
        return
