"""Docker's seccomp profiles become OCI's, by capabilities, architecture and kernel."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.builders import make_record
from sampan.engine.model import HostConfig
from sampan.engine.seccomp import KEPT, UNUSED_KEPT_S, Profiles
from sampan.engine.seccomp_profile import Machine, default_profile, kernel_version, parse_profile
from sampan.errors import InvalidArgument
from sampan.linux import seccomp

AMD64 = Machine("x86_64", "6.1.0-40-amd64")
ARM64 = Machine("aarch64", "6.12.1")
OLD = Machine("x86_64", "4.7.3")

DOCKER_CAPABILITIES = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
]
ALL_CAPABILITIES = [
    f"CAP_{name}"
    for name in [
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_CHROOT",
        "SYS_MODULE",
        "SYS_PACCT",
        "SYS_PTRACE",
        "SYS_RAWIO",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "SYS_NICE",
        "SYSLOG",
        "BPF",
        "PERFMON",
        "DAC_READ_SEARCH",
    ]
]


def allowed(profile: dict[str, Any]) -> set[str]:
    """Calls that are allowed whatever their arguments."""
    return {
        name
        for entry in profile["syscalls"]
        if entry["action"] == "SCMP_ACT_ALLOW" and not entry.get("args")
        for name in entry["names"]
    }


def test_default_for_dockers_capabilities() -> None:
    profile = default_profile(DOCKER_CAPABILITIES, AMD64)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert profile["defaultErrnoRet"] == errno.EPERM
    assert profile["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    names = allowed(profile)
    assert {"openat", "ptrace", "chroot", "arch_prctl", "modify_ldt"} <= names
    assert not {"mount", "bpf", "reboot", "clone", "arm_fadvise64_64", "acct"} & names
    (clone3,) = (e for e in profile["syscalls"] if e["names"] == ["clone3"])
    assert clone3 == {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}


@pytest.mark.parametrize(
    ("capability", "call"),
    [
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_ADMIN", "clone3"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_PTRACE", "kcmp"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_BPF", "bpf"),
        ("CAP_SYSLOG", "syslog"),
    ],
)
def test_capabilities_open_calls(capability: str, call: str) -> None:
    assert call in allowed(default_profile([*DOCKER_CAPABILITIES, capability], AMD64))
    assert call not in allowed(default_profile(DOCKER_CAPABILITIES, AMD64))


def test_architecture_and_kernel_decide() -> None:
    arm = default_profile(DOCKER_CAPABILITIES, ARM64)
    assert arm["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert "arm_fadvise64_64" in allowed(arm) and "modify_ldt" not in allowed(arm)
    assert "ptrace" not in allowed(default_profile(DOCKER_CAPABILITIES, OLD))


def test_profile_is_the_callers() -> None:
    """Changing one does not change the next."""
    default_profile(DOCKER_CAPABILITIES, AMD64)["syscalls"].clear()
    assert default_profile(DOCKER_CAPABILITIES, AMD64)["syscalls"]


def test_default_profile_fits_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    specs = Path(os.environ.get("SAMPAN_SPECS", "/work/shared/specs")) / "oci-runtime"
    if not specs.is_dir():
        pytest.skip("needs the OCI runtime schemas")
    linux = json.loads((specs / "defs-linux.json").read_text())
    entry = linux["definitions"]["Syscall"]
    assert entry["required"] == ["names", "action"]
    profile = default_profile(DOCKER_CAPABILITIES, AMD64)
    actions = linux["definitions"]["SeccompAction"]["enum"]
    for each in profile["syscalls"]:
        jsonschema.validate(each["action"], {"enum": actions})
        assert set(each) <= set(entry["properties"])
    arches = linux["definitions"]["SeccompArch"]["enum"]
    assert set(profile["architectures"]) <= set(arches)


def test_docker_form_and_oci_form() -> None:
    docker = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"name": "mkdir", "action": "SCMP_ACT_ERRNO", "args": [], "comment": "x"},
            {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_CHOWN"]}},
        ],
    }
    oci = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}],
    }
    assert parse_profile(json.dumps(docker), ["CAP_CHOWN"], AMD64) == oci
    assert parse_profile(json.dumps(oci), [], AMD64) == oci


def test_flags_and_listener_stay() -> None:
    text = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/run/x",
        "listenerMetadata": "y",
    }
    assert parse_profile(json.dumps(text), [], AMD64) == {**text, "syscalls": []}


BAD: list[tuple[str, str]] = [
    ("{", "Decoding seccomp profile failed"),
    ("[]", "Decoding seccomp profile failed"),
    ("{}", "defaultAction is missing"),
    (
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], '
            '"archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}'
        ),
        "use either 'architectures' or 'archMap'",
    ),
    (
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", '
            '"syscalls": [{"name": "a", "names": ["b"], "action": "SCMP_ACT_ALLOW"}]}'
        ),
        "use either 'name' or 'names'",
    ),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "x"}]}', "without names"),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [1], "action": "x"}]}', "names"),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [7]}', "Decoding seccomp profile failed"),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"]}]}', "Decoding"),
    (
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": '
            '[{"names": ["a"], "action": "x", "includes": {"minKernel": "new"}}]}'
        ),
        "invalid kernel version",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_profiles(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse_profile(text, [], AMD64)


@pytest.mark.parametrize(
    ("text", "expected"), [("6.1.0-40-amd64", (6, 1)), ("5.10", (5, 10)), ("6.18.44-fc", (6, 18))]
)
def test_kernel_version(text: str, expected: tuple[int, int]) -> None:
    assert kernel_version(text) == expected


@pytest.mark.root
@pytest.mark.vm
@pytest.mark.parametrize(
    "capabilities", [DOCKER_CAPABILITIES, ALL_CAPABILITIES], ids=["docker", "all"]
)
def test_default_profile_works(capabilities: list[str]) -> None:
    """Compiled and loaded it lets ordinary calls through and stops what it has to."""
    program = seccomp.compile_profile(default_profile(capabilities))
    pid = os.fork()
    if not pid:
        status = 99
        try:
            seccomp.load(program)
            status = _probe("CAP_SYS_ADMIN" in capabilities)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _probe(admin: bool) -> int:
    """0, or the number of the first check that failed."""
    libc = ctypes.CDLL(None, use_errno=True)

    def fails(number: int, *arguments: int) -> int:
        return ctypes.get_errno() if libc.syscall(number, *arguments) == -1 else 0

    os.stat("/")
    x86 = os.uname().machine == "x86_64"
    unshare, keyctl = (272, 250) if x86 else (97, 219)
    socket = 41 if x86 else 198
    checks = [
        fails(unshare, 0) == (0 if admin else errno.EPERM),
        fails(435, 0, 0) == (errno.EINVAL if admin else errno.ENOSYS),  # clone3
        fails(keyctl, 0, 0) == errno.EPERM,
        fails(socket, 40, 1, 0) == errno.EPERM,  # AF_VSOCK
        fails(socket, 1, 1, 0) == 0,
        fails(999) == errno.ENOSYS,
        fails(451, -1, 0, 0, 0) != errno.EPERM,  # cachestat: in the list, not in libseccomp 2.5
    ]
    return 0 if all(checks) else checks.index(False) + 1


def test_profiles_in_memory_are_bounded(tmp_path: Any) -> None:
    """As many texts as clients send, of which some stay: those used last."""

    def record(number: int) -> Any:
        text = f'{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[],"comment":"{number}"}}'
        return make_record(host_config=HostConfig(security_opt=[f"seccomp={text}"]))

    profiles = Profiles(str(tmp_path))
    first = profiles.of(record(0))
    for number in range(1, 3 * KEPT):
        profiles.of(record(number))
        assert profiles.of(record(0)) is first
    assert len(profiles._known) == KEPT


def test_programs_that_nobody_uses_go(tmp_path: Path) -> None:
    """A week after an engine took them up last; those in memory stay."""
    first, second = Profiles(str(tmp_path)), Profiles(str(tmp_path))
    record = make_record(capabilities=["CAP_CHOWN"])
    profile = first.of(record)
    assert profile is not None
    (tmp_path / ".cut-short").write_bytes(b"")
    assert first.drop_unused() == [".cut-short"]
    week_s = UNUSED_KEPT_S + 60
    assert first.drop_unused(os.stat(profile.program).st_mtime + week_s) == []
    assert second.drop_unused() == []
    gone = second.drop_unused(os.stat(profile.program).st_mtime + week_s)
    assert len(gone) == 2 and os.listdir(tmp_path) == []
    assert second.of(record) == profile
