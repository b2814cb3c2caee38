"""Debian's dockerd with sampan-oci as one more runtime."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator

import pytest

from sampan.linux import capabilities
from support.command import DockerCLI, docker_clis
from support.engines import DockerEngine

pytestmark = [pytest.mark.root, pytest.mark.docker_cli, pytest.mark.cgroup1]

OURS = ("--runtime", "sampan-oci", "--network", "none")


class WithOurRuntime(DockerEngine):
    """dockerd that was told of sampan-oci."""

    def argv(self) -> list[str]:
        argv = super().argv()
        path = f"{self.directory}/sampan-oci"
        with open(path, "w") as file:
            file.write(f'#!/bin/sh\nexec {sys.executable} -m sampan.runtime.command "$@"\n')
        os.chmod(path, 0o755)
        with open(f"{self.directory}/daemon.json", "w") as file:
            json.dump({"runtimes": {"sampan-oci": {"path": path}}}, file)
        return argv


@pytest.fixture(scope="module")
def docker_with_ours(session_directory: str, session_token: str) -> Iterator[DockerCLI]:
    for command in ("dockerd", "containerd"):
        if shutil.which(command) is None:
            pytest.skip(f"needs the command {command}")
    engine = WithOurRuntime(f"{session_directory}/dockerd-ours", f"{session_token}r")
    try:
        engine.start()
        engine.import_busybox()
        yield engine.cli(next(iter(docker_clis().values())))
    finally:
        engine.stop()


def test_run(docker_with_ours: DockerCLI) -> None:
    docker = docker_with_ours
    got = docker("run", "--rm", *OURS, "busybox:test", "sh", "-c",
                 "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; exit 3", check=False)  # fmt: skip
    assert (got.code, got.out.split()[1::2]) == (3, ["0", "2"]), got


def test_programs_that_cannot_run(docker_with_ours: DockerCLI) -> None:
    docker = docker_with_ours
    got = docker("run", "--rm", *OURS, "busybox:test", "nosuch", check=False)
    assert (got.code, "executable file not found in $PATH" in got.err) == (127, True)
    got = docker("run", "--rm", *OURS, "busybox:test", "/etc/passwd", check=False)
    assert (got.code, "permission denied" in got.err) == (126, True)


def test_life(docker_with_ours: DockerCLI) -> None:
    docker = docker_with_ours
    docker("run", "-d", "--name", "c1", *OURS, "busybox:test", "sleep", "1000")
    got = docker("exec", "c1", "sh", "-c", "echo inside; exit 9", check=False)
    assert (got.code, got.out) == (9, "inside\n")
    assert docker("exec", "c1", "nosuch", check=False).code in (126, 127)
    assert docker("exec", "-u", "user", "c1", "id", "-u").out == "1000\n"
    docker("pause", "c1")
    assert docker("inspect", "-f", "{{.State.Status}}", "c1").out == "paused\n"
    docker("unpause", "c1")
    docker("update", "-m", "100m", "--memory-swap", "100m", "c1")
    assert "sleep 1000" in docker("top", "c1").out
    docker("stop", "-t", "0", "c1")
    assert docker("inspect", "-f", "{{.State.ExitCode}}", "c1").out == "137\n"
    docker("rm", "c1")


def test_privileged(docker_with_ours: DockerCLI) -> None:
    """Also on a machine that lacks a capability, where runc refuses."""
    got = docker_with_ours("run", "--rm", "--privileged", *OURS, "busybox:test", "sh", "-c",
                           "grep CapEff /proc/self/status")  # fmt: skip
    given = int(got.out.split()[1], 16)
    assert given & ~capabilities.bounding() == 0
    assert given & capabilities.mask(["CAP_SYS_ADMIN", "CAP_NET_ADMIN"])
