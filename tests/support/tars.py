"""Archives for tests, built header by header so that they can be as bad as needed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

from sampan.oci import tar, tar_writer
from sampan.oci.tar import Entry


def entry(name: str, kind: bytes = tar.FILE, **fields: object) -> Entry:
    """An entry with mode 0644 or 0755 unless said otherwise."""
    made = Entry(name.encode(), kind)
    made.mode = 0o755 if kind == tar.DIRECTORY else 0o644
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def file(name: str, data: bytes = b"x", **fields: object) -> bytes:
    made = entry(name, tar.FILE, size=len(data), **fields)
    return tar_writer.header(made) + data + tar_writer.padding(len(data))


def directory(name: str, **fields: object) -> bytes:
    return tar_writer.header(entry(name, tar.DIRECTORY, **fields))


def symlink(name: str, target: str, **fields: object) -> bytes:
    return tar_writer.header(entry(name, tar.SYMLINK, link=target.encode(), **fields))


def hard_link(name: str, target: str, **fields: object) -> bytes:
    return tar_writer.header(entry(name, tar.HARD_LINK, link=target.encode(), **fields))


def device(name: str, major: int, minor: int, kind: bytes = tar.CHARACTER) -> bytes:
    return tar_writer.header(entry(name, kind, major=major, minor=minor))


def archive(members: Iterable[bytes]) -> bytes:
    return b"".join(members) + tar_writer.END


def reader(data: bytes, step: int = 1 << 20) -> Callable[[int], bytes]:
    """A `read` that gives at most `step` bytes at once."""
    stream = io.BytesIO(data)
    return lambda size: stream.read(min(size, step))
