"""The API, served on a socket of its own, over an engine in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, UnixConnector

from api.fakes import Api, FakeEngine
from sampan.api.application import docker_api


@pytest.fixture
async def api(tmp_path: Any) -> AsyncIterator[Api]:
    engine = FakeEngine()
    server = docker_api(engine)  # type: ignore[arg-type]
    path = str(tmp_path / "api.sock")
    loop = asyncio.get_running_loop()
    listening = await loop.create_unix_server(server.protocol_factory(), path)
    async with ClientSession(
        connector=UnixConnector(path), timeout=ClientTimeout(total=60)
    ) as session:
        yield Api(path=path, engine=engine, session=session)
    listening.close()
    await server.close()
    for task in engine.containers.sessions:
        task.cancel()
    await asyncio.gather(*engine.containers.sessions, return_exceptions=True)
