"""A registry's uploads as the distribution-spec has them: after a cut it tells how far it got.

docker-registry 2.8 cannot: an upload whose PATCH broke off is refused from then on.
"""

from __future__ import annotations

import asyncio
import hashlib

from aiohttp import web


class ResumableRegistry:
    """Takes one upload at a time; `cuts` are after how many bytes each coming PATCH breaks off."""

    def __init__(self) -> None:
        self.cuts: list[int] = []
        self.largest = 1 << 40  # a longer PATCH is refused before it is read
        self.blobs: dict[str, bytes] = {}
        self.data = bytearray()
        self.requests: list[tuple[str, str]] = []  # method, Content-Range or Range that was told
        self.received = 0
        self._runner: web.ServerRunner | None = None
        self.address = ""

    async def start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._serve))
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"{host}:{port}"

    async def close(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.Response()
        location = {"Location": "/v2/a/blobs/uploads/1"}
        if request.method == "POST":
            self.data.clear()
            self.requests.append(("POST", ""))
            return web.Response(status=202, headers=location)
        if request.method == "GET":
            told = f"0-{max(0, len(self.data) - 1)}"
            self.requests.append(("GET", told))
            return web.Response(status=204, headers={**location, "Range": told})
        if request.method == "PATCH":
            return await self._patch(request, location)
        return await self._put(request)

    async def _patch(
        self, request: web.BaseRequest, location: dict[str, str]
    ) -> web.StreamResponse:
        given = request.headers.get("Content-Range", "")
        self.requests.append(("PATCH", given))
        if (request.content_length or 0) > self.largest:
            return web.Response(status=413)
        start = int(given.partition("-")[0] or 0)
        if start != len(self.data):
            return web.Response(status=416)
        left = self.cuts.pop(0) if self.cuts else None
        while chunk := await request.content.readany():
            taken = chunk if left is None else chunk[:left]
            self.data += taken
            self.received += len(taken)
            if left is not None and (left := left - len(taken)) <= 0:
                assert request.transport is not None
                request.transport.abort()
                raise asyncio.CancelledError
        return web.Response(status=202, headers=location)

    async def _put(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(("PUT", ""))
        self.data += await request.read()
        digest = request.query["digest"]
        if "sha256:" + hashlib.sha256(self.data).hexdigest() != digest:
            body = b'{"errors":[{"code":"DIGEST_INVALID"}]}'
            return web.Response(status=400, body=body)
        self.blobs[digest] = bytes(self.data)
        return web.Response(status=201)
