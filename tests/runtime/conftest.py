"""A bundle on disk, its configuration to be changed, and what a container in it printed."""

from __future__ import annotations

import copy
import io
import json
import os
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from sampan.linux import pidfd
from sampan.linux.mounts import Mount
from sampan.runtime import default_spec, launch, process
from sampan.runtime.trace import Trace
from support.rootfs import rootfs_tar

CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
]  # fmt: skip


class Outcome:
    """How a container's program ended and what it printed."""

    def __init__(self, code: int, out: str, err: str, warnings: Sequence[str] = ()) -> None:
        self.code = code
        self.out = out
        self.err = err
        self.warnings = list(warnings)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def __repr__(self) -> str:
        return f"<exit {self.code}, stdout {self.out!r}, stderr {self.err!r}>"


class Bundle:
    """A bundle with busybox; every container gets its own throw-away layer over it."""

    def __init__(self, lower: str, path: str, name: str) -> None:
        self.lower = lower
        self.path = path
        self.name = name
        self.config = default_spec.default_spec()
        self.process["terminal"] = False
        self.process["capabilities"] = {
            kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")
        }
        self.process["noNewPrivileges"] = False
        self.config["root"]["readonly"] = False
        self.linux["cgroupsPath"] = f"/{name}"
        for part in ("upper", "work", "rootfs"):
            os.makedirs(f"{path}/{part}")
        self.running: list[launch.Container] = []

    @property
    def process(self) -> dict[str, Any]:
        process: dict[str, Any] = self.config["process"]
        return process

    @property
    def linux(self) -> dict[str, Any]:
        linux: dict[str, Any] = self.config["linux"]
        return linux

    def mount(self, target: str, kind: str, source: str, *options: str, **more: Any) -> None:
        """Add a mount to the configuration."""
        self.config["mounts"].append(
            {"destination": target, "type": kind, "source": source, "options": options, **more}
        )

    def namespace(self, kind: str, path: str | None = None) -> None:
        """Set the namespace of a kind: new, or the one at a path."""
        rows = [row for row in self.linux["namespaces"] if row["type"] != kind]
        rows.append({"type": kind, "path": path} if path else {"type": kind})
        self.linux["namespaces"] = rows

    def share(self, kind: str) -> None:
        """Leave the container in the machine's namespace of a kind."""
        rows = [row for row in self.linux["namespaces"] if row["type"] != kind]
        self.linux["namespaces"] = rows

    def map_ids(self, host_id: int = 100000, size: int = 65536) -> None:
        """A new user namespace; the layers are handed to its root."""
        self.namespace("user")
        row = {"containerID": 0, "hostID": host_id, "size": size}
        self.linux["uidMappings"] = [row]
        self.linux["gidMappings"] = [row]
        for part in ("upper", "work"):
            os.chown(f"{self.path}/{part}", host_id, host_id)

    def overlay(self) -> list[Mount]:
        return [
            Mount(
                "overlay",
                "overlay",
                f"{self.path}/rootfs",
                (
                    f"lowerdir={self.lower}",
                    f"upperdir={self.path}/upper",
                    f"workdir={self.path}/work",
                ),
            )
        ]

    def launch(self, *args: str, stdio: tuple[int, int, int] | None, **more: Any) -> launch.Launch:
        if args:
            self.process["args"] = list(args)
        more.setdefault("rootfs_mounts", self.overlay())
        return launch.Launch(
            container_id=self.name,
            bundle=self.path,
            config=copy.deepcopy(self.config),
            stdio=stdio,
            **more,
        )

    def create(self, *args: str, **more: Any) -> launch.Container:
        """Create a container that the fixture kills and forgets; by default it prints nowhere."""
        if "stdio" not in more:
            null = os.open("/dev/null", os.O_RDWR)
            more["stdio"] = (null, null, null)
        container = launch.create(self.launch(*args, **more))
        self.running.append(container)
        return container

    def start(self, *args: str, **more: Any) -> launch.Container:
        """A running container, over when the test is."""
        container = self.create(*args, **more)
        container.start()
        return container

    def sh(self, script: str, **more: Any) -> Outcome:
        return self.run("sh", "-c", script, **more)

    def run(self, *args: str, **more: Any) -> Outcome:
        """Run to the end."""
        with Pipes() as pipes:
            container = launch.create(self.launch(*args, stdio=pipes.inside, **more))
            self.running.append(container)
            container.start()
            out, err = pipes.collect()
        code = self.end(container)
        return Outcome(code, out, err, container.warnings)

    def execute(self, container: launch.Container, *args: str, **changes: Any) -> Outcome:
        """Run a further process to the end."""
        options = {name: changes.pop(name) for name in ("seccomp_program",) if name in changes}
        raw = {**self.process, "args": list(args), **changes}
        with Pipes() as pipes:
            done = process.execute(
                container.pid,
                raw,
                config=self.config,
                stdio=pipes.inside,
                container_id=self.name,
                cgroup=container.cgroup,
                **options,
            )
            out, err = pipes.collect()
        os.close(done.pidfd)
        return Outcome(pidfd.exit_code(os.waitpid(done.pid, 0)[1]), out, err, done.warnings)

    def end(self, container: launch.Container, *, kill: bool = False) -> int:
        """Wait for (or kill) a container and give back what it held."""
        self.running.remove(container)
        if kill:
            pidfd.send_signal(container.pidfd, 9)
        code = pidfd.exit_code(os.waitpid(container.pid, 0)[1])
        if container.cgroup is not None:
            container.cgroup.kill()
            container.cgroup.delete()
        os.close(container.pidfd)
        if container.console_fd is not None:
            os.close(container.console_fd)
        return code


class Pipes:
    """Three pipes: /dev/null for input, and what is written to the other two."""

    def __enter__(self) -> Pipes:
        self.out_reader, out = os.pipe2(os.O_CLOEXEC)
        self.err_reader, err = os.pipe2(os.O_CLOEXEC)
        self.inside = (os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), out, err)
        self.open = {self.out_reader, self.err_reader, *self.inside}
        return self

    def collect(self) -> tuple[str, str]:
        for fd in self.inside:
            self._close(fd)
        data = {self.out_reader: b"", self.err_reader: b""}
        waiting = set(data)
        while waiting:
            for fd in select.select(list(waiting), [], [], 60)[0] or pytest.fail(
                "no output, no end"
            ):
                chunk = os.read(fd, 65536)
                data[fd] += chunk
                if not chunk:
                    waiting.discard(fd)
        return data[self.out_reader].decode(), data[self.err_reader].decode()

    def _close(self, fd: int) -> None:
        os.close(fd)
        self.open.discard(fd)

    def __exit__(self, *_: object) -> None:
        for fd in list(self.open):
            self._close(fd)


@pytest.fixture(scope="session")
def lower(session_directory: str) -> str:
    """The tree of a small image, unpacked once."""
    path = f"{session_directory}/runtime-lower"
    with tarfile.open(fileobj=io.BytesIO(rootfs_tar())) as tar:
        tar.extractall(path)
    return path


@pytest.fixture
def bundle(
    request: pytest.FixtureRequest, lower: str, session_directory: str, session_token: str
) -> Iterator[Bundle]:
    """A fresh bundle; its containers are killed and their cgroups removed afterwards."""
    word = "".join(c if c.isalnum() else "-" for c in request.node.name)[:60]
    name = f"{session_token}-{word}"
    made = Bundle(lower, f"{session_directory}/{name}", name)
    yield made
    for container in list(made.running):
        made.end(container, kill=True)
    subprocess.run(["rm", "-rf", made.path], check=True)


Command = Callable[..., Outcome]


@pytest.fixture
def oci(bundle: Bundle, session_directory: str) -> Iterator[Command]:
    """Run the command `sampan-oci` with a state directory of the test's own."""
    root = f"{bundle.path}/state"
    shutil.rmtree(f"{bundle.path}/rootfs")
    subprocess.run(["cp", "-a", bundle.lower, f"{bundle.path}/rootfs"], check=True)

    def command(*words: str, stdin: str | None = None, save: bool = True) -> Outcome:
        if save:
            with open(f"{bundle.path}/config.json", "w") as file:
                json.dump(bundle.config, file)
        argv = [sys.executable, "-m", "sampan.runtime.command", "--root", root, *words]
        # files, not pipes: a container that stays would hold those open
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            done = subprocess.run(
                argv,
                input=(stdin or "").encode(),
                stdout=out,
                stderr=err,
                timeout=60,
                check=False,
                cwd=bundle.path,
            )
            out.seek(0)
            err.seek(0)
            return Outcome(done.returncode, out.read().decode(), err.read().decode())

    yield command
    for name in os.listdir(root) if os.path.isdir(root) else ():
        command("delete", "--force", name, save=False)


__all__ = ["Bundle", "Command", "Outcome", "Trace"]
