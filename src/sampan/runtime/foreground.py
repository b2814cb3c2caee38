"""Staying with a process that runs in the foreground: signals, its terminal, its exit code."""

from __future__ import annotations

import os
import select
import signal
import termios
import tty

from sampan.linux import pidfd, pty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHUNK = 1 << 16
_NOT_FORWARDED = frozenset(
    (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG)
)


class Signals:
    """Catches the signals that are to be passed on, from before there is somebody to pass them to."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in signal.valid_signals() - _NOT_FORWARDED:
            try:
                signal.signal(number, _noted)
            except (OSError, ValueError):
                continue  # reserved by the C library


def attend(signals: Signals, pid: int, fd: int, console_fd: int | None) -> int:
    """Pass signals and terminal bytes on until the child `pid` ends; returns its exit code.

    128 + the number for one that a signal ended, as a shell shows it.
    """
    modes = _raw_terminal(console_fd)
    try:
        _Relay(fd, signals.reader, console_fd).run()
    finally:
        if modes is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, modes)
    return pidfd.exit_code(os.waitpid(pid, 0)[1])


def _noted(number: int, frame: object) -> None:
    """The byte in the wake-up pipe tells; nothing to do here."""


def _raw_terminal(console_fd: int | None) -> list[Any] | None:
    if console_fd is None or not os.isatty(0):
        return None
    modes = termios.tcgetattr(0)
    tty.setraw(0)
    _copy_size(console_fd)
    return modes


def _copy_size(console_fd: int) -> None:
    if os.isatty(0):
        rows, columns = pty.size(0)
        pty.resize(console_fd, rows, columns)


class _Relay:
    """Copies between our stdio and the console, and signals to the process."""

    def __init__(self, process_fd: int, signal_fd: int, console_fd: int | None) -> None:
        self.process_fd = process_fd
        self.signal_fd = signal_fd
        self.console_fd = console_fd
        self.poll = select.poll()
        self.poll.register(process_fd, select.POLLIN)
        self.poll.register(signal_fd, select.POLLIN)
        if console_fd is not None:
            self.poll.register(console_fd, select.POLLIN)
            self.poll.register(0, select.POLLIN)

    def run(self) -> None:
        while True:
            ready = dict(self.poll.poll())
            if self.signal_fd in ready:
                self._pass_signals()
            if self.console_fd is not None and 0 in ready:
                self._copy_in()
            if self.console_fd is not None and self.console_fd in ready:
                self._copy_out()
            elif self.process_fd in ready:
                return

    def _pass_signals(self) -> None:
        for number in os.read(self.signal_fd, 4096):
            if number == signal.SIGWINCH and self.console_fd is not None:
                _copy_size(self.console_fd)
            elif number not in _NOT_FORWARDED:
                pidfd.send_signal(self.process_fd, number)

    def _copy_in(self) -> None:
        assert self.console_fd is not None
        data = os.read(0, _CHUNK)
        if not data:
            self.poll.unregister(0)
            return
        while data:
            data = data[os.write(self.console_fd, data) :]

    def _copy_out(self) -> None:
        """The console says EIO when the last process has closed it."""
        assert self.console_fd is not None
        try:
            data = os.read(self.console_fd, _CHUNK)
        except OSError:
            data = b""
        if not data:
            self.poll.unregister(self.console_fd)
            self.console_fd = None
            return
        while data:
            data = data[os.write(1, data) :]
