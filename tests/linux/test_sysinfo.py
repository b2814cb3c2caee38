"""What the machine can do, compared with what the kernel shows."""

from __future__ import annotations

import os

import pytest

from sampan.linux import sysinfo
from sampan.linux.cgroups.manager import mode

pytestmark = pytest.mark.vm


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", {0}), ("0-3,7", {0, 1, 2, 3, 7}), ("1,1", {1}), ("8191", {8191})],
)
def test_sets(text: str, numbers: set[int]) -> None:
    assert sysinfo.parse_set(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "0-99999999", "1,,2", "1-2-3"])
def test_bad_sets(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        sysinfo.parse_set(text)


def test_os_release() -> None:
    text = '# x\nPRETTY_NAME="Debian \\"12\\""\nVERSION_ID=\'12\'\nID=debian\nbroken\n'
    assert sysinfo.parse_os_release(text) == {
        "PRETTY_NAME": 'Debian "12"',
        "VERSION_ID": "12",
        "ID": "debian",
    }


def test_system() -> None:
    system = sysinfo.system_info()
    assert system.kernel_version == os.uname().release
    assert system.cpus == len(os.sched_getaffinity(0))
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert abs(system.memory_bytes - physical) < 1 << 20
    assert system.operating_system
    assert system.seccomp


@pytest.mark.root
def test_cgroups() -> None:
    support = sysinfo.cgroup_support()
    assert support.mode == mode()
    assert support.memory_limit and support.pids_limit and support.cpu_cfs_quota and support.cpuset
    assert sysinfo.parse_set(support.cpus) >= os.sched_getaffinity(0)
    assert 0 in sysinfo.parse_set(support.mems)
    v1 = support.version == 1
    assert (support.oom_kill_disable, support.memory_swappiness) == (v1, v1)
    for name in support.__slots__:
        getattr(support, name)


@pytest.mark.apparmor
def test_apparmor() -> None:
    assert sysinfo.system_info().apparmor
