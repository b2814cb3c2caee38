"""Files in containers: `/containers/{id}/archive`, and `…/copy` of old."""

from __future__ import annotations

import base64
import stat
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from sampan.api import answers
from sampan.api.call import Call
from sampan.api.router import Route
from sampan.api.server import Handler
from sampan.engine.files import PathStat
from sampan.errors import InvalidArgument, NotFound
from sampan.oci.go_time import format_time

if TYPE_CHECKING:
    from sampan.engine.engine import Engine

HEADER = "X-Docker-Container-Path-Stat"
TAR = "application/x-tar"
# The version from which `/copy` is no more.
LAST_COPY = (1, 23)
# The years 1 to 9999: a file can be older and newer, an RFC 3339 time cannot.
_EARLIEST_NS, _LATEST_NS = -62_135_596_800 * 10**9, 253_402_300_799 * 10**9
# Go's os.FileMode beside the nine permission bits.
_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


class CopyRequest(msgspec.Struct, kw_only=True):
    """The body of `/copy`."""

    resource: str = msgspec.field(default="", name="Resource")


class FileRoutes:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._containers = engine.containers

    def routes(self) -> list[Route[Handler]]:
        return [
            Route("HEAD", "/containers/{id}/archive", self.stat),
            Route("GET", "/containers/{id}/archive", self.read),
            Route("PUT", "/containers/{id}/archive", self.extract),
            Route("POST", "/containers/{id}/copy", self.copy),
        ]

    async def stat(self, call: Call) -> web.StreamResponse:
        called, path = call.parameters[0], _path(call)
        container = self._containers.get(called)
        found = await self._containers.files.stat(container, called, path)
        return web.Response(headers={HEADER: path_stat(found)})

    async def read(self, call: Call) -> web.StreamResponse:
        return await self._archive(call, _path(call))

    async def copy(self, call: Call) -> web.StreamResponse:
        """What clients of API 1.19 and older ask for."""
        if call.effective_version > LAST_COPY:
            raise NotFound("page not found")
        request = await call.json(CopyRequest)
        if not request.resource:
            raise InvalidArgument("Path cannot be empty")
        return await self._archive(call, request.resource)

    async def _archive(self, call: Call, path: str) -> web.StreamResponse:
        called = call.parameters[0]
        container = self._containers.get(called)
        async with self._containers.files.reading(container, called, path) as (found, chunks):
            started = await answers.begun(chunks)
            return await answers.stream(call, TAR, started, headers={HEADER: path_stat(found)})

    async def extract(self, call: Call) -> web.StreamResponse:
        called, path = call.parameters[0], _path(call)
        await self._containers.files.extract(
            self._containers.get(called),
            called,
            path,
            call.chunks(),
            same_kind=call.flag("noOverwriteDirNonDir"),
            as_user=call.flag("copyUIDGID"),
        )
        return answers.nothing(200)


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    return path


def path_stat(found: PathStat) -> str:
    """The value of the header: base64 of Docker's ContainerPathStat."""
    document = {
        "name": found.name.encode("utf-8", "replace").decode(),
        "size": found.size,
        "mode": go_mode(found.mode),
        "mtime": format_time(min(max(found.mtime_ns, _EARLIEST_NS), _LATEST_NS)),
        "linkTarget": found.link_target.encode("utf-8", "replace").decode(),
    }
    return base64.b64encode(msgspec.json.encode(document)).decode()


def go_mode(mode: int) -> int:
    """The kernel's mode as Go's os.FileMode."""
    kind = _KINDS.get(stat.S_IFMT(mode), 0)
    return kind | mode & 0o777 | sum(bit for mask, bit in _BITS if mode & mask)
