"""The API over an engine in memory: containers that never run, sessions that echo."""

from __future__ import annotations

import asyncio
import io
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import msgspec
from aiohttp import ClientSession

from sampan.engine.container import Container, Endpoint, Record, State, Status
from sampan.engine.events import EventBus
from sampan.engine.execs import Exec
from sampan.engine.model import ContainerConfig, ExecConfig, HostConfig, NetworkingConfig
from sampan.errors import Conflict, InvalidArgument, NotFound, RuntimeFailure
from sampan.network import inspect

IMAGE_ID = "sha256:" + "1" * 64


class Nothing:
    """Whatever is asked of it, there is no such thing."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def refuse(*_: Any, **__: Any) -> Any:
            raise NotFound(f"No such thing: {name}")

        return refuse


class FakeImage:
    def __init__(self, name: str) -> None:
        self.id = IMAGE_ID
        self.layers = ["sha256:" + "2" * 64]
        self.name = name

    def inspect(self) -> dict[str, Any]:
        return {
            "Id": self.id,
            "RepoTags": [f"{self.name}:latest"],
            "RepoDigests": [],
            "Created": "2026-01-02T03:04:05Z",
            "Architecture": "amd64",
            "Os": "linux",
            "Size": 1234,
            "Config": {"Cmd": ["sh"]},
            "RootFS": {"Type": "layers", "Layers": self.layers},
        }

    def summary(self) -> dict[str, Any]:
        return {
            "Id": self.id,
            "ParentId": "",
            "RepoTags": [f"{self.name}:latest"],
            "RepoDigests": [],
            "Created": 1767323045,
            "Size": 1234,
            "SharedSize": -1,
            "Labels": None,
            "Containers": -1,
        }


class FakeImages(Nothing):
    """Knows `busybox`; loads what it is sent as an image named by the body."""

    def __init__(self) -> None:
        self.received = b""
        self.pushed: tuple[str, dict[str, Any]] = ("", {})
        self.pulled: tuple[str, dict[str, Any]] = ("", {})
        self.upkeep = self.registries = Nothing()

    def resolve(self, reference: str) -> FakeImage:
        if reference in ("busybox", "busybox:latest", "registry.example/a/b:1", IMAGE_ID):
            return FakeImage("busybox")
        raise NotFound(f"No such image: {reference}:latest")

    def list(self, *, all: bool, filters: dict[str, list[str]]) -> list[FakeImage]:
        return [FakeImage("busybox")]

    def inspect(
        self, reference: str, *, manifests: bool = False, platform: str | None = None
    ) -> dict[str, Any]:
        return self.resolve(reference).inspect()

    def summaries(
        self, *, all: bool, filters: dict[str, list[str]], wanted: object = None
    ) -> list[dict[str, Any]]:
        return [image.summary() for image in self.list(all=all, filters=filters)]

    async def load(
        self,
        chunks: AsyncIterator[bytes],
        *,
        quiet: bool,
        progress: Callable[[dict[str, Any]], None],
        platform: str | None = None,
    ) -> list[str]:
        async for chunk in chunks:
            self.received += chunk
        if not self.received:
            raise InvalidArgument("no image in an empty archive")
        progress({"stream": "Loaded image: busybox:latest\n"})
        if self.received.startswith(b"broken"):
            raise InvalidArgument("the archive is broken")
        return ["busybox:latest"]

    async def push(
        self, reference: str, *, progress: Callable[[dict[str, Any]], None], **options: Any
    ) -> None:
        self.pushed = (reference, options)
        progress({"status": f"The push refers to repository [{reference}]"})

    async def pull(
        self, reference: str, *, progress: Callable[[dict[str, Any]], None], **options: Any
    ) -> list[FakeImage]:
        self.pulled = (reference, options)
        if reference == "nosuch":
            raise NotFound("manifest for nosuch:latest not found: manifest unknown")
        progress({"status": "Pulling from library/busybox", "id": "latest"})
        if reference == "broken":
            raise InvalidArgument("filesystem layer verification failed")
        return [FakeImage("busybox")]

    async def import_(self, chunks: AsyncIterator[bytes], **options: Any) -> FakeImage:
        async for chunk in chunks:
            self.received += chunk
        return FakeImage(options["reference"] or "none")

    async def save(self, references: list[str]) -> AsyncIterator[bytes]:
        for reference in references:
            self.resolve(reference)
        for _ in range(3):
            yield b"tar" * 1000

    def tag(self, source: str, target: str) -> None:
        self.resolve(source)

    def remove(self, reference: str, *, force: bool, prune: bool) -> list[dict[str, str]]:
        self.resolve(reference)
        return [{"Untagged": f"{reference}:latest"}]


class FakeContainers(Nothing):
    """Containers that change status without a process; attach echoes until the client's EOF."""

    def __init__(self, events: EventBus) -> None:
        self._events = events
        self.all: dict[str, Container] = {}
        self.sessions: set[asyncio.Task[None]] = set()
        self.resized: list[tuple[int, int]] = []
        self.log: list[bytes] = [b"\x01\0\0\0\0\0\0\x06hello\n"]
        self.log_goes_on = False
        self.log_failure: Exception | None = None
        self.log_closed = asyncio.Event()
        self.start_failure: Exception | None = None
        self.attach_failure: Exception | None = None
        self.last_stream: Any = None

    trees: Any = Nothing()

    def layer_directories(self, container: Container) -> dict[str, str]:
        return {"LowerDir": "/l", "MergedDir": "/m", "UpperDir": "/u", "WorkDir": "/w"}

    async def create(
        self,
        *,
        name: str | None,
        config: ContainerConfig,
        host_config: HostConfig,
        networking: NetworkingConfig | None,
        platform: str | None,
    ) -> tuple[str, list[str]]:
        if not config.image.startswith("busybox"):
            raise NotFound(f"No such image: {config.image}:latest")
        identity = secrets.token_hex(32)
        if name in {container.name for container in self.all.values()}:
            raise Conflict(f'Conflict. The container name "/{name}" is already in use')
        host_config.log_config.type = "json-file"
        host_config.cgroupns_mode = "private"
        host_config.oom_kill_disable = False
        record = Record(
            id=identity,
            name=name or "brave_boat",
            created_ns=time.time_ns(),
            config=config,
            host_config=host_config,
            networking=networking or NetworkingConfig(),
            image_id=IMAGE_ID,
            image_reference=config.image,
            path="sh",
            args=["-c", "echo a b"],
            endpoints={"bridge": Endpoint(network="bridge", network_id="3" * 64)},
        )
        self.all[identity] = Container(record, f"/nowhere/{identity}")
        self._events.emit(
            "container", "create", identity, {"image": config.image, "name": record.name}
        )
        return identity, []

    def get(self, reference: str) -> Container:
        for container in self.all.values():
            if container.name == reference.lstrip("/"):
                return container
        for container in self.all.values():
            if container.id.startswith(reference):
                return container
        raise NotFound(f"No such container: {reference}")

    def shown_image(self, container: Container) -> str:
        return container.image[1]

    def list(self) -> list[Container]:
        return list(self.all.values())

    def using_image(self, image_id: str) -> Any:
        return [c for c in self.all.values() if c.image[0] == image_id]

    async def turn(self, reference: str) -> None:
        self.get(reference)

    async def start(self, reference: str) -> None:
        container = self.get(reference)
        if self.start_failure:
            raise self.start_failure
        container.record.state = State(status=Status.RUNNING, pid=1, started_ns=time.time_ns())

    async def stop(self, reference: str, *, signal: str | None, timeout_s: int | None) -> None:
        self.end(reference, 0)

    async def kill(self, reference: str, signal: str) -> None:
        self.end(reference, 137)

    async def restart(self, reference: str, *, signal: str | None, timeout_s: int | None) -> None:
        self.end(reference, 0)
        await self.start(reference)

    async def pause(self, reference: str) -> None:
        self.get(reference).record.state.status = Status.PAUSED

    async def unpause(self, reference: str) -> None:
        self.get(reference).record.state.status = Status.RUNNING

    async def rename(self, reference: str, name: str) -> None:
        self.get(reference).record.name = name

    def end(self, reference: str, code: int) -> None:
        container = self.get(reference)
        container.record.state = State(
            status=Status.EXITED, exit_code=code, started_ns=1, finished_ns=time.time_ns()
        )
        container.resolve("not-running", "next-exit")

    def wait(self, reference: str, condition: str) -> Any:
        if condition == "foo":
            raise InvalidArgument('invalid condition: "foo"')
        return self.get(reference).wait(condition or "not-running")

    async def remove(self, reference: str, *, force: bool, volumes: bool) -> None:
        container = self.get(reference)
        if container.state.running and not force:
            raise Conflict(f"You cannot remove a running container {container.id}.")
        del self.all[container.id]

    async def prune(self, filters: dict[str, list[str]]) -> tuple[list[str], int]:
        return [], 0

    async def size(self, reference: str) -> tuple[int, int]:
        return 10, 1244

    async def top(self, reference: str, arguments: str) -> tuple[list[str], list[list[str]]]:
        return ["PID", "CMD"], [["1", arguments or "-ef"]]

    async def resize(self, reference: str, rows: int, columns: int) -> None:
        self.resized.append((rows, columns))

    async def logs_of(self, options: Any) -> AsyncIterator[bytes]:
        try:
            for chunk in self.log:
                yield chunk
            if self.log_failure:
                raise self.log_failure
            if self.log_goes_on:
                await asyncio.Event().wait()
        finally:
            self.log_closed.set()

    def logs(self, reference: str, options: Any) -> AsyncIterator[bytes]:
        return self.logs_of(options)

    async def attach(self, reference: str, options: Any, stream: Any) -> None:
        if self.attach_failure:
            stream.close()
            raise self.attach_failure
        self.last_stream = stream
        self.echo(stream)

    def echo(self, stream: Any) -> None:
        task = asyncio.create_task(echo(stream.sock, stream.head))
        self.sessions.add(task)


async def echo(sock: socket.socket, head: bytes) -> None:
    """The other side of a session: everything back until EOF, then a word, then the end."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    data = head
    try:
        while data:
            await loop.sock_sendall(sock, data)
            data = await loop.sock_recv(sock, 65536)
        if not head:
            while data := await loop.sock_recv(sock, 65536):
                await loop.sock_sendall(sock, data)
        await loop.sock_sendall(sock, b"[end]")
    except OSError:
        pass
    finally:
        sock.close()


class FakeExecs(Nothing):
    """Execs whose process is `echo`; the command `nosuch` cannot be started."""

    def __init__(self, containers: FakeContainers) -> None:
        self._containers = containers
        self._all: dict[str, Exec] = {}
        self.console_size: tuple[int, int] | None = None

    async def create(self, reference: str, config: ExecConfig) -> str:
        container = self._containers.get(reference)
        if not config.cmd:
            raise InvalidArgument("No exec command specified")
        entry = Exec(secrets.token_hex(32), container, config)
        self._all[entry.id] = entry
        return entry.id

    def get(self, exec_id: str) -> Exec:
        if exec_id not in self._all:
            raise NotFound(f"No such exec instance: {exec_id}")
        return self._all[exec_id]

    async def start(
        self,
        exec_id: str,
        *,
        console_size: Any = None,
        stream: Any = None,
    ) -> None:
        entry = self.get(exec_id)
        self.console_size = console_size
        if entry.arguments[0] == "nosuch":
            stream.close()
            raise RuntimeFailure("exec", 'exec: "nosuch": executable file not found in $PATH')
        entry.running = True
        if stream is not None:
            self._containers.echo(stream)

    async def resize(self, exec_id: str, rows: int, columns: int) -> None:
        self.get(exec_id)


class FakeNetworking:
    def settings(self, container: Container) -> dict[str, Any]:
        return inspect.network_settings(
            {name: inspect.endpoint_settings(None) for name in container.record.endpoints}
        )


class FakeLinks:
    """None."""

    def paths(self) -> dict[str, list[str]]:
        return {}

    def shown(self, container: Container) -> None:
        return None


class FakeEngine:
    def __init__(self) -> None:
        self.events = EventBus()
        self.containers = FakeContainers(self.events)
        self.execs = FakeExecs(self.containers)
        self.images = FakeImages()
        self.networking = FakeNetworking()
        self.stats = self.volumes = self.usage = self.space = self.history = Nothing()
        self.leases = self.lease_members = Nothing()
        self.networks = self.connections = self.policies = Nothing()
        self.links = FakeLinks()

    def info(self) -> dict[str, Any]:
        return {"ID": "x", "KernelMemory": False, "ContainerdCommit": {"ID": "", "Expected": ""}}

    def version(self) -> dict[str, Any]:
        return {"Version": "0.1.0", "ApiVersion": "1.55", "MinAPIVersion": "1.12"}


class Api(SimpleNamespace):
    """A running server: `path` of its socket, its `engine`, and requests to it."""

    path: str
    engine: FakeEngine
    session: ClientSession

    async def ask(
        self, method: str, path: str, body: Any = None, **options: Any
    ) -> tuple[int, Any]:
        """Status and decoded body; a body that is no JSON comes as text."""
        if body is not None:
            options["data"] = (
                body if isinstance(body, bytes | io.BytesIO) else msgspec.json.encode(body)
            )
            options.setdefault("headers", {"Content-Type": "application/json"})
        async with self.session.request(method, f"http://d{path}", **options) as response:
            data = await response.read()
        try:
            return response.status, msgspec.json.decode(data) if data else None
        except msgspec.DecodeError:
            return response.status, data.decode()

    async def container(self, name: str = "box", **fields: Any) -> str:
        """Create a container; its ID."""
        status, answer = await self.ask(
            "POST", f"/containers/create?name={name}", {"Image": "busybox", **fields}
        )
        assert status == 201, answer
        return str(answer["Id"])

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    async def hijack(
        self, path: str, *, early: bytes = b"", body: bytes = b"", upgrade: bool = True
    ) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a hijacking request, `early` right behind it; the answer's head and the streams."""
        reader, writer = await self.raw()
        lines = [f"POST {path} HTTP/1.1", "Host: d", f"Content-Length: {len(body)}"]
        if body:
            lines.append("Content-Type: application/json")
        if upgrade:
            lines += ["Connection: Upgrade", "Upgrade: tcp"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body + early)
        return await reader.readuntil(b"\r\n\r\n"), reader, writer
