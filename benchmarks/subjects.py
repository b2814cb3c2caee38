"""The engines that are compared, each on its own socket and data root, with the same image.

dockerd runs with its containerd in a network and a mount namespace of its own, so that its bridge and
firewall rules neither meet ours nor stay; that costs it nothing in a start. Podman has no daemon: its
command is run, in such namespaces too. Both are Debian's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from support.command import DockerCLI, docker_clis, run
from support.engines import IMAGE, DockerEngine, Engine, SampanEngine, remove_cgroups
from support.leaks import ENGINE_MARK, marked_processes
from support.rootfs import image_tar, rootfs_tar

LINES = 200_000
LINES_IMAGE = "lines:test"


class Subject:
    """One engine under measurement."""

    def __init__(self, name: str) -> None:
        self.name = name

    def docker(self) -> DockerCLI:
        """The newest docker command line, on this engine."""
        raise NotImplementedError

    @property
    def engine(self) -> Engine | None:
        """The engine behind an API socket; None for Podman."""
        return None

    def stop(self) -> None:
        raise NotImplementedError


class ApiSubject(Subject):
    """Sampan or dockerd."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.name)
        self._engine = engine
        engine.start(*(("--trace-start",) if isinstance(engine, SampanEngine) else ()))
        engine.import_busybox()
        answer = engine.request("POST", "/images/load", raw=lines_image())
        assert answer.status == 200, answer
        self._docker = engine.cli(next(iter(docker_clis().values())))

    @property
    def engine(self) -> Engine:
        return self._engine

    def docker(self) -> DockerCLI:
        return self._docker

    def stop(self) -> None:
        self._engine.stop()


class PodmanSubject(Subject):
    """Podman with runc: crun does not run on a hybrid cgroup layout; limits that need
    CAP_SYS_RESOURCE are lowered, or nothing starts on a machine without it."""

    LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")

    def __init__(self, directory: str, token: str) -> None:
        super().__init__("podman")
        self.directory, self.token = directory, f"podman-{token}"
        os.makedirs(directory)
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", "ip link set lo up; exec sleep infinity"],
            env={**os.environ, ENGINE_MARK: self.token},
        )
        self._prefix = (
            "nsenter", f"--net=/proc/{self._holder.pid}/ns/net", f"--mount=/proc/{self._holder.pid}/ns/mnt", "podman",
            "--root", f"{directory}/root", "--runroot", f"{directory}/run", "--cgroup-manager", "cgroupfs",
            "--events-backend", "file", "--runtime", "runc",
        )  # fmt: skip
        path = os.path.join(directory, "rootfs.tar")
        with open(path, "wb") as file:
            file.write(rootfs_tar())
        try:
            self.command("import", path, IMAGE)
            self.command("run", "--rm", "--network", "none", *self.LIMITS, IMAGE, "true")
        except AssertionError:
            self.stop()
            raise

    def command(self, *arguments: str) -> None:
        run((*self._prefix, *arguments), env={**os.environ, ENGINE_MARK: self.token})

    def stop(self) -> None:
        self._holder.kill()
        self._holder.wait()
        for line in list(marked_processes(self.token, ENGINE_MARK)):
            os.kill(int(line.split()[1]), 9)
        remove_cgroups("libpod_parent")
        shutil.rmtree(self.directory, ignore_errors=True)


def lines_image() -> bytes:
    """An image with 200,000 lines of 100 bytes in /lines."""
    import io
    import tarfile

    body = b"".join(b"%099d\n" % number for number in range(LINES))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("lines")
        member.size = len(body)
        tar.addfile(member, io.BytesIO(body))
    return image_tar(
        LINES_IMAGE,
        [rootfs_tar(), buffer.getvalue()],
        {"Cmd": ["cat", "/lines"], "Env": ["PATH=/bin"]},
    )


def start_subjects(names: Sequence[str], directory: str, token: str) -> Iterator[Subject]:
    """Start the named engines; one that does not run here is said and left out."""
    for name in names:
        try:
            if name == "sampan":
                yield ApiSubject(SampanEngine(f"{directory}/sampan", token))
            elif name == "dockerd":
                yield ApiSubject(DockerEngine(f"{directory}/dockerd", token))
            elif name == "podman":
                yield PodmanSubject(f"{directory}/podman", token)
        except (AssertionError, OSError) as error:
            if name == "sampan":
                raise
            print(f"{name} does not run here: {error}")
