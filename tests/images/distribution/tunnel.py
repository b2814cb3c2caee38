"""A proxy that opens tunnels (CONNECT), wherever they are meant to lead to one server."""

from __future__ import annotations

import asyncio


class Tunnel:
    """`heads` are the requests that came; every tunnel leads to `port` of this machine."""

    def __init__(self, port: int, *, status: str = "200 Connection established") -> None:
        self.heads: list[str] = []
        self._port = port
        self._status = status
        self._server: asyncio.Server | None = None
        self.address = ""

    async def __aenter__(self) -> Tunnel:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *failure: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode())
        writer.write(f"HTTP/1.1 {self._status}\r\nContent-Length: 0\r\n\r\n".encode())
        if not self._status.startswith("200"):
            writer.close()
            return
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(_copy(reader, upstream), _copy(upstream_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
