"""What images are put into and taken out of: each an empty store of its own, used through its
command line, as people do.

dockerd has neither bridge nor firewall here: so it needs no network namespace, and reaches the same
registry as the others. skopeo keeps blobs without unpacking them (an OCI layout): less work.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.memory import engine_processes
from support.command import docker_clis
from support.engines import IMAGE, DockerEngine, Engine, SampanEngine

_TICKS = os.sysconf("SC_CLK_TCK")


class NotMeasured(Exception):
    """The store cannot do that."""


class Store:
    """One store, and the commands that move images."""

    name = ""
    unpacks = True

    def load(self, path: str) -> None:
        raise NotImplementedError

    def save(self, reference: str) -> None:
        """To nowhere."""
        raise NotImplementedError

    def pull(self, *references: str) -> None:
        """Several: all at once."""
        with ThreadPoolExecutor(len(references)) as pool:
            list(pool.map(self._pull, references))

    def pull_quietly(self, reference: str) -> None:
        """One image, without a client's own time where there is an API."""
        self._pull(reference)

    def tag(self, source: str, target: str) -> None:
        raise NotImplementedError

    def push(self, reference: str) -> None:
        raise NotImplementedError

    def cpu_s(self) -> float:
        """Processor time used up to now, user and system, without a client's."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def begin_peak(self) -> None:
        """Forget the highest memory seen."""

    def peak_mib(self) -> float | None:
        """The most memory (resident) above that at `begin_peak`, None without a daemon."""
        return None

    def begin_starts(self) -> None:
        """Get ready for `start`; what has no daemon raises NotMeasured."""
        raise NotMeasured

    def start(self) -> float:
        """Seconds from create to started of a container, which is removed."""
        raise NotMeasured

    def close(self) -> None:
        raise NotImplementedError

    def _pull(self, reference: str) -> None:
        raise NotImplementedError


class ApiStore(Store):
    """Sampan or dockerd behind the docker command."""

    def __init__(self, engine: Engine) -> None:
        self.name = engine.name
        self._engine = engine
        self._before: dict[int, int] = {}
        engine.start()
        cli = engine.cli(next(iter(docker_clis().values())))
        self._path, self._environment = cli.path, cli.env

    def load(self, path: str) -> None:
        self._run("load", "-i", path)

    def save(self, reference: str) -> None:
        self._run("save", reference)

    def _pull(self, reference: str) -> None:
        self._run("pull", reference)

    def pull_quietly(self, reference: str) -> None:
        name, _, tag = reference.rpartition(":")
        answer = self._engine.post("/images/create", fromImage=name, tag=tag)
        assert b"Status: " in answer.body, answer

    def tag(self, source: str, target: str) -> None:
        self._run("tag", source, target)

    def push(self, reference: str) -> None:
        self._run("push", reference)

    def _run(self, *arguments: str) -> None:
        run([self._path, *arguments], self._environment)

    def begin_starts(self) -> None:
        self._engine.import_busybox()

    def start(self) -> float:
        body = {"Image": IMAGE, "Cmd": ["sleep", "60"], "HostConfig": {"NetworkMode": "none"}}
        with self._engine.connect() as connection:
            begin = time.perf_counter()
            name = connection.request("POST", "/containers/create", body=body).json["Id"]
            assert connection.request("POST", f"/containers/{name}/start").status == 204
            took = time.perf_counter() - begin
            connection.request("DELETE", f"/containers/{name}", query={"force": 1})
        return took

    def cpu_s(self) -> float:
        return sum(_ticks(pid) for pid in engine_processes(self._engine)) / _TICKS

    def begin_peak(self) -> None:
        self._before = {}
        for pid in engine_processes(self._engine):
            try:
                with open(f"/proc/{pid}/clear_refs", "w") as file:
                    file.write("5")
            except OSError:
                continue
            self._before[pid] = _resident_kib(pid, "VmRSS")

    def peak_mib(self) -> float | None:
        return (
            sum(
                max(0, _resident_kib(pid, "VmHWM") - before) for pid, before in self._before.items()
            )
            / 1024
        )

    def close(self) -> None:
        self._engine.stop()


class LocalDockerEngine(DockerEngine):
    """dockerd without networks, in a mount namespace of its own."""

    def argv(self) -> list[str]:
        argv = super().argv()
        dockerd = argv[argv.index("dockerd") :]
        options = ["--bridge", "none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        return ["unshare", "--mount", *dockerd, *options]


class PodmanStore(Store):
    name = "podman"

    def __init__(self, directory: str) -> None:
        self._directory = directory
        os.makedirs(directory)
        # Podman takes no longer path than 50 characters for it.
        self._run_root = f"/tmp/{os.path.basename(directory)}"
        self._prefix = [
            "podman", "--root", f"{directory}/root", "--runroot", self._run_root, "--storage-driver", "overlay",
            "--cgroup-manager", "cgroupfs", "--events-backend", "none",
        ]  # fmt: skip

    def load(self, path: str) -> None:
        run([*self._prefix, "load", "-q", "-i", path])

    def save(self, reference: str) -> None:
        run([*self._prefix, "save", reference])

    def _pull(self, reference: str) -> None:
        run([*self._prefix, "pull", "-q", "--tls-verify=false", reference])

    def tag(self, source: str, target: str) -> None:
        run([*self._prefix, "tag", source, target])

    def push(self, reference: str) -> None:
        run([*self._prefix, "push", "-q", "--tls-verify=false", reference])

    def close(self) -> None:
        overlay = f"{self._directory}/root/overlay"
        subprocess.run(["umount", overlay], check=False, capture_output=True)
        shutil.rmtree(self._directory, ignore_errors=True)
        shutil.rmtree(self._run_root, ignore_errors=True)


class SkopeoStore(Store):
    name = "skopeo"
    unpacks = False

    def __init__(self, directory: str) -> None:
        self._directory = directory
        os.makedirs(directory)

    def load(self, path: str) -> None:
        run(["skopeo", "copy", "-q", f"docker-archive:{path}", self._layout("big:1")])

    def save(self, reference: str) -> None:
        target = f"{self._directory}/saved.tar"
        run(["skopeo", "copy", "-q", self._layout(reference), f"docker-archive:{target}"])
        os.unlink(target)

    def _pull(self, reference: str) -> None:
        run(["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{reference}", self._layout(reference)])  # fmt: skip

    def tag(self, source: str, target: str) -> None:
        run(["skopeo", "copy", "-q", self._layout(source), self._layout(target)])

    def push(self, reference: str) -> None:
        run(["skopeo", "copy", "-q", "--dest-tls-verify=false", self._layout(reference), f"docker://{reference}"])  # fmt: skip

    def _layout(self, reference: str) -> str:
        return f"oci:{self._directory}/layout:{reference.replace('/', '-').replace(':', '-')}"

    def close(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


def make_store(name: str, directory: str, token: str) -> Store:
    """An empty store of one kind."""
    if name == "sampan":
        return ApiStore(SampanEngine(directory, token))
    if name == "dockerd":
        return ApiStore(LocalDockerEngine(directory, token))
    return {"podman": PodmanStore, "skopeo": SkopeoStore}[name](directory)


def run(argv: Sequence[str], environment: dict[str, str] | None = None) -> None:
    """Run a command whose output nobody reads.

    Raises:
        AssertionError: it failed; its errors are in the message.
    """
    with open(os.devnull, "wb") as nowhere:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=nowhere, stderr=subprocess.PIPE, env=environment, check=False,
        )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr.decode(errors='replace')[-2000:]}"


def _ticks(pid: int) -> int:
    """Of a process and its children that have ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return sum(map(int, file.read().rpartition(")")[2].split()[11:15]))
    except OSError:
        return 0


def _resident_kib(pid: int, field: str) -> int:
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(line.split()[1]) for line in file if line.startswith(field)), 0)
    except OSError:
        return 0
