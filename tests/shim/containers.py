"""Containers for the shim's tests: a busybox rootfs, a plain OCI configuration, a zygote of one's own."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
from collections.abc import Sequence
from typing import Any

from sampan.linux.cgroups.manager import open_cgroup
from sampan.shim.client import ClientStream, ShimConnection, ShimRequest, Zygote

APPLETS = (
    "sh",
    "cat",
    "echo",
    "true",
    "sleep",
    "seq",
    "stty",
    "kill",
    "yes",
    "head",
    "dd",
    "od",
    "tr",
)
NAMESPACES = ("pid", "mount", "ipc", "uts", "network")


def make_rootfs(path: str) -> str:
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc"):
        os.makedirs(f"{path}/{name}")
    with open(f"{path}/etc/plain", "w"):
        pass
    os.link("/bin/busybox", f"{path}/bin/busybox") if same_device(path) else copy_busybox(path)
    for applet in APPLETS:
        os.symlink("busybox", f"{path}/bin/{applet}")
    return path


def same_device(path: str) -> bool:
    return os.stat(path).st_dev == os.stat("/bin/busybox").st_dev


def copy_busybox(path: str) -> None:
    with open("/bin/busybox", "rb") as source, open(f"{path}/bin/busybox", "wb") as target:
        target.write(source.read())
    os.chmod(f"{path}/bin/busybox", 0o755)


def oci_config(
    args: Sequence[str],
    *,
    terminal: bool = False,
    namespaces: Sequence[str] = NAMESPACES,
    cgroup: str = "",
    resources: dict[str, Any] | None = None,
) -> dict[str, Any]:
    capabilities = ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"]
    return {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
            },
        ],
        "linux": {
            "namespaces": [{"type": name} for name in namespaces],
            "cgroupsPath": cgroup,
            "resources": resources or {},
        },
    }


class Machine:
    """A zygote with directories of its own, that makes containers and forgets none."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.token = secrets.token_hex(4)
        self.run = f"{directory}/run"
        os.makedirs(self.run)
        self.rootfs = make_rootfs(f"{directory}/rootfs")
        self.restarts: list[int] = []
        self.zygote = Zygote(run_directory=self.run, on_restart=self.restarts.append)
        self.connections: list[ShimConnection] = []
        self._clients: list[FakeClient] = []
        self._count = 0

    async def __aenter__(self) -> Machine:
        await self.zygote.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        for connection in self.connections:
            if not connection.exited.done():
                await connection.signal(9)
                await connection.exited
            await connection.gone
        await self.zygote.stop()
        open_cgroup(f"/sampan-test-{self.token}").delete()

    def client(self, **options: Any) -> FakeClient:
        client = FakeClient(**options)
        self._clients.append(client)
        return client

    def request(self, *args: str, **options: Any) -> ShimRequest:
        self._count += 1
        name = f"{self.token}-{self._count}"
        directory = f"{self.directory}/containers/{name}"
        os.makedirs(directory)
        in_config = ("namespaces", "resources")
        config = oci_config(
            args,
            terminal=options.get("terminal", False),
            cgroup=f"/sampan-test-{self.token}/{name}",
            **{key: options.pop(key) for key in in_config if key in options},
        )
        config["root"]["path"] = self.rootfs
        return ShimRequest(
            id=name,
            directory=directory,
            socket=f"{self.run}/{name}.sock",
            config=config,
            log_path=f"{directory}/{name}-json.log",
            **options,
        )

    async def spawn(
        self, *args: str, streams: Sequence[ClientStream] = (), **options: Any
    ) -> ShimConnection:
        return await self.start(self.request(*args, **options), streams)

    async def start(
        self, request: ShimRequest, streams: Sequence[ClientStream] = ()
    ) -> ShimConnection:
        connection = await self.zygote.spawn(request, streams)
        self.connections.append(connection)
        return connection


async def until_ended(pidfd: int) -> None:
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(pidfd, lambda: ended.done() or ended.set_result(None))
    try:
        await asyncio.wait_for(ended, 30)
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)


class FakeClient:
    """The far end of an attached socket."""

    def __init__(self, **options: Any) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.sock = ours
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.stream = ClientStream(theirs, on_end=self._end.set_result, **options)
        self.data = bytearray()

    async def ended(self) -> str:
        """What the shim says of the stream's end."""
        return await asyncio.wait_for(self._end, 30)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def read_until(self, text: bytes) -> bytearray:
        async with asyncio.timeout(30):
            while text not in self.data:
                chunk = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 20)
                assert chunk, f"the stream ended before {text!r}: {self.data!r}"
                self.data += chunk
        return self.data

    async def read_all(self) -> bytearray:
        async with asyncio.timeout(30):
            while chunk := await asyncio.get_running_loop().sock_recv(self.sock, 1 << 20):
                self.data += chunk
        return self.data

    def streams(self) -> tuple[bytes, bytes]:
        """(stdout, stderr) of multiplexed data."""
        texts = {1: bytearray(), 2: bytearray()}
        position = 0
        while position < len(self.data):
            number, length = struct.unpack_from(">BxxxI", self.data, position)
            position += 8 + length
            texts[number] += self.data[position - length : position]
        return bytes(texts[1]), bytes(texts[2])

    def close(self) -> None:
        self.sock.close()
        self.stream.close()
