"""The log drivers: one visible table from Docker's name to what writes in the shim."""

from __future__ import annotations

from sampan.errors import InvalidArgument
from sampan.logs.json_file_writer import JSONFileWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    class LogWriter(Protocol):
        """Takes a container's output as it comes; lives in the shim, single-threaded.

        `write` gets what one read returned, `finish` says that the stream has ended (a held, unended
        line is written then), `close` comes last. `write` raises OSError when the output is lost.
        """

        def write(self, stream: str, chunk: bytes) -> None: ...
        def finish(self, stream: str) -> None: ...
        def close(self) -> None: ...


class Discard:
    """Driver `none`: nothing is kept."""

    def __init__(self, path: str, options: Mapping[str, str]) -> None:
        pass

    def write(self, stream: str, chunk: bytes) -> None:
        pass

    def finish(self, stream: str) -> None:
        pass

    def close(self) -> None:
        pass


DRIVERS: dict[str, Callable[[str, Mapping[str, str]], LogWriter]] = {
    "json-file": JSONFileWriter,
    "none": Discard,
}


def open_writer(driver: str, path: str, options: Mapping[str, str]) -> LogWriter:
    """The writer of `driver` for the container's log at `path`.

    Raises:
        InvalidArgument: no such driver, or an option it cannot take.
        OSError: the file cannot be opened.
    """
    try:
        factory = DRIVERS[driver]
    except KeyError:
        raise InvalidArgument(f"logger: no log driver named '{driver}' is registered") from None
    return factory(path, options)
