"""Debian's Podman with sampan-oci in the place of runc."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sampan.linux.cgroups.manager import open_cgroup
from support.rootfs import rootfs_tar

pytestmark = [pytest.mark.root, pytest.mark.podman, pytest.mark.cgroup1]

Podman = Callable[..., Any]

PARENT = "/libpod_parent"

# this machine cannot raise the limits that Podman sets by itself
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--network", "none")


@pytest.fixture(scope="module")
def podman(session_directory: str, session_token: str) -> Iterator[Podman]:
    """Podman with stores of its own, an image `bb` and our runtime."""
    parent = open_cgroup(PARENT)  # every Podman on a machine has this one
    had_parent = parent.exists()
    base = f"{session_directory}/podman"
    runtime = f"{session_directory}/sampan-oci"
    with open(runtime, "w") as file:
        file.write(f'#!/bin/sh\nexec {sys.executable} -m sampan.runtime.command "$@"\n')
    subprocess.run(["chmod", "755", runtime], check=True)
    argv = [
        "podman", "--root", f"{base}/root", "--runroot", f"{base}/run", "--storage-driver", "overlay",
        "--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", runtime,
    ]  # fmt: skip

    def run(*words: str, stdin: bytes = b"") -> Any:
        return subprocess.run(
            [*argv, *words], input=stdin, capture_output=True, timeout=60, check=False
        )

    made = run("import", "-", "bb", stdin=rootfs_tar())
    assert made.returncode == 0, made.stderr
    yield run
    run("rm", "--all", "--force", "--time", "0")
    subprocess.run(["umount", f"{base}/root/overlay"], capture_output=True, check=False)
    subprocess.run(["rm", "-rf", base, runtime], check=True)
    if not had_parent:
        parent.delete()


def test_run(podman: Podman) -> None:
    got = podman("run", "--rm", *LIMITS, "bb", "sh", "-c", "id -u; cat /proc/1/cmdline; exit 4")
    assert (got.returncode, got.stdout.split(b"\n")[0]) == (4, b"0"), got


def test_program_that_is_not_there(podman: Podman) -> None:
    got = podman("run", "--rm", *LIMITS, "bb", "nosuch")
    assert got.returncode == 127
    assert b"executable file not found in $PATH" in got.stderr
    assert podman("run", "--rm", *LIMITS, "bb", "/etc/passwd").returncode == 126


def test_terminal(podman: Podman) -> None:
    got = podman("run", "--rm", "-t", *LIMITS, "bb", "tty")
    assert got.stdout == b"/dev/pts/0\r\n"


def test_user_namespace(podman: Podman) -> None:
    maps = ("--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536")
    got = podman("run", "--rm", *LIMITS, *maps, "bb", "sh", "-c", "id -u; cat /proc/self/uid_map")
    assert got.stdout.split() == [b"0", b"0", b"100000", b"65536"], got


def test_life(podman: Podman) -> None:
    """Detached, exec with and without a terminal, pause, namespaces of another, limits, stop."""
    assert podman("run", "-d", "--name", "c1", *LIMITS, "bb", "sleep", "1000").returncode == 0
    got = podman("exec", "c1", "sh", "-c", "echo inside; exit 5")
    assert (got.returncode, got.stdout) == (5, b"inside\n")
    assert podman("exec", "-t", "c1", "tty").stdout == b"/dev/pts/0\r\n"
    assert podman("exec", "-u", "user", "c1", "id", "-u").stdout == b"1000\n"
    assert podman("exec", "c1", "nosuch").returncode == 127
    assert podman("pause", "c1").returncode == 0
    assert json.loads(podman("inspect", "c1").stdout)[0]["State"]["Status"] == "paused"
    assert podman("unpause", "c1").returncode == 0
    shared = podman("run", "--rm", *LIMITS, "--pid", "container:c1", "bb", "cat", "/proc/1/cmdline")
    assert shared.stdout == b"sleep\x001000\x00"
    assert podman("stop", "-t", "0", "c1").returncode == 0
    state = json.loads(podman("inspect", "c1").stdout)[0]["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)
    assert podman("rm", "c1").returncode == 0


def test_privileges(podman: Podman) -> None:
    """--privileged works also where the machine lacks a capability, which runc refuses."""
    got = podman("run", "--rm", "--privileged", *LIMITS, "bb", "sh", "-c", "mount -t tmpfs x /tmp")
    assert got.returncode == 0, got
    words = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    got = podman("run", "--rm", *words, *LIMITS, "bb", "sh", "-c",
                 "touch /x; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status")  # fmt: skip
    assert b"Read-only" in got.stderr
    assert got.stdout.split()[1::2] == [b"0000000000000000", b"1", b"2"]
