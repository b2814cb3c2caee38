"""Engines under test, each on its own socket, data root, exec root, bridge and nft table.

`SampanEngine` is ours. `DockerEngine` is Debian's dockerd, the oracle: conformance cases have to pass on
it too. It runs in a network and a mount namespace of its own, so that its bridge, its firewall rules and
its mounts go with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import docker  # type: ignore[import-untyped]

from sampan.network.published import PublishedRules
from support.command import DockerCLI, run
from support.http import Answer, Connection
from support.leaks import ENGINE_MARK, marked_processes
from support.rootfs import rootfs_tar
from support.waiting import wait_for

IMAGE = "busybox:test"
START_TIMEOUT_S = 60.0


AnyEngine = TypeVar("AnyEngine", bound="Engine")


class Engine:
    """An engine: a daemon to start and stop, and ways to talk to it.

    Everything it owns lives below `directory`; `stop` leaves nothing of it.
    """

    name = "engine"

    def __init__(self, directory: str, token: str) -> None:
        self.directory, self.token = directory, token
        self.socket = os.path.join(directory, "engine.sock")
        self.data_root = os.path.join(directory, "data")
        self.exec_root = os.path.join(directory, "exec")
        self.log_path = os.path.join(directory, "daemon.log")
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: list[docker.DockerClient] = []
        os.makedirs(directory, exist_ok=True)
        os.makedirs(self.config_directory, exist_ok=True)

    @property
    def cgroup_parent(self) -> str:
        return f"/{self.name}-{self.token}"

    @property
    def mark(self) -> str:
        """What its processes carry in their environment, unless they shed it."""
        return f"{self.name}-{self.token}"

    @property
    def config_directory(self) -> str:
        return os.path.join(self.directory, "config")

    # -- the daemon ----------------------------------------------------------------------------

    def argv(self) -> list[str]:
        raise NotImplementedError

    def start(self, *options: str) -> None:
        """Start the daemon and wait until it answers.

        Raises:
            AssertionError: it ended or did not answer; the end of its log is in the message.
        """
        environment = {**os.environ, ENGINE_MARK: self.mark}
        for name in ("DOCKER_HOST", "SAMPAN_HOST", "NOTIFY_SOCKET"):
            environment.pop(name, None)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.argv(), *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment, start_new_session=True,
            )  # fmt: skip
        try:
            wait_for(self._answers, f"{self.name} to answer", timeout_s=START_TIMEOUT_S)
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}\n{self.log()[-4000:]}") from None

    def _answers(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"{self.name} ended with {code} instead of answering"
        try:
            return self.get("/_ping").status == 200
        except OSError:
            return False

    def kill(self) -> None:
        """Kill the daemon as `kill -9` does; its containers are left to themselves."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def terminate(self, *, timeout_s: float = 60.0) -> int:
        """End the daemon with SIGTERM; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} does not end on SIGTERM\n{self.log()[-4000:]}"
            ) from None
        finally:
            self.kill()

    def stop(self) -> None:
        """Remove all containers, end the daemon, remove everything it made."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.remove_containers()
                self.terminate()
        finally:
            self.kill()
            for client in self._clients:
                client.close()
            self._clients.clear()
            self.clean()

    def clean(self) -> None:
        """Remove what a daemon that was stopped leaves on purpose."""
        for process in list(marked_processes(self.mark, ENGINE_MARK)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.split()[1]), signal.SIGKILL)
        self._unmount()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _unmount(self) -> None:
        with open("/proc/self/mountinfo") as file:
            mounted = [line.split()[4] for line in file]
        for target in reversed(mounted):
            if target.startswith(self.directory + "/"):
                subprocess.run(["umount", "-l", target], check=False)

    def log(self) -> str:
        try:
            with open(self.log_path, errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    # -- clients -------------------------------------------------------------------------------

    def connect(self, *, timeout_s: float = 60.0) -> Connection:
        return Connection(self.socket, timeout_s=timeout_s)

    def request(self, method: str, path: str, **options: Any) -> Answer:
        """One request on a connection of its own (see `Connection.request`)."""
        with self.connect() as connection:
            return connection.request(method, path, **options)

    def get(self, path: str, **query: object) -> Answer:
        return self.request("GET", path, query=query)

    def post(self, path: str, body: object = None, **query: object) -> Answer:
        return self.request("POST", path, body=body, query=query)

    def delete(self, path: str, **query: object) -> Answer:
        return self.request("DELETE", path, query=query)

    def cli(self, path: str) -> DockerCLI:
        return DockerCLI(path, self.socket, self.config_directory)

    def client(self) -> docker.DockerClient:
        """A docker-py client; closed with the engine."""
        client = docker.DockerClient(base_url=f"unix://{self.socket}", timeout=60)
        self._clients.append(client)
        return client

    def import_busybox(self) -> None:
        """Make `busybox:test` (its command is sh)."""
        answer = self.request(
            "POST", "/images/create", raw=rootfs_tar(),
            query={"fromSrc": "-", "repo": "busybox", "tag": "test", "changes": ["CMD [\"sh\"]", "ENV PATH=/usr/bin:/bin"]},
        )  # fmt: skip
        assert answer.status == 200 and b'"error"' not in answer.body, answer

    def remove_containers(self) -> None:
        for container in self.get("/containers/json", all=True).json:
            answer = self.delete(f"/containers/{container['Id']}", force=True, v=True)
            assert answer.status in (204, 404, 409), answer


class SampanEngine(Engine):
    """The engine of this checkout."""

    name = "sampan"

    def __init__(self, directory: str, token: str) -> None:
        super().__init__(directory, token)
        self.bridge = f"st{token}"

    def argv(self) -> list[str]:
        return [
            os.path.join(os.path.dirname(sys.executable), "sampand"), "-H", f"unix://{self.socket}",
            "--data-root", self.data_root, "--exec-root", self.exec_root, "--bridge", self.bridge, "--firewall-table", self.bridge, "--cgroup-parent", self.cgroup_parent,
            "--debug",
        ]  # fmt: skip

    def clean(self) -> None:
        networks = self._network_ids()
        super().clean()
        _remove_links_of(networks)
        # It ends by itself, without daemon and containers.
        wait_for(lambda: not self.resolver_pids(), "the resolver to end")
        links = {self.bridge}
        for line in run(["nft", "list", "tables"], check=False).out.splitlines():
            if self.bridge in line:
                subprocess.run(["nft", "delete", *line.split()], check=False)
                links.add(PublishedRules(line.split()[-1]).loop)
        for name in links:
            subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)
        remove_cgroups(self.cgroup_parent.strip("/"))

    def _network_ids(self) -> list[str]:
        """The user's networks that the engine's database has, also that of an engine that was killed."""
        database = os.path.join(self.data_root, "engine.db")
        if not os.path.exists(database):
            return []
        try:
            with contextlib.closing(sqlite3.connect(database)) as connection:
                return [row[0] for row in connection.execute("SELECT id FROM networks")]
        except sqlite3.Error:
            return []  # a test has damaged it

    def remains(self) -> dict[str, list[str]]:
        """What containers hold on the machine, by kind; every list is empty when there are none."""
        with open("/proc/self/mountinfo") as file:
            mounts = [line.split()[4] for line in file if f"{self.directory}/" in line]
        links = run(["ip", "-o", "link", "show", "master", self.bridge], check=False).out
        return {
            "mounts": mounts,
            "cgroups": cgroups_below(self.cgroup_parent.strip("/")),
            "interfaces": [line.split()[1] for line in links.splitlines()],
            "containers": _listed(os.path.join(self.data_root, "containers")),
            "snapshots": _listed(os.path.join(self.data_root, "active")),
            "shims": _listed(os.path.join(self.exec_root, "shims")),
        }

    def zygote_pid(self) -> int:
        """The fork server's."""
        assert self.process is not None
        [pid] = [
            child
            for child in children(self.process.pid)
            if "sampan.shim.zygote" in command_of(child)
        ]
        return pid

    def resolver_pids(self) -> list[int]:
        """The processes that answer this engine's containers about names: one, or none."""
        entries = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        return [pid for pid in entries if f"{self.exec_root}/names.sock" in command_of(pid)]


def _listed(directory: str) -> list[str]:
    return os.listdir(directory) if os.path.isdir(directory) else []


def command_of(pid: int) -> str:
    """A process's command line; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    """The direct children of a process's main thread."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def running(engine: AnyEngine) -> Iterator[AnyEngine]:
    """What a fixture yields from: the engine runs, with `busybox:test`, and is stopped in the end."""
    try:
        engine.start()
        engine.import_busybox()
        yield engine
    finally:
        engine.stop()


class DockerEngine(Engine):
    """Debian's dockerd with its own containerd, in namespaces of its own."""

    name = "dockerd"

    def argv(self) -> list[str]:
        with open(os.path.join(self.directory, "daemon.json"), "w") as file:
            file.write("{}")
        dockerd = [
            "dockerd", "-H", f"unix://{self.socket}", "--data-root", self.data_root,
            "--exec-root", self.exec_root, "--pidfile", os.path.join(self.directory, "pid"),
            "--config-file", os.path.join(self.directory, "daemon.json"), "--cgroup-parent", self.cgroup_parent,
        ]  # fmt: skip
        return namespaced(dockerd)

    def clean(self) -> None:
        super().clean()
        remove_cgroups(self.cgroup_parent.strip("/"))


def _remove_links_of(networks: Sequence[str]) -> None:
    """Delete the bridges of networks, and their further segments, known by what their aliases say."""
    if not networks:
        return
    links = json.loads(run(["ip", "-json", "link"]).out)
    aliases = {link["ifname"]: link.get("ifalias", "") for link in links}
    bridges = [name for name, alias in aliases.items() if alias.endswith(tuple(networks))]
    for name, alias in aliases.items():
        if name in bridges or (bridges and alias.endswith(tuple(bridges))):
            subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


def namespaced(argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` in new network and mount namespaces, as the same process."""
    return ["unshare", "--net", "--mount", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *argv]


def cgroups_named(name: str) -> list[str]:
    """The directories called `name` at the root of every hierarchy."""
    root = "/sys/fs/cgroup"
    bases = [root, *(os.path.join(root, entry) for entry in os.listdir(root))]
    return [top for base in bases if os.path.isdir(top := os.path.join(base, name))]


def cgroups_below(name: str) -> list[str]:
    """Every cgroup below those."""
    return [
        os.path.join(directory, entry)
        for top in cgroups_named(name)
        for directory, entries, _ in os.walk(top)
        for entry in entries
    ]


def remove_cgroups(name: str) -> None:
    """Remove the cgroups called `name` at the root of every hierarchy, with those below.

    Waits for processes that are about to be gone; where some stay, the cgroups stay with them.
    """

    def gone() -> bool:
        for top in cgroups_named(name):
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
        return not cgroups_named(name)

    with contextlib.suppress(AssertionError):
        wait_for(gone, f"the cgroups {name} to be empty", timeout_s=20)
