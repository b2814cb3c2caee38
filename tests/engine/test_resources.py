"""Limits: dockerd's refusals to the letter, and what the OCI spec gets."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from sampan.engine import updates
from sampan.engine.model import HostConfig, ThrottleDevice, Ulimit, UpdateConfig, WeightDevice
from sampan.engine.resources import Machine, check_limits, check_ulimits, oci_resources, parse_set
from sampan.errors import InvalidArgument, NotFound

MACHINE = Machine(cpus=2, cpuset_cpus="0-1", cpuset_mems="0")
MIB = 1 << 20


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"memory": 5 * MIB}, "Minimum memory limit allowed is 6MB"),
        (
            {"memory_swap": 64 * MIB},
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            {"memory": 64 * MIB, "memory_swap": 32 * MIB},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        ({"memory_reservation": MIB}, "Minimum memory reservation allowed is 6MB"),
        (
            {"memory": 32 * MIB, "memory_reservation": 64 * MIB},
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (
            {"memory_swappiness": 101},
            "Invalid value: 101, valid memory swappiness range is 0-100",
        ),
        (
            {"nano_cpus": 3_000_000_000},
            "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (
            {"nano_cpus": 1_000_000_000, "cpu_quota": 5000},
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        (
            {"cpu_period": 10},
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        ({"cpu_quota": 10}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (
            {"cpuset_cpus": "0-7"},
            "Requested CPUs are not available - requested 0-7, available: 0-1",
        ),
        ({"cpuset_cpus": "x"}, "Invalid value x for cpuset cpus"),
        ({"cpuset_cpus": "1-0"}, "Invalid value 1-0 for cpuset cpus"),
        (
            {"cpuset_mems": "3"},
            "Requested memory nodes are not available - requested 3, available: 0",
        ),
        ({"blkio_weight": 5}, "Range of blkio weight is from 10 to 1000"),
    ],
)
def test_refused(values: dict[str, Any], text: str) -> None:
    """A limit that cannot be meant is refused in dockerd's words."""
    with pytest.raises(InvalidArgument, match=f"^{re.escape(text)}$"):
        check_limits(HostConfig(**values), MACHINE)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {}),
        ({"memory": 64 * MIB}, {"memory": {"limit": 64 * MIB, "swap": 128 * MIB}}),
        ({"memory": 64 * MIB, "memory_swap": -1}, {"memory": {"limit": 64 * MIB, "swap": -1}}),
        ({"nano_cpus": 1_500_000_000}, {"cpu": {"period": 100_000, "quota": 150_000}}),
        ({"cpu_shares": 512, "cpuset_cpus": "0"}, {"cpu": {"shares": 512, "cpus": "0"}}),
        ({"pids_limit": 64}, {"pids": {"limit": 64}}),
        ({"pids_limit": 0}, {}),
        ({"pids_limit": -1}, {"pids": {"limit": -1}}),
        ({"blkio_weight": 300}, {"blockIO": {"weight": 300}}),
        ({"memory_swappiness": -1}, {}),
    ],
)
def test_oci(values: dict[str, Any], expected: dict[str, Any]) -> None:
    """What was asked for, in the OCI spec's words, and nothing else."""
    host = HostConfig(**values)
    assert check_limits(host, MACHINE) == []
    assert oci_resources(host, []) == {"devices": [], **expected}


def test_devices_of_block_limits(tmp_path: Path) -> None:
    """A device is named by its path, and is its number in the OCI spec."""
    path = "/dev/null"
    number = {"major": 1, "minor": 3}
    host = HostConfig(
        blkio_weight_device=[WeightDevice(path=path, weight=300)],
        blkio_device_read_bps=[ThrottleDevice(path=path, rate=10)],
    )
    assert oci_resources(host, [])["blockIO"] == {
        "weightDevice": [{**number, "weight": 300}],
        "throttleReadBpsDevice": [{**number, "rate": 10}],
    }
    host.blkio_weight_device = [WeightDevice(path=str(tmp_path / "none"), weight=300)]
    with pytest.raises(NotFound, match="no such device"):
        oci_resources(host, [])


def test_update_changes_what_there_is() -> None:
    """Memory+swap may come alone; what the change does not name stays."""
    change = UpdateConfig(memory_swap=128 * MIB)
    assert check_limits(change, MACHINE, update=True) == []
    before = HostConfig(memory=64 * MIB, memory_swap=64 * MIB, cpu_shares=100)
    after = updates.changed(before, change)
    assert (after.memory, after.memory_swap, after.cpu_shares) == (64 * MIB, 128 * MIB, 100)
    memory = {"limit": 64 * MIB, "swap": 128 * MIB}
    assert updates.live_resources(after, change) == {"memory": memory}
    undo = {"limit": 64 * MIB, "swap": 64 * MIB, "reservation": -1}
    assert updates.undoing(before, change) == {"memory": undo}


def test_update_of_block_devices(tmp_path: Path) -> None:
    """A list takes the place of the one before; what is no longer in it has no limit of its own."""
    paths = [str(tmp_path / name) for name in "ab"]
    for number, path in enumerate(paths):
        os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(7, number))
    first, second = paths
    before = HostConfig(
        blkio_weight=300,
        blkio_device_read_bps=[ThrottleDevice(path=first, rate=10), ThrottleDevice(path=second, rate=20)],
        blkio_device_write_bps=[ThrottleDevice(path=first, rate=10)],
        blkio_weight_device=[WeightDevice(path=first, weight=500)],
    )  # fmt: skip
    change = UpdateConfig(
        blkio_device_read_bps=[ThrottleDevice(path=second, rate=30)],
        blkio_device_write_iops=[ThrottleDevice(path=first, rate=0)],
        blkio_weight_device=[WeightDevice(path=second, weight=400)],
    )
    updates.refuse_others(before, change)
    after = updates.changed(before, change)
    assert after.blkio_device_write_bps == before.blkio_device_write_bps
    assert after.blkio_device_write_iops is None
    a, b = {"major": 7, "minor": 0}, {"major": 7, "minor": 1}
    assert updates.block_io(before, after) == {
        "blockIO": {
            "throttleReadBpsDevice": [{**a, "rate": 0}, {**b, "rate": 30}],
            "weightDevice": [{**a, "weight": 300}, {**b, "weight": 400}],
        }
    }
    assert updates.block_io(after, before) == {
        "blockIO": {
            "throttleReadBpsDevice": [{**a, "rate": 10}, {**b, "rate": 20}],
            "weightDevice": [{**b, "weight": 300}, {**a, "weight": 500}],
        }
    }
    assert updates.block_io(before, before) == {}
    weighed = updates.changed(before, UpdateConfig(blkio_weight=200))
    assert updates.block_io(before, weighed) == {"blockIO": {"weight": 200}}
    assert updates.block_io(weighed, HostConfig())["blockIO"]["weight"] == 100
    gone = updates.changed(before, UpdateConfig(blkio_device_read_bps=[ThrottleDevice(path="/dev/none", rate=1)]))  # fmt: skip
    with pytest.raises(NotFound, match="no such device: /dev/none"):
        updates.block_io(before, gone)


def test_update_of_processes() -> None:
    """Zero and less are no limit; none given is no change."""
    before = HostConfig(pids_limit=10)
    change = UpdateConfig(pids_limit=-1)
    after = updates.changed(before, change)
    assert after.pids_limit == 0
    assert updates.live_resources(after, change) == {"pids": {"limit": -1}}
    assert updates.undoing(before, change) == {"pids": {"limit": 10}}
    assert updates.live_resources(before, UpdateConfig()) == {}


@pytest.mark.parametrize(
    "same", [{}, {"ulimits": [Ulimit(name="core", soft=1, hard=1)]}, {"init": True}]
)
def test_update_may_repeat_what_is_so(same: dict[str, Any]) -> None:
    """Clients that send back what inspect showed."""
    updates.refuse_others(HostConfig(**same), UpdateConfig(**same, cpu_shares=5))
    if same:
        with pytest.raises(InvalidArgument, match="cannot be updated"):
            updates.refuse_others(HostConfig(), UpdateConfig(**same))


def test_warnings() -> None:
    """What the kernel lacks is dropped and said."""
    bare = Machine(cpus=2, cpuset_cpus="0-1", cpuset_mems="0", swap_limit=False, pids_limit=False)
    host = HostConfig(memory=64 * MIB, pids_limit=10)
    warnings = check_limits(host, bare)
    assert [warning.split(" support ")[1][:10] for warning in warnings] == [
        "swap limit",
        "PIDs limit",
    ]
    assert oci_resources(host, [])["memory"] == {"limit": 64 * MIB, "swap": -1}
    assert "pids" not in oci_resources(host, [])


def test_ulimits() -> None:
    """The soft limit is at most the hard one."""
    check_ulimits([Ulimit(name="nofile", soft=20, hard=50), Ulimit(name="core", soft=-1, hard=-1)])
    with pytest.raises(InvalidArgument, match="less than or equal to hard limit: 50 > 20"):
        check_ulimits([Ulimit(name="nofile", soft=50, hard=20)])
    with pytest.raises(InvalidArgument, match="invalid ulimit type: files"):
        check_ulimits([Ulimit(name="files", soft=1, hard=1)])


def test_sets() -> None:
    """CPU lists are parsed as the kernel does."""
    assert parse_set("0-2,5", "cpus") == {0, 1, 2, 5}
    assert parse_set("", "cpus") == frozenset()


def test_missing_device() -> None:
    """A throttled device has to exist."""
    from sampan.engine.model import ThrottleDevice

    host = HostConfig(blkio_device_read_bps=[ThrottleDevice(path="/dev/nosuch", rate=1)])
    with pytest.raises(NotFound, match="/dev/nosuch"):
        oci_resources(host, [])
