"""Cgroups on the running kernel, whichever version it has."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sampan.errors import RuntimeFailure
from sampan.linux.cgroups.base import Cgroup
from sampan.linux.cgroups.manager import mode, open_cgroup
from sampan.linux.process import clone
from support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.vm]

UNIFIED = os.path.isfile("/sys/fs/cgroup/cgroup.controllers")
HYBRID = not UNIFIED and os.path.isdir("/sys/fs/cgroup/unified")
only_v1 = pytest.mark.cgroup1
only_v2 = pytest.mark.cgroup2

PARENT = f"/sampan-test-cgroups-{os.getpid()}"
MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def parent() -> Iterator[None]:
    """The parent of all cgroups here; with the last test nothing of it is left."""
    yield
    cgroup = open_cgroup(PARENT)
    cgroup.kill()
    cgroup.delete()
    assert not cgroup.exists()


@pytest.fixture
def cgroup(request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    cgroup = open_cgroup(f"{PARENT}/{name}")
    yield cgroup
    cgroup.kill()
    cgroup.delete()
    assert not any(os.path.exists(path) for path in cgroup.paths().values())


Start = Callable[..., int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Run a function in a new process in a cgroup, the way a container gets there."""
    pids: list[int] = []

    def start(cgroup: Cgroup, body: Callable[[], object] = signal.pause) -> int:
        fd, gate = cgroup.clone_into(), cgroup.gate()
        begin, go = os.pipe()
        entered, tell = os.pipe()
        pid, pidfd = clone(0, cgroup_fd=-1 if fd is None else fd)
        if not pid:
            status = 77
            try:
                os.close(go)
                os.read(begin, 1)
                gate.enter()
                os.write(tell, b"x")
                status = int(bool(body()))
            finally:
                os._exit(status)
        os.close(pidfd)
        pids.append(pid)
        gate.close()
        if fd is not None:
            os.close(fd)
        cgroup.create()
        os.write(go, b"x")
        os.close(tell)
        assert os.read(entered, 1) == b"x"
        for end in (begin, go, entered):
            os.close(end)
        return pid

    yield start
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def read(cgroup: Cgroup, controller: str, file: str) -> str:
    paths = cgroup.paths()
    with open(f"{paths['' if UNIFIED else controller]}/{file}") as text:
        return text.read().strip()


def wait_exit(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_process_is_in_every_hierarchy(cgroup: Cgroup, start: Start) -> None:
    """Cloned into v2 and through the gate into v1, a process is where a container has to be."""
    pid = start(cgroup)
    with open(f"/proc/{pid}/cgroup") as file:
        paths = {line.split(":", 2)[2].strip() for line in file}
    assert paths == {cgroup.path}
    assert cgroup.processes() == [pid]


def test_gate_works_without_a_path_to_the_hierarchies(cgroup: Cgroup, start: Start) -> None:
    """A child behind pivot_root has only the gate's fds."""
    fd, gate = cgroup.clone_into(), cgroup.gate()
    cgroup.create()
    pid, pidfd = clone(0, cgroup_fd=-1 if fd is None else fd)
    if not pid:
        os.chroot("/proc/self/fdinfo")
        gate.enter()
        os._exit(0)
    os.close(pidfd)
    gate.close()
    if fd is not None:
        os.close(fd)
    assert wait_exit(pid) == 0


def test_many_first_starts_at_once() -> None:
    """Eight that make the same parent at the same time all get in, and all get out."""
    parent = f"{PARENT}/fresh"
    begin, go = os.pipe()
    pids = []
    for number in range(8):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                os.read(begin, 1)
                for turn in range(3):
                    status = _one_life(open_cgroup(f"{parent}/{number}-{turn}"))
                    if status:
                        break
            finally:
                os._exit(status)
        pids.append(pid)
    os.write(go, b"x" * 8)
    assert [wait_exit(pid) for pid in pids] == [0] * 8
    os.close(begin)
    os.close(go)
    for path in open_cgroup(parent).paths().values():
        assert [name for name in os.listdir(path) if "-" in name] == []


def _one_life(cgroup: Cgroup) -> int:
    fd, gate = cgroup.clone_into(), cgroup.gate()
    cgroup.create()
    cgroup.apply({"devices": [DENY_ALL], "pids": {"limit": 5}})
    pid, pidfd = clone(0, cgroup_fd=-1 if fd is None else fd)
    if not pid:
        gate.enter()
        os._exit(0 if cgroup.processes() == [os.getpid()] else 1)
    os.close(pidfd)
    gate.close()
    if fd is not None:
        os.close(fd)
    status = wait_exit(pid)
    cgroup.delete()
    return status


@only_v2
def test_no_room_for_a_cgroup(cgroup: Cgroup) -> None:
    """The message names the directory; nothing is left."""
    cgroup.create()
    cgroup.apply({"unified": {"cgroup.max.descendants": "0"}})
    below = open_cgroup(cgroup.path + "/below")
    with pytest.raises(RuntimeFailure, match=r"create cgroup /.*/below: ") as caught:
        below.create()
    assert caught.value.errno and caught.value.stage == "cgroup"
    assert not below.exists()


def test_gate_with_open_files_serves_another_user(cgroup: Cgroup) -> None:
    """A child in a user namespace has no right to open the files, but may write to open ones."""
    fd = cgroup.clone_into()
    cgroup.create()
    gate = cgroup.gate(made=True)
    pid, pidfd = clone(0, cgroup_fd=-1 if fd is None else fd)
    if not pid:
        os.setuid(65534)
        gate.enter()
        with open("/proc/self/cgroup") as file:
            paths = {line.split(":", 2)[2].strip() for line in file}
        os._exit(0 if paths == {cgroup.path} else 1)
    os.close(pidfd)
    gate.close()
    if fd is not None:
        os.close(fd)
    assert wait_exit(pid) == 0


@only_v2
def test_delegation(cgroup: Cgroup) -> None:
    """The directory and the files that the kernel says go to the user, limits do not."""
    cgroup.create()
    cgroup.delegate(65534)
    directory = cgroup.paths()[""]
    for name, owner in (("", 65534), ("cgroup.procs", 65534), ("memory.max", 0)):
        assert os.stat(f"{directory}/{name}").st_uid == owner


@only_v2
def test_parent_with_processes_is_named(cgroup: Cgroup, start: Start) -> None:
    """A cgroup with processes of its own cannot pass controllers on; the message says which."""
    start(cgroup)
    below = open_cgroup(cgroup.path + "/below")
    below.create()
    with pytest.raises(RuntimeFailure, match="memory cgroup controller is not enabled") as caught:
        below.apply({"memory": {"limit": 64 * MIB}})
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"{cgroup.paths()['']} has processes of its own")


def test_gate_before_create_fails_with_a_message(cgroup: Cgroup) -> None:
    if UNIFIED:
        pytest.skip("needs cgroup v1 controllers")
    gate = cgroup.gate()
    with pytest.raises(RuntimeFailure, match="enter cgroup"):
        gate.enter()
    gate.close()


def test_create_twice_and_delete_twice(cgroup: Cgroup) -> None:
    cgroup.create()
    cgroup.create()
    assert cgroup.exists()
    cgroup.delete()
    cgroup.delete()
    assert not cgroup.exists()


def test_add_moves_another_process(cgroup: Cgroup, start: Start) -> None:
    other = open_cgroup(cgroup.path + "-other")
    try:
        pid = start(other)
        cgroup.create()
        cgroup.add(pid)
        assert cgroup.processes() == [pid]
        assert other.processes() == []
    finally:
        cgroup.kill()
        other.delete()


def test_limits_are_set(cgroup: Cgroup) -> None:
    cgroup.create()
    cgroup.apply(
        {
            "memory": {"limit": 64 * MIB, "swap": 128 * MIB, "reservation": 32 * MIB},
            "cpu": {"shares": 512, "quota": 50000, "period": 200000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 100},
        }
    )
    if UNIFIED:
        expected = {
            "memory.max": str(64 * MIB),
            "memory.low": str(32 * MIB),
            "cpu.weight": "59",
            "cpu.max": "50000 200000",
            "cpuset.cpus": "0",
            "cpuset.mems": "0",
            "pids.max": "100",
        }
        if os.path.exists(cgroup.paths()[""] + "/memory.swap.max"):
            expected["memory.swap.max"] = str(64 * MIB)
    else:
        expected = {
            "memory.limit_in_bytes": str(64 * MIB),
            "memory.memsw.limit_in_bytes": str(128 * MIB),
            "memory.soft_limit_in_bytes": str(32 * MIB),
            "cpu.shares": "512",
            "cpu.cfs_quota_us": "50000",
            "cpu.cfs_period_us": "200000",
            "cpuset.cpus": "0",
            "pids.max": "100",
        }
    assert {file: read(cgroup, file.partition(".")[0], file) for file in expected} == expected


UPDATES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, str], dict[str, str]]] = [
    (
        "memory up, past the old memory+swap",
        {"memory": {"limit": 32 * MIB, "swap": 64 * MIB}},
        {"memory": {"limit": 128 * MIB, "swap": 256 * MIB}},
        {"memory.limit_in_bytes": str(128 * MIB), "memory.memsw.limit_in_bytes": str(256 * MIB)},
        {"memory.max": str(128 * MIB)},
    ),
    (
        "memory down, below the old memory",
        {"memory": {"limit": 128 * MIB, "swap": 256 * MIB}},
        {"memory": {"limit": 32 * MIB, "swap": 64 * MIB}},
        {"memory.limit_in_bytes": str(32 * MIB), "memory.memsw.limit_in_bytes": str(64 * MIB)},
        {"memory.max": str(32 * MIB)},
    ),
    (
        "memory lifted",
        {"memory": {"limit": 32 * MIB, "swap": 64 * MIB}},
        {"memory": {"limit": -1}},
        {"memory.limit_in_bytes": str((1 << 63) - 4096)},
        {"memory.max": "max"},
    ),
    (
        "quota without the period",
        {"cpu": {"quota": 20000, "period": 50000}},
        {"cpu": {"quota": 30000}},
        {"cpu.cfs_quota_us": "30000", "cpu.cfs_period_us": "50000"},
        {"cpu.max": "30000 50000"},
    ),
    (
        "period without the quota",
        {"cpu": {"quota": 20000, "period": 50000}},
        {"cpu": {"period": 100000}},
        {"cpu.cfs_quota_us": "20000", "cpu.cfs_period_us": "100000"},
        {"cpu.max": "20000 100000"},
    ),
    (
        "burst under a smaller quota",
        {"cpu": {"quota": 50000, "period": 100000, "burst": 40000}},
        {"cpu": {"quota": 20000, "burst": 10000}},
        {"cpu.cfs_quota_us": "20000", "cpu.cfs_burst_us": "10000"},
        {"cpu.max": "20000 100000", "cpu.max.burst": "10000"},
    ),
    (
        "quota lifted",
        {"cpu": {"quota": 20000, "period": 50000}},
        {"cpu": {"quota": -1}},
        {"cpu.cfs_quota_us": "-1"},
        {"cpu.max": "max 50000"},
    ),
    (
        "pids lifted",
        {"pids": {"limit": 20}},
        {"pids": {"limit": -1}},
        {"pids.max": "max"},
        {"pids.max": "max"},
    ),
]


@pytest.mark.parametrize(
    ("first", "second", "v1", "v2"), [case[1:] for case in UPDATES], ids=[c[0] for c in UPDATES]
)
def test_update(
    cgroup: Cgroup,
    first: dict[str, Any],
    second: dict[str, Any],
    v1: dict[str, str],
    v2: dict[str, str],
) -> None:
    """Limits change in whatever order the kernel needs."""
    cgroup.create()
    cgroup.apply(first)
    cgroup.apply(second)
    expected = v2 if UNIFIED else v1
    assert {file: read(cgroup, file.partition(".")[0], file) for file in expected} == expected


def test_refusal_names_file_and_value(cgroup: Cgroup) -> None:
    cgroup.create()
    with pytest.raises(RuntimeFailure, match=r"write '4096' to .*cpuset\.cpus") as caught:
        cgroup.apply({"cpu": {"cpus": "4096"}})
    assert caught.value.stage == "cgroup"
    assert caught.value.path is not None and caught.value.path.endswith("/cpuset.cpus")
    assert caught.value.errno


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"blockIo": {}}, "unknown resource 'blockIo'"),
        ({"network": {"classID": 1}}, "net_cls|network classes"),
        ({"unified": {"nosuch.max": "1"}}, "nosuch"),
        ({"unified": {"../../x": "1"}}, "invalid name"),
        ({"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}, "invalid huge page size"),
        ({"devices": [{"allow": True, "access": "x"}]}, "invalid access"),
    ],
    ids=str,
)
def test_impossible_resources(cgroup: Cgroup, resources: dict[str, Any], message: str) -> None:
    cgroup.create()
    with pytest.raises(RuntimeFailure, match=message):
        cgroup.apply(resources)


@only_v1
@pytest.mark.skipif(not HYBRID, reason="needs a v2 tree beside the v1 hierarchies")
def test_unified_resources_in_the_hybrid_layout(cgroup: Cgroup) -> None:
    """What the v2 tree has, `unified` sets there, and its controllers are enabled down the path."""
    cgroup.create()
    cgroup.apply({"unified": {"cgroup.max.depth": "3"}})
    with open(cgroup.paths()[""] + "/cgroup.max.depth") as file:
        assert file.read() == "3\n"
    with open("/sys/fs/cgroup/unified/cgroup.controllers") as file:
        if "hugetlb" in file.read().split():
            cgroup.apply({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]})
            with open(cgroup.paths()[""] + "/hugetlb.2MB.max") as text:
                assert text.read() == f"{4 * MIB}\n"


@only_v2
def test_unified_resources(cgroup: Cgroup) -> None:
    cgroup.create()
    cgroup.apply({"unified": {"memory.high": str(32 * MIB), "pids.max": "50"}})
    assert read(cgroup, "", "memory.high") == str(32 * MIB)
    assert read(cgroup, "", "pids.max") == "50"


def can_open(device: tuple[str, int, int], flags: int) -> bool:
    """Whether a device can be opened; other errors than EPERM (no such device) mean yes.

    Of the file systems that are everywhere only /dev is surely without `nodev`.
    """
    kind, major, minor = device
    path = f"/dev/sampan-test-{os.getpid()}"
    if os.path.exists(path):
        os.unlink(path)
    os.mknod(path, (0o020000 if kind == "c" else 0o060000) | 0o600, os.makedev(major, minor))
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:
        return False
    except OSError:
        return True
    finally:
        os.unlink(path)
    return True


def look(cgroup: Cgroup, start: Start, body: Callable[[], object]) -> Any:
    """What `body` returns when it runs in the cgroup."""
    reading, writing = os.pipe()
    pid = start(cgroup, lambda: os.write(writing, json.dumps(body()).encode()) and 0)
    os.close(writing)
    answer = json.loads(os.read(reading, 65536))
    os.close(reading)
    wait_exit(pid)
    return answer


NULL, ZERO, KMSG, LOOP = ("c", 1, 3), ("c", 1, 5), ("c", 1, 11), ("b", 7, 0)
DENY_ALL = {"allow": False, "access": "rwm"}


def rule(device: tuple[str, int, int], access: str, allow: bool = True) -> dict[str, Any]:
    kind, major, minor = device
    return {"allow": allow, "type": kind, "major": major, "minor": minor, "access": access}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([DENY_ALL], [True, False, False, False]),
        ([DENY_ALL, rule(KMSG, "rwm")], [True, True, True, False]),
        ([DENY_ALL, rule(KMSG, "r")], [True, True, False, False]),
        ([DENY_ALL, rule(KMSG, "rw"), rule(KMSG, "w", False)], [True, True, False, False]),
        ([{"allow": True, "access": "rwm"}], [True, True, True, True]),
        ([{"allow": True, "access": "rwm"}, rule(LOOP, "rw", False)], [True, True, True, False]),
        (
            [DENY_ALL, {"allow": True, "type": "b", "access": "rwm"}],
            [True, False, False, True],
        ),
    ],
)
def test_devices(
    cgroup: Cgroup, start: Start, rules: list[dict[str, Any]], expected: list[bool]
) -> None:
    """The last rule that matches decides; null is always there; mknod alone is harmless."""

    def body() -> list[bool]:
        return [
            can_open(NULL, os.O_RDWR),
            can_open(KMSG, os.O_RDONLY),
            can_open(KMSG, os.O_WRONLY),
            can_open(LOOP, os.O_RDONLY),
        ]

    cgroup.create()
    cgroup.apply({"devices": rules})
    assert look(cgroup, start, body) == expected


def test_device_rules_can_be_changed(cgroup: Cgroup, start: Start) -> None:
    cgroup.create()
    cgroup.apply({"devices": [DENY_ALL, rule(KMSG, "r")]})
    cgroup.apply({"devices": [DENY_ALL, rule(LOOP, "r")]})
    cgroup.apply({"pids": {"limit": 10}})
    seen = look(cgroup, start, lambda: [can_open(KMSG, os.O_RDONLY), can_open(LOOP, os.O_RDONLY)])
    assert seen == [False, True]


def test_pids_limit_holds(cgroup: Cgroup, start: Start) -> None:
    def body() -> bool:
        try:
            for _ in range(3):
                if not os.fork():
                    os._exit(signal.sigwait([signal.SIGTERM]))
        except BlockingIOError:
            return True
        return False

    cgroup.create()
    cgroup.apply({"pids": {"limit": 2}})
    assert look(cgroup, start, body) is True
    assert cgroup.stats().pids_limit == 2


def test_out_of_memory_is_counted(cgroup: Cgroup, start: Start) -> None:
    def body() -> int:
        return len(bytearray(b"x") * (256 * MIB))

    cgroup.create()
    cgroup.apply({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}})
    assert cgroup.oom_kills() == 0
    assert wait_exit(start(cgroup, body)) == -signal.SIGKILL
    assert cgroup.oom_kills() == 1
    stats = cgroup.stats()
    assert stats.oom_kills == 1
    assert stats.memory_limit_bytes == 16 * MIB
    assert 8 * MIB < stats.memory_maximum_bytes <= 16 * MIB or stats.memory_maximum_bytes == 0


def test_freeze_and_thaw(cgroup: Cgroup, start: Start) -> None:
    """A frozen process makes no step; the next one comes with thaw."""
    reading, writing = os.pipe()

    def body() -> None:
        while os.write(writing, b"."):
            select.select([], [], [], 0.002)

    start(cgroup, body)
    os.close(writing)
    assert not cgroup.frozen()
    cgroup.freeze()
    assert cgroup.frozen()
    os.set_blocking(reading, False)
    while True:
        try:
            os.read(reading, 65536)
        except BlockingIOError:
            break
    assert not select.select([reading], [], [], 0.05)[0]
    cgroup.thaw()
    assert not cgroup.frozen()
    assert select.select([reading], [], [], 5)[0]
    os.close(reading)


def fork_bomb() -> None:
    """Processes that fork all the time and ignore what can be ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        try:
            os.fork()
        except BlockingIOError:
            select.select([], [], [], 0.001)


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_kill_gets_everyone(cgroup: Cgroup, start: Start, frozen: bool) -> None:
    """Nobody forks past the kill, and who is frozen dies as well."""
    cgroup.create()
    cgroup.apply({"pids": {"limit": 40}})
    start(cgroup, fork_bomb)
    wait_for(lambda: len(cgroup.processes()) >= 40, "forty processes")
    if frozen:
        cgroup.freeze()
    cgroup.kill()
    cgroup.delete()
    assert cgroup.processes() == []


def test_kill_without_the_v2_tree(cgroup: Cgroup, start: Start) -> None:
    """Processes that are in the v1 hierarchies only are found and killed too."""
    if not HYBRID:
        pytest.skip("needs a v2 tree beside the v1 hierarchies")
    pid = start(cgroup)
    with open("/sys/fs/cgroup/unified/cgroup.procs", "w") as file:
        file.write(str(pid))
    cgroup.kill()
    assert wait_exit(pid) == -signal.SIGKILL


def test_signal_goes_to_all(cgroup: Cgroup, start: Start) -> None:
    pids = [start(cgroup) for _ in range(3)]
    cgroup.kill(signal.SIGUSR1)
    assert [wait_exit(pid) for pid in pids] == [-signal.SIGUSR1] * 3


def test_kill_and_state_of_a_cgroup_that_is_gone(cgroup: Cgroup) -> None:
    cgroup.kill()
    assert not cgroup.frozen()
    assert cgroup.processes() == []
    assert cgroup.oom_kills() == 0
    cgroup.delete()


def test_delete_takes_cgroups_below_along(cgroup: Cgroup, start: Start) -> None:
    """A container may have made its own cgroups; processes in them are killed and counted."""
    below = open_cgroup(cgroup.path + "/a/b")
    cgroup.create()
    pid = start(below)
    assert cgroup.processes() == [pid]
    assert cgroup.processes(recursive=False) == []
    cgroup.kill()
    cgroup.delete()
    assert wait_exit(pid) == -signal.SIGKILL
    assert not below.exists()


def test_delete_refuses_while_processes_live(
    cgroup: Cgroup, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = start(cgroup)
    for version in ("v1", "v2"):
        monkeypatch.setattr(f"sampan.linux.cgroups.{version}._DELETE_S", 0.05)
    with pytest.raises(RuntimeFailure, match=rf"processes are in it: {pid} \("):
        cgroup.delete()
    monkeypatch.undo()


def test_stats_count(cgroup: Cgroup, start: Start) -> None:
    def body() -> None:
        sum(range(300_000))
        signal.pause()

    pid = start(cgroup, body)
    wait_for(lambda: cgroup.stats().cpu_ns > 1_000_000, "a millisecond of CPU time")
    stats = cgroup.stats()
    assert stats.version == (2 if UNIFIED else 1)
    assert stats.pids == 1
    assert stats.pids_limit == -1
    assert stats.memory_limit_bytes == -1
    assert stats.memory_usage_bytes > 0
    assert "pgfault" in stats.memory
    os.kill(pid, signal.SIGKILL)


def test_every_fd_is_closed(cgroup: Cgroup, start: Start) -> None:
    before = os.listdir("/proc/self/fd")
    cgroup.create()
    cgroup.apply({"devices": [DENY_ALL], "memory": {"limit": 64 * MIB}})
    start(cgroup)
    cgroup.freeze()
    cgroup.stats()
    cgroup.kill()
    cgroup.delete()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("path", ["", "/", "/a/../b", "../a", "/a/./b", "/a\nb", "a\0b"])
def test_hostile_paths_are_refused(path: str) -> None:
    with pytest.raises(RuntimeFailure, match="invalid cgroup path"):
        open_cgroup(path)


def test_mode_is_what_is_mounted() -> None:
    assert mode() == ("unified" if UNIFIED else "hybrid" if HYBRID else "legacy")


def test_relative_path_counts_from_the_own_cgroup() -> None:
    with open("/proc/self/cgroup") as file:
        own = {line.split(":")[1]: line.strip().split(":", 2)[2] for line in file}
    cgroup = open_cgroup("sampan-test-relative")
    if UNIFIED:
        above = own[""].rpartition("/")[0]
        assert cgroup.paths() == {"": f"/sys/fs/cgroup{above}/sampan-test-relative"}
    else:
        base = own["memory"].rstrip("/")
        assert cgroup.paths()["memory"] == f"/sys/fs/cgroup/memory{base}/sampan-test-relative"
