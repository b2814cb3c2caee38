"""Progress of pulls and loads: the engine's JSON messages as lines, redrawn on a terminal."""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def show(messages: Iterable[dict[str, Any]], *, fd: int, quiet: bool = False) -> None:
    """Show messages on `fd` as they come.

    Raises:
        CommandError: one of them is the engine's failure.
    """
    terminal = os.isatty(fd)
    rows: dict[str, int] = {}
    for message in messages:
        failure = (message.get("errorDetail") or {}).get("message") or message.get("error")
        if failure:
            raise CommandError(str(failure))
        if quiet:
            continue
        if message.get("stream"):
            _write(fd, str(message["stream"]))
        elif message.get("id") and terminal:
            _redraw(fd, rows, message)
        elif not message.get("progress") and not message.get("progressDetail"):
            _write(fd, _line(message) + "\n")


def _line(message: dict[str, Any]) -> str:
    lead = f"{message['id']}: " if message.get("id") else ""
    tail = f" {message['progress']}" if message.get("progress") else ""
    return f"{lead}{message.get('status', '')}{tail}"


def _redraw(fd: int, rows: dict[str, int], message: dict[str, Any]) -> None:
    """One row per ID, rewritten in place; `rows` keeps where each is, counted from the top."""
    identifier = str(message["id"])
    if identifier not in rows:
        rows[identifier] = len(rows)
        _write(fd, "\n")
    up = len(rows) - rows[identifier]
    _write(fd, f"\x1b[{up}A\x1b[2K\r{_line(message)}\r\x1b[{up}B")


def _write(fd: int, text: str) -> None:
    from sampan.cli.streams import write_all

    write_all(fd, text.encode("utf-8", "surrogateescape"))
