"""A tar to the engine's import, with what has been sent shown meanwhile."""

from __future__ import annotations

import os
import time
from itertools import chain

from sampan.cli import jsontext, references, units
from sampan.cli.client import query, quote
from sampan.cli.failures import CommandError
from sampan.cli.streams import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sampan.cli.call import Call

_REDRAW_S = 0.1


class Status:
    """A line on standard error that is drawn again and again, if that is a terminal.

    `step` is said on a terminal by redrawing the line, elsewhere as a line of its own.
    """

    def __init__(self, *, quiet: bool, fd: int = 2) -> None:
        self._fd = fd
        self._quiet = quiet
        self._terminal = os.isatty(fd) and not quiet
        self._drawn_at = 0.0
        self._drawn = False

    def step(self, text: str) -> None:
        """What is being done now."""
        if self._quiet:
            return
        if self._terminal:
            self._draw(text)
        else:
            write_all(self._fd, f"{text}\n".encode("utf-8", "surrogateescape"))

    def tick(self, text: str) -> None:
        """How far it is; too often for lines of its own, so only a terminal shows it."""
        if self._terminal and time.monotonic() - self._drawn_at >= _REDRAW_S:
            self._draw(text)

    def keep(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet:
            self.clear()
            write_all(self._fd, f"{text}\n".encode("utf-8", "surrogateescape"))

    def clear(self) -> None:
        """Take the line back."""
        if self._drawn:
            write_all(self._fd, b"\r\x1b[K")
            self._drawn = False

    def _draw(self, text: str) -> None:
        width = _columns(self._fd) - 1
        shown = "".join(letter for letter in text if letter.isprintable())[:width]
        write_all(self._fd, f"\r\x1b[K{shown}".encode("utf-8", "surrogateescape"))
        self._drawn_at = time.monotonic()
        self._drawn = True


def import_image(
    call: Call,
    blocks: Iterable[bytes],
    *,
    status: Status,
    tag: str,
    message: str,
    changes: Iterable[str],
    platform: str = "",
    size_bytes: int | None = None,
) -> str:
    """Make an image of the tar in `blocks`; its ID. `size_bytes` is what is expected, if known.

    Raises:
        CommandError: the engine refuses it; what it was sent until then is gone.
    """
    if tag:
        references.split(tag)
    values = query(fromSrc="-", repo=tag, message=message, platform=platform)
    values += "".join(f"&changes={quote(change)}" for change in changes)
    body = _counted(blocks, status, size_bytes)
    response = call.client.open("POST", f"/images/create{values}", body, content_type="text/plain")
    identifier = ""
    for answer in response.values():
        failure = (answer.get("errorDetail") or {}).get("message") or answer.get("error")
        if failure:
            raise CommandError(str(failure))
        identifier = str(answer.get("status", identifier))
    status.clear()
    return identifier


def begun(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same blocks, when the first is there: nothing is asked of the engine before."""
    first = next(blocks, b"")
    return chain((first,), blocks)


def defaults(command: list[str], path: str) -> list[str]:
    """The instructions that give an image its command and its PATH."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return [f"CMD {jsontext.encode(command)}", f'ENV PATH="{escaped}"']


def _counted(blocks: Iterable[bytes], status: Status, expected: int | None) -> Iterator[bytes]:
    sent = 0
    of = f" of about {units.human_size(expected, 3)}" if expected is not None else ""
    for block in blocks:
        yield block
        sent += len(block)
        status.tick(f"Sent {units.human_size(sent, 3)}{of}")
    status.tick("Waiting for the engine")


def _columns(fd: int) -> int:
    try:
        return os.get_terminal_size(fd).columns or 80
    except OSError:
        return 80
