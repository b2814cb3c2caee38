"""`sampan cp`: files from a container, and into one."""

from __future__ import annotations

import os
import time

from sampan.cli import archives, copying, jsontext, streams, units
from sampan.cli.client import query, quote
from sampan.cli.copying import CopyInfo
from sampan.cli.failures import ApiError, CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from sampan.cli.call import Call

_QUIET = (
    "Suppress progress output during copy. Progress output is automatically suppressed if no terminal "
    "is attached"
)
FLAGS = (
    ("archive", "a", "bool", "", "Archive mode (copy all uid/gid information)"),
    ("follow-link", "L", "bool", "", "Always follow symbol link in SRC_PATH"),
    ("quiet", "q", "bool", "", _QUIET),
)

HEADER = "x-docker-container-path-stat"
TAR = "application/x-tar"
_DIRECTORY, _LINK, _DEVICE = 1 << 31, 1 << 27, 1 << 26  # Go's os.FileMode
_REDRAWN_S = 0.075


def run(call: Call) -> int:
    """Copy in the direction that the arguments ask for."""
    source, target = call.args
    if not source:
        raise CommandError("source can not be empty")
    if not target:
        raise CommandError("destination can not be empty")
    from_container, source_path = copying.split_argument(source)
    to_container, target_path = copying.split_argument(target)
    if from_container and to_container:
        raise CommandError("copying between containers is not supported")
    if from_container:
        _copy_out(call, from_container, source_path, target_path)
    elif to_container:
        _copy_in(call, source_path, to_container, target_path)
    else:
        raise CommandError("must specify at least one container source")
    return 0


# -- Out of a container ------------------------------------------------------------------------------


def _copy_out(call: Call, container: str, path: str, target: str) -> None:
    if target != "-":
        target = copying.local_path(target)
        _check_output(target)
    rebase = ""
    if call.on("follow-link"):
        path, rebase = _followed(call, container, path)
    response = call.client.open("GET", _url(container, path=path))
    if target == "-":
        for chunk in response.chunks():
            streams.write_all(1, chunk)
        return
    found = _stat_of(response.headers)
    source = CopyInfo(
        path, exists=True, is_directory=bool(found["mode"] & _DIRECTORY), rebase=rebase
    )
    try:
        directory, name = copying.destination(source, copying.local_destination(target))
    except CommandError:
        response.close()
        raise
    with _Meter(call, "Copying from container - ", target) as meter:
        _extract(meter.counted(response.chunks()), directory, str(found["name"]), name)


def _followed(call: Call, container: str, path: str) -> tuple[str, str]:
    """Where a link in the container leads, and the name that is kept."""
    try:
        found = _stat(call, container, path)
    except ApiError:
        return path, ""  # the copy itself says what is wrong
    if not found["mode"] & _LINK:
        return path, ""
    return copying.rebased(path, found["linkTarget"])


def _extract(chunks: Iterator[bytes], directory: str, old: str, new: str) -> None:
    from sampan.errors import SampanError
    from sampan.snapshots import tree_write

    if old == "/":
        old = ""
    renamed = (os.fsencode(old), os.fsencode(new)) if old != new else None
    rules = tree_write.Rules(
        "/tmp", renamed=renamed, follow=False, keep_owner=False, same_kind=True
    )
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CommandError(f"open {directory}: {str(error.strerror).lower()}") from None
    try:
        tree_write.put(_reader(chunks), fd, directory, rules, lambda: None)
    except SampanError as error:
        raise CommandError(error.message) from None
    finally:
        os.close(fd)


def _reader(chunks: Iterator[bytes]) -> Callable[[int], bytes]:
    held = b""

    def read(size: int) -> bytes:
        nonlocal held
        data = held or next(chunks, b"")
        held = data[size:]
        return data[:size]

    return read


def _check_output(path: str) -> None:
    directory = os.path.dirname(os.path.normpath(path))
    if not os.path.exists(directory):
        raise CommandError(f'invalid output path: directory "{directory}" does not exist')
    if os.path.exists(path) and not (os.path.isdir(path) or os.path.isfile(path)):
        raise CommandError(
            f'invalid output path: "{path}" must be a directory or a regular file: got a device'
        )


# -- Into a container --------------------------------------------------------------------------------


def _copy_in(call: Call, source: str, container: str, path: str) -> None:
    target, mode = _target(call, container, path)
    if mode & _DEVICE:
        raise CommandError(
            f'destination "{container}:{path}" must be a directory or a regular file: got a device'
        )
    if source == "-":
        if not target.is_directory:
            raise CommandError(f'destination "{container}:{path}" must be a directory')
        directory, pieces = target.path, archives.blocks(0)
    else:
        info = copying.local_source(copying.local_path(source), follow=call.on("follow-link"))
        directory, name = copying.destination(info, target)
        pieces = _packed(info.path, name)
    url = _url(
        container, path=directory, noOverwriteDirNonDir="true", copyUIDGID=_true(call.on("archive"))
    )
    with _Meter(call, "Copying to container - ", f"{container}:{target.path}") as meter:
        call.client.open("PUT", url, meter.counted(pieces), content_type=TAR).read()


def _target(call: Call, container: str, path: str) -> tuple[CopyInfo, int]:
    """The destination behind its link, and its mode, 0 where there is nothing yet."""
    try:
        found = _stat(call, container, path)
        if found["mode"] & _LINK:
            path = found["linkTarget"]
            found = _stat(call, container, path)
    except ApiError:
        return CopyInfo(path), 0  # the directory above it may be there
    mode = int(found["mode"])
    return CopyInfo(path, exists=True, is_directory=bool(mode & _DIRECTORY)), mode


def _packed(path: str, name: str) -> Iterator[bytes]:
    """The tar of a file or tree of this machine, called `name`."""
    from sampan.errors import SampanError
    from sampan.snapshots import tree_read
    from sampan.snapshots.places import Place

    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    above, _, own = path.rpartition("/")
    own = "" if own == "." else own
    try:
        directory = os.open(above or "/", flags)
        status = os.stat(own or ".", dir_fd=directory, follow_symlinks=False)
        with Place(directory, os.fsencode(own), status) as place:
            yield from tree_read.archive(place, os.fsencode(name))
    except OSError as error:
        where = os.fsdecode(error.filename) if error.filename else path
        raise CommandError(f"{path}: {where}: {str(error.strerror).lower()}") from None
    except SampanError as error:
        raise CommandError(error.message) from None


# -- The API -----------------------------------------------------------------------------------------


def _url(container: str, **values: str) -> str:
    return f"/containers/{quote(container)}/archive{query(**values)}"


def _true(on: bool) -> str:
    return "true" if on else ""


def _stat(call: Call, container: str, path: str) -> dict[str, Any]:
    response = call.client.open("HEAD", _url(container, path=path))
    response.read()
    return _stat_of(response.headers)


def _stat_of(headers: dict[str, str]) -> dict[str, Any]:
    from binascii import Error, a2b_base64

    try:
        document = jsontext.decode(a2b_base64(headers[HEADER]).decode("utf-8", "replace"))
        return {
            "name": str(document["name"]),
            "mode": int(document["mode"]),
            "linkTarget": str(document["linkTarget"]),
        }
    except (Error, KeyError, TypeError, ValueError):
        raise CommandError("the engine's answer does not say what the path is") from None


class _Meter:
    """Counts what is copied and tells it on a terminal."""

    def __init__(self, call: Call, heading: str, target: str) -> None:
        quiet = call.on("quiet") if "quiet" in call.changed else not os.isatty(1)
        self._loud = not quiet
        self._drawn = self._loud and os.isatty(2)
        self._heading = heading
        self._target = target
        self._bytes = 0
        self._next = 0.0

    def __enter__(self) -> _Meter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._drawn:
            _say("\r\x1b[2K")
        if self._loud and kind is None:
            _say(f"Successfully copied {self._size} to {self._target}\n")

    @property
    def _size(self) -> str:
        return units.human_size(self._bytes, 3)

    def counted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._bytes += len(piece)
            if self._drawn and time.monotonic() >= self._next:
                self._next = time.monotonic() + _REDRAWN_S
                _say(f"\r\x1b[2K{self._heading}{self._size}")
            yield piece


def _say(text: str) -> None:
    streams.write_all(2, text.encode("utf-8", "surrogateescape"))
