"""The same profile and limits given to runc: what the kernel then holds has to be the same."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.engine.seccomp_profile import default_profile
from sampan.linux import seccomp
from sampan.linux.cgroups.manager import open_cgroup
from support.bpf import instructions, interpret
from support.waiting import wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc"),
    pytest.mark.skipif(not os.path.exists("/bin/busybox"), reason="needs busybox-static"),
]

PARENT = f"/sampan-test-runc-{os.getpid()}"
MIB = 1 << 20
LAST_OF_LIBSECCOMP = 450  # 2.5's; runc cannot know what came later


class Runc:
    """A container of runc's that sleeps, made from a base configuration."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._state = str(directory / "state")
        self._names: list[str] = []
        binaries = directory / "rootfs/bin"
        binaries.mkdir(parents=True)
        shutil.copy("/bin/busybox", binaries / "sleep")
        subprocess.run(["runc", "spec"], cwd=directory, check=True)
        self._base = json.loads((directory / "config.json").read_text())

    def run(self, name: str, **linux: Any) -> int:
        """Start container `name` with these parts of `linux`; its process's ID."""
        config = json.loads(json.dumps(self._base))
        config["process"].update(args=["/bin/sleep", "1000"], terminal=False, rlimits=[])
        config["linux"].update(linux, cgroupsPath=f"{PARENT}/{name}")
        (self._directory / "config.json").write_text(json.dumps(config))
        name = f"sampan-test-{os.getpid()}-{name}"
        self._names.append(name)
        log = self._directory / "log"
        with open(log, "w") as output:
            result = subprocess.run(
                ["runc", "--root", self._state, "run", "-d", "-b", self._directory, name],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )
        assert result.returncode == 0, log.read_text()
        state = subprocess.check_output(["runc", "--root", self._state, "state", name])
        return int(json.loads(state)["pid"])

    def close(self) -> None:
        for name in self._names:
            subprocess.run(["runc", "--root", self._state, "delete", "-f", name], check=False)


@pytest.fixture
def runc(tmp_path: Path) -> Iterator[Runc]:
    runc = Runc(tmp_path)
    yield runc
    runc.close()
    open_cgroup(PARENT).delete()


# -- seccomp -------------------------------------------------------------------------------------

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_SECCOMP_GET_FILTER = (
    17,
    0x4206,
    0x4207,
    0x420C,
)


def loaded_filter(pid: int) -> bytes:
    """The program that a process is under, from the kernel."""
    libc = ctypes.CDLL(None, use_errno=True)

    def ptrace(request: int, address: int | None, data: Any) -> int:
        result = int(libc.ptrace(request, pid, ctypes.c_void_p(address), data))
        if result < 0:
            raise OSError(ctypes.get_errno(), "ptrace")
        return result

    ptrace(PTRACE_SEIZE, None, None)
    try:
        ptrace(PTRACE_INTERRUPT, None, None)
        os.waitpid(pid, 0x40000000)  # __WALL
        try:
            count = ptrace(PTRACE_SECCOMP_GET_FILTER, 0, None)
        except OSError:
            pytest.skip("needs a kernel with CONFIG_CHECKPOINT_RESTORE")
        program = ctypes.create_string_buffer(count * 8)
        ptrace(PTRACE_SECCOMP_GET_FILTER, 0, program)
        return program.raw
    finally:
        ptrace(PTRACE_DETACH, None, None)


def test_filter_decides_as_runcs(runc: Runc) -> None:
    """Docker's default profile, every call of every architecture, the loaded programs compared."""
    profile = default_profile(["CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_NET_RAW", "CAP_MKNOD"])
    pid = runc.run("filter", seccomp=profile)
    wait_for(lambda: _comm(pid) == "sleep", "the exec")
    theirs = instructions(loaded_filter(pid))
    ours = instructions(seccomp.compile_profile(profile))
    numbers = [*range(LAST_OF_LIBSECCOMP + 1), 999, 0xFFFFFFFF]
    numbers += [number | 0x40000000 for number in range(600) if not 450 < number < 512]
    arguments = [[0] * 6, [1, 0x10000000, 0, 0, 0, 0], [40, 3, 3, 3, 3, 3], [0x20008] + [0] * 5]
    for arch in (0xC000003E, 0xC00000B7, 0x40000003, 0x40000028):
        for number in numbers:
            for args in arguments:
                expected = interpret(theirs, number, arch, args)
                assert interpret(ours, number, arch, args) == expected, (hex(arch), number, args)


def _comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


# -- cgroups -------------------------------------------------------------------------------------

# Files that tell what happened, not what was set.
_FIGURES = [
    "usage",
    "stat",
    "tasks",
    "procs",
    "failcnt",
    "slabinfo",
    "pressure",
    "force_empty",
    "peak",
    "current",
    "effective",
    "events",
]
_TUN = "c 10:200 rwm"  # runc before 1.2 allows /dev/net/tun to all; the specification does not

RESOURCES: list[dict[str, Any]] = [
    {
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            {"allow": True, "type": "b", "major": 7, "minor": 0, "access": "r"},
        ],
        "memory": {"limit": 64 * MIB, "swap": 128 * MIB, "reservation": 32 * MIB},
        "cpu": {"quota": 50000, "period": 200000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 100},
    },
    {
        "devices": [{"allow": True, "access": "rwm"}],
        "memory": {"limit": -1},
        "cpu": {"quota": -1},
        "pids": {"limit": -1},
    },
    {
        "devices": [
            {"allow": True, "access": "rwm"},
            {"allow": False, "type": "b", "major": 7, "minor": 0, "access": "rw"},
        ],
        "cpu": {"shares": 0},
    },
]


def settings(paths: dict[str, str]) -> dict[str, object]:
    """What every control file holds, by controller and name."""
    out: dict[str, object] = {}
    for controller, directory in paths.items():
        if not controller or controller.startswith("name="):  # no limits there
            continue
        for name in os.listdir(directory):
            path = f"{directory}/{name}"
            if any(word in name for word in _FIGURES) or os.path.isdir(path):
                continue
            try:
                text = Path(path).read_text()
            except OSError as error:
                text = f"errno {error.errno}"
            if name == "devices.list":
                lines = set(text.splitlines()) - {_TUN}
                out[name] = lines
            else:
                out[f"{controller}/{name}"] = text
    return out


@pytest.mark.cgroup1
@pytest.mark.parametrize("resources", RESOURCES, ids=["limits", "unlimited", "all but one device"])
def test_control_files_hold_what_runc_writes(runc: Runc, resources: dict[str, Any]) -> None:
    runc.run("theirs", resources=resources)
    theirs = settings(open_cgroup(f"{PARENT}/theirs").paths())
    ours = open_cgroup(f"{PARENT}/ours")
    ours.create()
    ours.apply(resources)
    assert settings(ours.paths()) == theirs
