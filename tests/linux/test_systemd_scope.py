"""Scopes: what is sent to systemd, and a real manager that makes one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import RuntimeFailure
from sampan.linux.cgroups import scope, systemd_bus
from sampan.linux.cgroups.manager import open_cgroup
from support.waiting import wait_for

SYSTEMD = "/lib/systemd/systemd"
MIB = 1 << 20


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("s", "slice"),
        ("b", 1),
        ("au", [1, 2, 3]),
        ("at", []),
        ("a(ss)", [("/dev/null", "rwm"), ("char-*", "m")]),
        ("(uoss)", (7, "/job", "a.scope", "done")),
        ("a(yv)", [(1, "/x"), (8, 5)]),
    ],
)
@pytest.mark.parametrize("offset", range(8))
def test_values_come_back(kind: str, value: Any, offset: int) -> None:
    """Wherever in a message they stand."""
    data = bytearray(offset)
    sent = [(1, ("o", "/x")), (8, ("u", 5))] if kind == "a(yv)" else value
    systemd_bus.marshal(data, kind, sent)
    assert systemd_bus.unmarshal(bytes(data), offset, kind) == (value, len(data))


def test_call_is_what_the_specification_says() -> None:
    message = systemd_bus.call_message(1, "ResetFailedUnit", "s", ["a.scope"])
    assert message[:16] == b"l\x01\0\x01\x0c\0\0\0\x01\0\0\0\x9f\0\0\0"
    fields, end = systemd_bus.unmarshal(message, 12, "a(yv)")
    assert dict(fields) == {
        1: "/org/freedesktop/systemd1",
        2: "org.freedesktop.systemd1.Manager",
        3: "ResetFailedUnit",
        6: "org.freedesktop.systemd1",
        8: "s",
    }
    body = message[end + -end % 8 :]
    assert body == b"\x07\0\0\0a.scope\0"


PROPERTIES: list[tuple[dict[str, Any], int, list[tuple[str, str, Any]]]] = [
    ({}, 2, []),
    (
        {"memory": {"limit": 5, "swap": 7, "reservation": 3}},
        2,
        [("MemoryMax", "t", 5), ("MemorySwapMax", "t", 2), ("MemoryLow", "t", 3)],
    ),
    ({"memory": {"limit": -1, "swap": 7}}, 1, [("MemoryLimit", "t", (1 << 64) - 1)]),
    ({"cpu": {"shares": 1024}}, 2, [("CPUWeight", "t", 100)]),
    ({"cpu": {"shares": 1024}}, 1, [("CPUShares", "t", 1024)]),
    (
        {"cpu": {"quota": 33333}},
        2,
        [("CPUQuotaPerSecUSec", "t", 340000), ("CPUQuotaPeriodUSec", "t", 100000)],
    ),
    (
        {"cpu": {"quota": -1, "period": 50000}},
        2,
        [("CPUQuotaPerSecUSec", "t", (1 << 64) - 1), ("CPUQuotaPeriodUSec", "t", 50000)],
    ),
    ({"pids": {"limit": -1}}, 2, [("TasksMax", "t", (1 << 64) - 1)]),
    (
        {"devices": [{"allow": True, "access": "rwm"}]},
        2,
        [("DevicePolicy", "s", "auto"), ("DeviceAllow", "a(ss)", [])],
    ),
]


@pytest.mark.parametrize(("resources", "version", "expected"), PROPERTIES)
def test_properties(
    resources: dict[str, Any], version: int, expected: list[tuple[str, str, Any]]
) -> None:
    assert scope.unit_properties(resources, version) == expected


def test_devices_by_systemds_names() -> None:
    rules = [{"allow": False}, {"allow": True, "type": "c", "major": 10, "minor": 200}]
    found = {name: value for name, _, value in scope.unit_properties({"devices": rules}, 2)}
    assert found["DevicePolicy"] == "strict"
    entries = dict(found["DeviceAllow"])
    assert entries["/dev/char/10:200"] == "rwm"
    assert entries["char-*"] == "m" and entries["block-*"] == "m"
    assert entries["char-pts"] == "rwm"


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="systemd runs here")
def test_without_systemd() -> None:
    with pytest.raises(RuntimeFailure, match="systemd does not run here"):
        open_cgroup("system.slice:a:b", systemd=True)


def test_unreachable(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="cannot reach systemd"):
        systemd_bus.Manager(str(tmp_path / "none"))


# -- a real manager ------------------------------------------------------------------------------


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    """The private socket of a `systemd --user` with a part of the tree for itself."""
    if not os.path.exists(SYSTEMD):
        pytest.skip("needs systemd (installed, not running)")
    parent = open_cgroup(f"/sampan-test-systemd-{os.getpid()}")
    parent.create()
    environment = {
        "XDG_RUNTIME_DIR": str(tmp_path),
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }
    procs = parent.paths()[""] + "/cgroup.procs"
    # A user's manager wants to see that the machine was booted with systemd.
    booted = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system"
    manager = subprocess.Popen(
        [
            "unshare",
            "-m",
            "/bin/sh",
            "-c",
            f"{booted} && echo $$ >{procs} && exec {SYSTEMD} --user",
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    path = str(tmp_path / "systemd/private")
    try:
        wait_for(lambda: os.path.exists(path), "systemd's socket", timeout_s=60)
        yield path
    finally:
        parent.kill()
        manager.wait()
        parent.delete()


@pytest.mark.root
@pytest.mark.cgroup2
@pytest.mark.vm
def test_scope_of_a_real_manager(bus: str) -> None:
    """systemd puts the process into the scope and takes its limits; refusals have its words."""
    process = subprocess.Popen(["sleep", "1000"])
    unit = "sampan-test.scope"
    found = f"/sampan-test-systemd-{os.getpid()}/app.slice/{unit}"
    cgroup = scope.ScopeCgroup(unit, open_cgroup(found), 2, bus)
    try:
        cgroup.adopt(process.pid)
        assert Path(f"/proc/{process.pid}/cgroup").read_text() == f"0::{found}\n"
        cgroup.create()
        cgroup.apply(
            {
                "memory": {"limit": 64 * MIB, "swap": 64 * MIB},
                "cpu": {"shares": 512, "quota": 50000},
                "pids": {"limit": 20},
                "devices": [{"allow": False}],
            }
        )
        with systemd_bus.Manager(bus) as manager:
            with pytest.raises(systemd_bus.BusError, match="NoSuch"):
                manager.set_unit_properties(unit, [("NoSuch", "t", 1)])
            # systemd's own value, which it would write again, is the one that was asked for.
            manager.set_unit_properties(unit, [("TasksMax", "t", 21)])
        directory = Path(cgroup.paths()[""])
        values = {
            name: (directory / name).read_text().strip()
            for name in ("memory.max", "memory.swap.max", "cpu.weight", "cpu.max", "pids.max")
        }
        assert values == {
            "memory.max": str(64 * MIB),
            "memory.swap.max": "0",
            "cpu.weight": "59",
            "cpu.max": "50000 100000",
            "pids.max": "21",
        }
        with pytest.raises(RuntimeFailure, match="systemd"):
            cgroup.adopt(1 << 22)
        assert cgroup.processes() == [process.pid]
    finally:
        cgroup.kill()
        assert process.wait() == -signal.SIGKILL
        cgroup.delete()
    assert not cgroup.exists()
