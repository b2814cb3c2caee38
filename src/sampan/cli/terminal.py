"""This process's own terminal and signals: raw mode, window size, signals as bytes in a pipe."""

from __future__ import annotations

import os

from sampan.cli import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

FORWARDED = tuple(
    getattr(signals.raw, "SIG" + name)
    for name in (
        *("HUP", "INT", "QUIT", "TRAP", "ABRT", "USR1", "USR2", "ALRM", "TERM", "CONT"),
        *("TSTP", "WINCH", "IO", "PWR"),
    )
)


class RawTerminal:
    """Standard input in raw mode for as long as the `with` block lasts, if it is a terminal."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._saved: list[Any] | None = None

    def __enter__(self) -> RawTerminal:
        if self._wanted and os.isatty(0):
            import termios

            self._saved = termios.tcgetattr(0)
            termios.tcsetattr(0, termios.TCSANOW, _raw(termios.tcgetattr(0)))
        return self

    def __exit__(self, *exc: object) -> None:
        if self._saved is not None:
            import termios

            termios.tcsetattr(0, termios.TCSANOW, self._saved)


def _raw(mode: list[Any]) -> list[Any]:
    """cfmakeraw(3)."""
    import termios

    incoming, outgoing, control, local, *rest = mode
    characters = rest[2]
    incoming &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    outgoing &= ~termios.OPOST
    local &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    control = (control & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    characters[termios.VMIN] = 1
    characters[termios.VTIME] = 0
    return [incoming, outgoing, control, local, rest[0], rest[1], characters]


class Signals:
    """Signals as bytes in a pipe, for poll(2). Restores the former handlers at the end."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = tuple(numbers)
        self._saved: list[tuple[int, Any]] = []
        self.fd = -1

    def __enter__(self) -> Signals:
        if self._numbers:
            self.fd, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self._wakeup = signals.raw.set_wakeup_fd(self._write)
            for number in self._numbers:
                self._saved.append((number, signals.raw.signal(number, _ignore)))
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._saved:
            signals.raw.signal(number, handler)
        if self.fd >= 0:
            signals.raw.set_wakeup_fd(self._wakeup)
            os.close(self.fd)
            os.close(self._write)

    def taken(self) -> Iterator[int]:
        """The signals that arrived."""
        yield from os.read(self.fd, 512)


def _ignore(number: int, frame: object) -> None:
    """A Python handler has to stand there for the wake-up fd to be written."""


def window_size(fd: int) -> tuple[int, int] | None:
    """Rows and columns of the terminal at `fd`, None where there is none."""
    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return None
    return size.lines, size.columns


def require_terminal(*, tty: bool, stdin: bool) -> None:
    """Refuse `-it` where standard input is no terminal, as docker does.

    Raises:
        CommandError: it is none.
    """
    if tty and stdin and not os.isatty(0):
        from sampan.cli.failures import CommandError

        raise CommandError("the input device is not a TTY")
