"""Cgroup layouts, paths, limits and device rules as values: tables, no kernel."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import RuntimeFailure, Unsupported
from sampan.linux import ebpf
from sampan.linux.cgroups import devices, layout, scope, stats, tree, v1_resources, v2_resources
from sampan.linux.cgroups.devices import ALL_ACCESS, ANY, MKNOD, READ, WRITE, Rule
from sampan.linux.cgroups.manager import check_path, pick

# -- layouts -----------------------------------------------------------------------------------

V1_LINES = """\
30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/systemd rw shared:5 - cgroup cgroup rw,xattr,name=systemd
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 30 0:29 / /mnt/with\\040space rw - cgroup cgroup rw,memory
"""
V2_LINE = "35 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"


def test_legacy_layout() -> None:
    found = layout.parse_layout(V1_LINES)
    assert found.mode == "legacy"
    assert {each.controllers: (each.root, each.mount_root) for each in found.hierarchies} == {
        ("name=systemd",): ("/sys/fs/cgroup/systemd", "/"),
        ("cpu", "cpuacct"): ("/sys/fs/cgroup/cpu,cpuacct", "/"),
        ("memory",): ("/sys/fs/cgroup/memory", "/docker/abc"),
    }


def test_hybrid_layout() -> None:
    found = layout.parse_layout(V1_LINES + V2_LINE)
    assert (found.mode, found.unified) == ("hybrid", "/sys/fs/cgroup/unified")


def test_unified_layout() -> None:
    text = "35 30 0:30 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    found = layout.parse_layout(text)
    assert (found.mode, found.unified, found.hierarchies) == ("unified", "/sys/fs/cgroup", ())


def test_standard_mount_wins_whatever_the_order() -> None:
    text = "34 30 0:29 / /a\\040b rw - cgroup c rw,memory\n" + V1_LINES
    roots = {each.controllers: each.root for each in layout.parse_layout(text).hierarchies}
    assert roots[("memory",)] == "/sys/fs/cgroup/memory"
    alone = layout.parse_layout("34 30 0:29 / /a\\040b rw - cgroup c rw,memory\n")
    assert alone.hierarchies[0].root == "/a b"


def test_nothing_mounted() -> None:
    with pytest.raises(Unsupported, match="no cgroup hierarchy"):
        layout.parse_layout("30 23 0:26 / / rw - ext4 /dev/vda rw\n")


def test_own_cgroup() -> None:
    own = layout.parse_own("5:cpu,cpuacct:/a\n4:memory:/docker/abc/x\n1:name=systemd:/\n0::/b:c\n")
    assert own["cpuacct"] == "/a" and own[""] == "/b:c" and own["name=systemd"] == "/"
    assert layout.own_path(own, ("memory",), "/docker/abc") == "/x"
    assert layout.own_path(own, ("memory",), "/docker/ab") == "/docker/abc/x"
    assert layout.own_path(own, ("name=systemd",), "/") == ""


def test_co_mounted_controllers_share_a_directory() -> None:
    cgroup = pick(layout.parse_layout(V1_LINES), "/sampan/x", {})
    assert cgroup.paths()["cpu"] == cgroup.paths()["cpuacct"]
    assert cgroup.paths()["cpu"] == "/sys/fs/cgroup/cpu,cpuacct/sampan/x"


def test_paths_are_made_plain() -> None:
    assert check_path("//a///b/") == "/a/b"


# -- systemd's paths ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("system.slice:docker:abc", ("docker-abc.scope", "/system.slice/docker-abc.scope")),
        (":docker:abc", ("docker-abc.scope", "/system.slice/docker-abc.scope")),
        ("a-b.slice:c:d", ("c-d.scope", "/a.slice/a-b.slice/c-d.scope")),
        ("-.slice::d", ("d.scope", "/d.scope")),
        ("user.slice:x:y.slice", ("y.slice", "/y.slice")),
    ],
)
def test_scopes(path: str, expected: tuple[str, str]) -> None:
    assert scope.unit_path(path) == expected


@pytest.mark.parametrize("path", ["abc", "a:b", "a:b:", "a.slice:b:../c", "a/b.slice:c:d", "x:y:z"])
def test_bad_scopes(path: str) -> None:
    with pytest.raises(RuntimeFailure, match="slice"):
        scope.unit_path(path)


@pytest.mark.parametrize("name", ["a", ".slice", "-a.slice", "a--b.slice", "a-.slice"])
def test_bad_slices(name: str) -> None:
    with pytest.raises(RuntimeFailure, match="invalid slice name"):
        scope.expand_slice(name)


# -- processes ---------------------------------------------------------------------------------


def test_processes_that_cannot_be_seen_are_not_signalled(tmp_path: Path) -> None:
    """0 in cgroup.procs is a process of a namespace above; kill(0) would be our own group."""
    (tmp_path / "below").mkdir()
    (tmp_path / "cgroup.procs").write_text("0\n7\n")
    (tmp_path / "below" / "cgroup.procs").write_text("0\n8\n")
    assert tree.processes(str(tmp_path), True) == [7, 8]
    assert tree.processes(str(tmp_path / "gone"), True) == []


# -- limits ------------------------------------------------------------------------------------


def v1(resources: dict[str, Any], *files: str) -> list[tuple[str, str]]:
    """(file, value) of v1, on a kernel that has `files`."""
    found = v1_resources.settings(resources, lambda controller, file: file in files)
    assert all(file.split(".")[0] == controller for controller, file, _ in found)
    return [(file, value) for _, file, value in found]


def v2(resources: dict[str, Any], **files: str) -> list[tuple[str, str]]:
    """(file, value) of v2, where `files` has the text of those that are there."""
    return v2_resources.settings(resources, lambda file: files.get(file.replace(".", "_")))


def device(**more: int) -> list[dict[str, int]]:
    return [{"major": 8, "minor": 16, **more}]


@pytest.mark.parametrize(
    ("resources", "one", "two"),
    [
        ({}, [], []),
        ({"memory": None, "cpu": None, "blockIO": None}, [], []),
        (
            {"memory": {"limit": 100, "swap": 300}},
            [("memory.limit_in_bytes", "100"), ("memory.memsw.limit_in_bytes", "300")],
            [("memory.swap.max", "200"), ("memory.max", "100")],
        ),
        (
            {"memory": {"limit": 100, "swap": 100}},
            [("memory.limit_in_bytes", "100"), ("memory.memsw.limit_in_bytes", "100")],
            [("memory.swap.max", "0"), ("memory.max", "100")],
        ),
        (
            {"memory": {"limit": 100, "swap": -1}},
            [("memory.limit_in_bytes", "100"), ("memory.memsw.limit_in_bytes", "-1")],
            [("memory.swap.max", "max"), ("memory.max", "100")],
        ),
        (
            {"memory": {"limit": -1}},
            [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")],
            [("memory.swap.max", "max"), ("memory.max", "max")],
        ),
        (
            {"memory": {"reservation": -1, "kernel": 5}},
            [("memory.soft_limit_in_bytes", "-1")],
            [("memory.low", "0")],
        ),
        (
            {"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}},
            [],
            [],
        ),
        (
            {"cpu": {"quota": -1, "period": 50000}},
            [("cpu.cfs_period_us", "50000"), ("cpu.cfs_quota_us", "-1")],
            [("cpu.max", "max 50000")],
        ),
        ({"cpu": {"idle": 1, "shares": 5}}, None, [("cpu.idle", "1")]),
        ({"pids": {"limit": 0}}, [("pids.max", "0")], [("pids.max", "0")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")], [("pids.max", "max")]),
        (
            {"blockIO": {"throttleReadBpsDevice": device(rate=5)}},
            [("blkio.throttle.read_bps_device", "8:16 5")],
            [("io.max", "8:16 rbps=5")],
        ),
        (
            {"blockIO": {"throttleWriteIOPSDevice": device(rate=0)}},
            [("blkio.throttle.write_iops_device", "8:16 0")],
            [("io.max", "8:16 wiops=max")],
        ),
        (
            {"blockIO": {"weight": 500, "weightDevice": device(weight=10)}},
            [("blkio.weight", "500"), ("blkio.weight_device", "8:16 10")],
            [("io.weight", "default 4950"), ("io.weight", "8:16 1")],
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 4096}]},
            [("hugetlb.2MB.limit_in_bytes", "4096")],
            [("hugetlb.2MB.max", "4096")],
        ),
        (
            {"rdma": {"mlx": {"hcaHandles": 3, "hcaObjects": 0}}},
            [("rdma.max", "mlx hca_handle=3 hca_object=0")],
            [("rdma.max", "mlx hca_handle=3 hca_object=0")],
        ),
    ],
)
def test_limits(
    resources: dict[str, Any],
    one: list[tuple[str, str]] | None,
    two: list[tuple[str, str]] | None,
) -> None:
    if one is not None:
        assert v1(resources, "memory.memsw.limit_in_bytes") == one
    if two is not None:
        assert v2(resources, memory_swap_max="0") == two


def test_v1_only_limits() -> None:
    found = v1(
        {
            "memory": {"swappiness": 0, "disableOOMKiller": True, "kernelTCP": 7},
            "network": {"classID": 9, "priorities": [{"name": "eth0", "priority": 3}]},
        }
    )
    assert found == [
        ("memory.kmem.tcp.limit_in_bytes", "7"),
        ("memory.oom_control", "1"),
        ("memory.swappiness", "0"),
        ("net_cls.classid", "9"),
        ("net_prio.ifpriomap", "eth0 3"),
    ]


@pytest.mark.parametrize(
    "resources",
    [
        {"memory": {"swappiness": 0}},
        {"memory": {"disableOOMKiller": True}},
        {"memory": {"kernelTCP": 7}},
        {"cpu": {"realtimeRuntime": 7}},
        {"blockIO": {"leafWeight": 7}},
        {"network": {"classID": 7}},
    ],
    ids=str,
)
def test_v2_refuses_what_it_cannot_do(resources: dict[str, Any]) -> None:
    with pytest.raises(RuntimeFailure, match="cgroup v2 does not have"):
        v2(resources)


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        ({"swap": 100}, "without memory limit"),
        ({"limit": -1, "swap": 100}, "without memory limit"),
        ({"limit": 200, "swap": 100}, "below memory limit"),
        ({"limit": 5, "checkBeforeUpdate": True}, "below the current usage, 9"),
    ],
)
def test_v2_memory_that_cannot_be(memory: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeFailure, match=message):
        v2({"memory": memory}, memory_current="9\n")


def test_v2_without_swap_accounting() -> None:
    """A limit that changes nothing is dropped, one that would is tried and then refused."""
    assert v2({"memory": {"limit": 5, "swap": 5}}) == [("memory.max", "5")]
    assert ("memory.swap.max", "2") in v2({"memory": {"limit": 5, "swap": 7}})


def test_v1_swappiness_out_of_range() -> None:
    with pytest.raises(RuntimeFailure, match="from 0 to 100"):
        v1({"memory": {"swappiness": 101}})


@pytest.mark.parametrize(
    ("shares", "weight"), [(0, 1), (2, 1), (256, 35), (512, 59), (1024, 100), (262144, 10000)]
)
def test_cpu_weight(shares: int, weight: int) -> None:
    assert v2_resources.cpu_weight(shares) == weight


@given(st.integers(0, 300_000), st.integers(0, 300_000))
def test_cpu_weight_is_monotonic(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert 1 <= v2_resources.cpu_weight(low) <= v2_resources.cpu_weight(high) <= 10000


def test_bfq_takes_v1_weights() -> None:
    block = {"blockIO": {"weight": 500}}
    assert v2(block, io_bfq_weight="default 100") == [("io.bfq.weight", "default 500")]
    assert v1(block, "blkio.bfq.weight") == [("blkio.bfq.weight", "500")]


def test_reservation_of_huge_pages_where_the_kernel_has_it() -> None:
    limits = {"hugepageLimits": [{"pageSize": "1GB", "limit": 1}]}
    assert v1(limits, "hugetlb.1GB.rsvd.limit_in_bytes")[1][0] == "hugetlb.1GB.rsvd.limit_in_bytes"
    assert v2(limits, hugetlb_1GB_rsvd_max="max")[1][0] == "hugetlb.1GB.rsvd.max"


def test_unified_is_written_line_by_line() -> None:
    text = "259:0 rbps=1\n253:0 wiops=2"
    assert v2({"unified": {"io.max": text}}) == [("io.max", line) for line in text.splitlines()]


@pytest.mark.parametrize("file", ["a/b.max", "..", ".", "", "plain", "../memory.max", "a.b\0"])
def test_unified_names_are_files_of_the_cgroup(file: str) -> None:
    with pytest.raises(RuntimeFailure, match="invalid name"):
        v2({"unified": {file: "1"}})


# -- device rules ------------------------------------------------------------------------------

DEFAULTS = {(rule.kind, rule.major, rule.minor): rule.access for rule in devices.DEFAULT_RULES}
DENY_ALL = Rule(False, "a", ANY, ANY, ALL_ACCESS)
ALLOW_ALL = Rule(True, "a", ANY, ANY, ALL_ACCESS)


def test_rules_are_parsed_and_get_the_defaults() -> None:
    found = devices.parse_rules(
        [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 10, "access": "wr"},
            {"allow": True, "major": 4, "minor": -1},
            {"allow": True, "type": "u", "major": 1, "minor": 2, "access": "m"},
        ]
    )
    assert found[: -len(devices.DEFAULT_RULES)] == [
        DENY_ALL,
        Rule(True, "c", 10, ANY, READ | WRITE),
        Rule(True, "b", 4, ANY, ALL_ACCESS),
        Rule(True, "c", 4, ANY, ALL_ACCESS),
        Rule(True, "c", 1, 2, MKNOD),
    ]


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "x"},
        {"type": "c", "access": "rx"},
        {"type": "c", "major": -2},
        {"type": "c", "minor": 1 << 32},
        {"type": "c", "minor": "1"},
    ],
    ids=str,
)
def test_bad_rules(entry: dict[str, Any]) -> None:
    with pytest.raises(RuntimeFailure, match="in a device rule"):
        devices.parse_rules([{"allow": True, **entry}])


def test_narrowing_a_wider_rule_is_refused_on_v1() -> None:
    rules = [DENY_ALL, Rule(True, "c", 1, ANY, READ), Rule(False, "c", 1, 11, READ)]
    with pytest.raises(RuntimeFailure, match="cannot express the device rule <deny c 1:11 r>"):
        devices.to_exceptions(rules)


def test_changes_from_everything_allowed() -> None:
    current = devices.parse_list("a *:* rwm\n")
    target = devices.to_exceptions([DENY_ALL, Rule(True, "c", 1, 3, READ | WRITE)])
    assert devices.changes(current, target) == [
        ("devices.deny", "a"),
        ("devices.allow", "c 1:3 rw"),
    ]


def test_changes_between_lists_allow_before_they_deny() -> None:
    current = devices.parse_list("c 1:3 rwm\nb *:* m\nc 136:* rw\n")
    target = devices.to_exceptions(
        [
            DENY_ALL,
            Rule(True, "c", 1, 3, READ),
            Rule(True, "c", 5, 0, READ),
            Rule(True, "b", ANY, ANY, MKNOD),
        ]
    )
    assert devices.changes(current, target) == [
        ("devices.allow", "c 5:0 r"),
        ("devices.deny", "c 1:3 wm"),
        ("devices.deny", "c 136:* rw"),
    ]


def test_changes_to_everything_allowed() -> None:
    everything = devices.to_exceptions([DENY_ALL, ALLOW_ALL])
    assert devices.changes(devices.parse_list("a *:* rwm\n"), everything) == []
    assert devices.changes(devices.parse_list("c 1:3 rwm\n"), everything) == [
        ("devices.allow", "a")
    ]


# -- the same rules as an eBPF program: interpreted here and compared with a plain reading --------

kinds = st.sampled_from("bc")
numbers = st.sampled_from([ANY, 0, 1, 2, 0xFFFFFFFF])
masks = st.integers(1, ALL_ACCESS)
rules = st.lists(
    st.one_of(
        st.builds(Rule, st.booleans(), kinds, numbers, numbers, masks),
        st.sampled_from([DENY_ALL, ALLOW_ALL]),
    ),
    max_size=8,
)


def by_the_book(rules: list[Rule], kind: str, major: int, minor: int, access: int) -> bool:
    """Each bit by the last rule that matches the device and covers the bit."""
    for bit in (MKNOD, READ, WRITE):
        if not access & bit:
            continue
        verdict = False
        for rule in rules:
            if (
                rule.kind in ("a", kind)
                and rule.major in (ANY, major)
                and rule.minor in (ANY, minor)
                and rule.access & bit
            ):
                verdict = rule.allow
        if not verdict:
            return False
    return True


def interpret(code: bytes, kind: str, major: int, minor: int, access: int) -> int:
    """Run the program as bpf's instruction set says."""
    context = [access << 16 | {"b": 1, "c": 2}[kind], major, minor]
    registers = [0] * 11
    program = list(struct.iter_unpack("<BBhI", code))
    at = steps = 0
    while True:
        opcode, pair, offset, value = program[at]
        target, source = pair & 15, pair >> 4
        at += 1
        steps += 1
        assert steps < 1000
        match opcode:
            case 0x61:
                registers[target] = context[offset // 4]
            case 0xBC:
                registers[target] = registers[source] & 0xFFFFFFFF
            case 0x54 | 0x57:
                registers[target] &= value
            case 0x74:
                registers[target] = (registers[target] & 0xFFFFFFFF) >> value
            case 0xB7:
                registers[target] = value
            case 0x05:
                at += offset
            case 0x45:
                at += offset if registers[target] & value else 0
            case 0x55 | 0x56:
                at += offset if registers[target] != value else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"opcode {opcode:#x}")


@given(rules, kinds, st.sampled_from([0, 1, 2, 3]), st.sampled_from([0, 1, 2, 3]), masks)
def test_program_decides_as_the_rules_do(
    rules: list[Rule], kind: str, major: int, minor: int, access: int
) -> None:
    got = interpret(ebpf.device_program(rules), kind, major, minor, access)
    assert got == by_the_book(rules, kind, major, minor, access)


@given(rules, kinds, st.sampled_from([0, 1, 2, 3]), st.sampled_from([0, 1, 2, 3]), masks)
def test_v1_form_decides_as_the_rules_do(
    rules: list[Rule], kind: str, major: int, minor: int, access: int
) -> None:
    """Where v1 can express the rules it means the same."""
    try:
        state = devices.to_exceptions(rules)
    except RuntimeFailure:
        return
    bits = 0
    for (other, *numbers), mask in state.entries.items():
        if other == kind and numbers[0] in (ANY, major) and numbers[1] in (ANY, minor):
            bits |= mask
    denied = access & bits if state.allow_default else access & ~bits
    assert (not denied) == by_the_book(rules, kind, major, minor, access)


# -- figures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [(None, -1), ("max\n", -1), ("9223372036854771712\n", -1), ("0\n", 0), ("4096\n", 4096)],
)
def test_limit_values(text: str | None, value: int) -> None:
    assert stats.limit(text) == value


def test_flat_keyed_files() -> None:
    assert stats.flat_keyed("a 1\nb max\n\nc 3\n") == {"a": 1, "c": 3}
    assert stats.flat_keyed(None) == {}
