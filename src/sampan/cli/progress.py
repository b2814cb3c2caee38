"""Progress of pulls and loads: the engine's JSON messages as lines, as bars on a terminal."""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

ARCHIVE = "archive"
"""What the bar of an import is called: its messages have no ID."""


def show(messages: Iterable[dict[str, Any]], *, fd: int, quiet: bool = False) -> None:
    """Show messages on `fd` as they come.

    Raises:
        CommandError: one of them is the engine's failure.
    """
    if os.isatty(fd) and not quiet:
        _show_bars(messages, fd)
        return
    for message in messages:
        _check(message)
        if quiet or "aux" in message:  # a result for programs
            continue
        if message.get("stream"):
            _write(fd, str(message["stream"]))
        elif not message.get("progress") and not message.get("progressDetail"):
            _write(fd, _line(message) + "\n")


def _show_bars(messages: Iterable[dict[str, Any]], fd: int) -> None:
    from sampan.cli.bars import Bars

    bars = Bars(lambda text: _write(fd, text), lambda: _size(fd))
    try:
        for message in messages:
            _check(message)
            if "aux" in message:
                continue
            if message.get("stream"):
                bars.line(str(message["stream"]).rstrip("\n"))
            elif "progressDetail" in message:
                bars.take({**message, "id": message.get("id") or ARCHIVE})
            else:
                bars.line(_line(message))
    finally:
        bars.finish()


def _check(message: dict[str, Any]) -> None:
    failure = (message.get("errorDetail") or {}).get("message") or message.get("error")
    if failure:
        raise CommandError(str(failure))


def _line(message: dict[str, Any]) -> str:
    lead = f"{message['id']}: " if message.get("id") else ""
    tail = f" {message['progress']}" if message.get("progress") else ""
    return f"{lead}{message.get('status', '')}{tail}"


def _size(fd: int) -> tuple[int, int]:
    """The terminal's lines and columns, as it is now."""
    size = os.get_terminal_size(fd)
    return size.lines or 24, size.columns or 80


def _write(fd: int, text: str) -> None:
    from sampan.cli.streams import write_all

    write_all(fd, text.encode("utf-8", "surrogateescape"))
