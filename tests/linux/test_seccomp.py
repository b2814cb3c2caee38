"""Seccomp: profiles become programs that the kernel takes and that do what they say."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.engine.seccomp_profile import default_profile
from sampan.errors import RuntimeFailure
from sampan.linux import seccomp, seccomp_bpf, seccomp_compile
from sampan.linux.seccomp_compile import ACTIONS
from support.bpf import instructions, interpret

pytestmark = [pytest.mark.root, pytest.mark.vm]

X86_64 = os.uname().machine == "x86_64"
libc = ctypes.CDLL(None, use_errno=True)


def profile(*rules: dict[str, Any], default: str = "SCMP_ACT_ALLOW", **more: Any) -> dict[str, Any]:
    return {"defaultAction": default, "syscalls": list(rules), **more}


def rule(*names: str, action: str = "SCMP_ACT_ERRNO", **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **more}


def under(program: bytes, body: Callable[[], int], **options: Any) -> int:
    """The exit code of a process that loads `program` and runs `body`; -signal if one ended it."""
    pid = os.fork()
    if not pid:
        status = 99
        try:
            seccomp.load(program, **options)
            status = body()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def call(number: int, *arguments: int) -> int:
    """errno of a system call; 0 if it succeeded."""
    wide = [ctypes.c_uint64(argument) for argument in arguments]
    return ctypes.get_errno() if libc.syscall(number, *wide) < 0 else 0


def outcome(what: Callable[[], object]) -> int:
    try:
        what()
    except OSError as error:
        return error.errno or 0
    return 0


def test_errno_is_the_rules_own() -> None:
    program = seccomp.compile_profile(profile(rule("mkdir", "mkdirat", errnoRet=errno.EIO)))
    assert under(program, lambda: outcome(lambda: os.mkdir("/nosuch/dir"))) == errno.EIO


def test_errno_is_eperm_when_not_said() -> None:
    program = seccomp.compile_profile(profile(rule("mkdir", "mkdirat")))
    assert under(program, lambda: outcome(lambda: os.mkdir("/nosuch/dir"))) == errno.EPERM


@pytest.mark.parametrize(
    ("action", "ended_by"),
    [
        ("SCMP_ACT_KILL", signal.SIGSYS),
        ("SCMP_ACT_KILL_THREAD", signal.SIGSYS),
        ("SCMP_ACT_KILL_PROCESS", signal.SIGSYS),
        ("SCMP_ACT_TRAP", signal.SIGSYS),
    ],
)
def test_killing_actions(action: str, ended_by: int) -> None:
    program = seccomp.compile_profile(profile(rule("getppid", action=action)))
    assert under(program, os.getppid) == -ended_by


def test_log_and_trace() -> None:
    """LOG lets the call go on; TRACE without a tracer fails with ENOSYS."""
    program = seccomp.compile_profile(
        profile(rule("getppid", action="SCMP_ACT_LOG"), rule("mkdir", action="SCMP_ACT_TRACE"))
    )
    assert under(program, lambda: int(os.getppid() == 0)) == 0
    assert under(program, lambda: outcome(lambda: os.mkdir("/nosuch/dir"))) == errno.ENOSYS


@pytest.mark.parametrize(
    ("operator", "value", "second", "matching", "other"),
    [
        ("SCMP_CMP_EQ", 3, None, 3, 4),
        ("SCMP_CMP_NE", 3, None, 4, 3),
        ("SCMP_CMP_LT", 3, None, 2, 3),
        ("SCMP_CMP_LE", 3, None, 3, 4),
        ("SCMP_CMP_GT", 3, None, 4, 3),
        ("SCMP_CMP_GE", 3, None, 3, 2),
        ("SCMP_CMP_MASKED_EQ", 0xF0, 0x10, 0x1F, 0x2F),
        ("SCMP_CMP_EQ", 0x1_0000_0003, None, 0x1_0000_0003, 3),
    ],
)
def test_arguments(
    operator: str, value: int, second: int | None, matching: int, other: int
) -> None:
    """Comparisons are of all 64 bits."""
    args = [{"index": 1, "value": value, "op": operator}]
    if second is not None:
        args[0]["valueTwo"] = second
    program = seccomp.compile_profile(profile(rule("getpgid", args=args)))
    number = 121 if X86_64 else 155

    def body() -> int:
        fails = call(number, 0, matching) == errno.EPERM
        passes = call(number, 0, other) == 0
        return 0 if fails and passes else 1

    assert under(program, body) == 0


def test_comparisons_of_one_argument_are_alternatives() -> None:
    """libseccomp takes an argument once a rule; like runc, several then mean "or"."""
    args = [{"index": 1, "value": value, "op": "SCMP_CMP_EQ"} for value in (3, 5)]
    program = seccomp.compile_profile(profile(rule("getpgid", args=args)))
    number = 121 if X86_64 else 155
    assert (
        under(
            program,
            lambda: int([bool(call(number, 0, n)) for n in (3, 4, 5)] != [True, False, True]),
        )
        == 0
    )


# -- what libseccomp does not know -------------------------------------------------------------


def test_unknown_calls_are_left_out() -> None:
    program = seccomp.compile_profile(profile(rule("no_such_call", "getppid")))
    assert under(program, lambda: int(bool(os.getppid()))) == 1  # EPERM makes libc return -1


ALLOWED = [
    "read",
    "write",
    "close",
    "exit",
    "exit_group",
    "rt_sigreturn",
    "brk",
    "mmap",
    "munmap",
    "futex",
    "getppid",
    "openat",
    "fstat",
    "rt_sigaction",
    "madvise",
    "mprotect",
    "getrandom",
]


@pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])
def test_calls_newer_than_the_profile_fail_with_enosys(default: str) -> None:
    """C libraries probe for new calls and fall back on ENOSYS, never on EPERM."""
    program = seccomp.compile_profile(
        profile(rule(*ALLOWED, "openat2", action="SCMP_ACT_ALLOW"), default=default)
    )
    assert under(program, lambda: call(999)) == errno.ENOSYS
    assert under(program, lambda: call(438)) == errno.ENOSYS  # openat2 is 437
    refused = under(program, lambda: call(425))  # io_uring_setup, older than openat2
    assert refused == (errno.EPERM if default == "SCMP_ACT_ERRNO" else -signal.SIGSYS)


def test_enosys_is_not_put_before_a_permissive_default() -> None:
    program = seccomp.compile_profile(profile(rule("mkdir"), default="SCMP_ACT_ALLOW"))
    assert under(program, lambda: int(call(462, 0, 0, 0) == errno.EPERM)) == 0


def test_calls_newer_than_libseccomp_can_be_allowed_and_refused() -> None:
    """mseal (462) is not in libseccomp 2.5; a profile that names it gets what it says."""
    allowed = seccomp.compile_profile(
        profile(rule(*ALLOWED, "mseal", action="SCMP_ACT_ALLOW"), default="SCMP_ACT_ERRNO")
    )
    through = under(allowed, lambda: call(462, 1, 0, 1))
    assert through in (errno.EINVAL, errno.ENOSYS)  # the kernel's own answer, by its age
    refused = seccomp.compile_profile(profile(rule("mseal", errnoRet=errno.EXDEV)))
    assert under(refused, lambda: call(462, 1, 0, 1)) == errno.EXDEV


@pytest.mark.skipif(not X86_64, reason="x32 is a part of x86_64")
def test_x32_calls_are_judged_by_their_own_rules() -> None:
    names = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    with_x32 = seccomp.compile_profile(
        profile(
            rule(*ALLOWED, action="SCMP_ACT_ALLOW"), default="SCMP_ACT_ERRNO", architectures=names
        )
    )
    x32 = 0x40000000
    assert under(with_x32, lambda: call(x32 | 83)) == errno.EPERM  # mkdir
    assert under(with_x32, lambda: call(x32 | 999)) == errno.ENOSYS
    without = seccomp.compile_profile(
        profile(rule(*ALLOWED, action="SCMP_ACT_ALLOW"), default="SCMP_ACT_ERRNO")
    )
    assert under(without, lambda: call(x32 | 999)) == -signal.SIGSYS  # another architecture


# -- the search tree decides as libseccomp does ------------------------------------------------

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "s390": 0x16}


def everything_to_libseccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave to the tree only what libseccomp does not know, and ENOSYS."""
    split = seccomp_compile._split

    def changed(library: Any, rules: Any, default: int, architectures: list[int]) -> Any:
        simple, _ = split(library, rules, default, architectures)
        intricate = {}
        for name, each in rules.items():
            numbers = seccomp_compile._numbers(library, name, architectures)
            if numbers is not None and name not in seccomp_compile._NEWER:
                intricate[name] = each
                for token, number in zip(architectures, numbers, strict=True):
                    simple[token].actions.pop(number, None)
        return simple, intricate

    monkeypatch.setattr(seccomp_compile, "_split", changed)


MIXED = profile(
    rule("read", "write", "close", "exit_group", "futex", "socketcall", action="SCMP_ACT_ALLOW"),
    rule("socket", action="SCMP_ACT_ALLOW", args=[{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]),
    rule("accept4", "bind", "shmget", "chown32", "waitpid", action="SCMP_ACT_ALLOW"),
    rule("ptrace", "mseal", "chmod", errnoRet=7),
    rule("openat", action="SCMP_ACT_LOG"),
    rule("mkdir", action="SCMP_ACT_KILL_PROCESS"),
    default="SCMP_ACT_ERRNO",
    architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
)


@pytest.mark.parametrize("kind", ["docker", "docker, privileges", "mixed", "few denied"])
def test_tree_decides_as_libseccomp(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every call of every architecture, with several arguments."""
    text = {
        "docker": default_profile(["CAP_CHOWN"]),
        "docker, privileges": default_profile(["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF"]),
        "mixed": MIXED if X86_64 else {**MIXED, "architectures": []},
        "few denied": profile(rule("mkdir", "socket", "kexec_load", "mseal")),
    }[kind]
    fast = instructions(seccomp.compile_profile(text))
    everything_to_libseccomp(monkeypatch)
    slow = instructions(seccomp.compile_profile(text))
    assert len(fast) < len(slow) / 2 or not kind.startswith("docker")
    numbers = [*range(560), 999, 0xFFFFFFFF]
    if X86_64:
        numbers += [number | 0x40000000 for number in range(560)]
    arguments = [[0] * 6, [1, 0x10000000, 0, 0, 0, 0], [40, 3, 3, 3, 3, 3], [0x20008, 0] + [0] * 4]
    for arch in AUDIT_ARCH.values():
        for number in numbers:
            for args in arguments:
                got = interpret(fast, number, arch, args)
                assert got == interpret(slow, number, arch, args), (hex(arch), number, args)


def test_a_name_with_two_answers_is_libseccomps_business() -> None:
    program = seccomp.compile_profile(
        profile(rule("getpgid", args=[{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]))
    )
    number = 121 if X86_64 else 155
    assert under(program, lambda: int([call(number, 1), call(number, 0)] != [errno.EPERM, 0])) == 0


def test_long_tables_are_split() -> None:
    """More ranges than a conditional jump can skip."""
    calls = {2 * number: 0x7FFF0000 for number in range(700)}
    ranges = seccomp_bpf.ranges(calls, (2000, 0x50026))
    program = [*instructions(seccomp_bpf.program([(1, ranges)])), (0x06, 0, 0, 7)]
    for number in range(2100):
        expected = calls.get(number, 7) if number <= 2000 else 0x50026
        assert interpret(program, number, 1, [0] * 6) == expected
    assert interpret(program, 0, 2, [0] * 6) == 7


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (profile(default="SCMP_ACT_MAYBE"), "unknown seccomp action 'SCMP_ACT_MAYBE'"),
        (profile(rule("mkdir", action="ALLOW")), "unknown seccomp action 'ALLOW'"),
        (profile(rule("mkdir", action="SCMP_ACT_KILL", errnoRet=5)), "cannot have an errno"),
        (profile(default="SCMP_ACT_ALLOW", defaultErrnoRet=5), "cannot have an errno"),
        (profile(default="SCMP_ACT_NOTIFY"), "cannot be the default action"),
        (profile(rule("write", action="SCMP_ACT_NOTIFY")), "cannot be used for write"),
        (profile(architectures=["SCMP_ARCH_PDP11"]), "unknown seccomp architecture"),
        (profile(architectures=["x86_64"]), "unknown seccomp architecture"),
        (
            profile(rule("mkdir", args=[{"index": 0, "value": 1, "op": "=="}])),
            "unknown seccomp operator",
        ),
        (
            profile(rule("mkdir", args=[{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}])),
            "invalid seccomp argument index",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_profiles(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeFailure, match=message) as caught:
        seccomp.compile_profile(bad)
    assert caught.value.stage == "seccomp"


@pytest.mark.parametrize("program", [b"", b"1234567", b"\xff" * 8], ids=["none", "cut", "junk"])
def test_damaged_programs_are_refused(program: bytes) -> None:
    with pytest.raises(RuntimeFailure):
        seccomp.load(program)


def test_unknown_flag() -> None:
    with pytest.raises(RuntimeFailure, match="unknown seccomp flag"):
        seccomp.load(b"12345678", ["SECCOMP_FILTER_FLAG_NONE"])


def test_flags_and_listener() -> None:
    """A listener's fd comes back, close-on-exec."""
    text = profile(rule("getppid", action="SCMP_ACT_NOTIFY"))
    assert seccomp.uses_notify(text)
    assert not seccomp.uses_notify(profile(rule("getppid")))
    program = seccomp.compile_profile(text)
    pid = os.fork()
    if not pid:
        fd = seccomp.load(program, [seccomp.NEW_LISTENER, "SECCOMP_FILTER_FLAG_LOG"])
        os._exit(0 if fd is not None and not os.get_inheritable(fd) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_actions_of_this_kernel() -> None:
    assert all(seccomp.action_available(value) for value in ACTIONS.values())


# -- the cache ---------------------------------------------------------------------------------

SMALL = profile(rule("mkdir", "mkdirat"))


def test_cache_compiles_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, path = seccomp.cached_program(SMALL, str(tmp_path / "cache"))
    monkeypatch.setattr(seccomp, "compile_profile", None)
    assert seccomp.cached_program(SMALL, str(tmp_path / "cache")) == (program, path)
    assert Path(path).read_bytes() == program == seccomp.read_program(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_cache_key_is_the_content(tmp_path: Path) -> None:
    """Order of keys is nothing, another action is another program."""
    first = seccomp.cached_program(SMALL, str(tmp_path))
    turned = dict(reversed(list(SMALL.items())))
    assert seccomp.cached_program(turned, str(tmp_path)) == first
    other = profile(rule("mkdir", "mkdirat", errnoRet=5))
    assert seccomp.cached_program(other, str(tmp_path))[1] != first[1]


@pytest.mark.parametrize(
    "damage", [b"", b"x", b"\x06\0\0\0\0\0\xff\x7f"], ids=["empty", "cut", "other"]
)
def test_damaged_cache_file_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    """Above all one that would allow everything."""
    program, path = seccomp.cached_program(SMALL, str(tmp_path))
    Path(path).write_bytes(damage)
    with pytest.raises(RuntimeFailure, match="damaged"):
        seccomp.read_program(path)
    assert seccomp.cached_program(SMALL, str(tmp_path)) == (program, path)
    assert Path(path).read_bytes() == program


def test_lost_cache_file_is_made_anew(tmp_path: Path) -> None:
    program, path = seccomp.cached_program(SMALL, str(tmp_path))
    os.unlink(path)
    assert seccomp.cached_program(SMALL, str(tmp_path)) == (program, path)


def test_many_at_once(tmp_path: Path) -> None:
    """Whoever comes first: all get a whole program, and nothing temporary stays."""
    results: list[tuple[bytes, str]] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(seccomp.cached_program(SMALL, str(tmp_path)))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and len(set(results)) == 1
    assert len(os.listdir(tmp_path)) == 2


def test_cache_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeFailure, match="keep the seccomp program"):
        seccomp.cached_program(SMALL, str(tmp_path / "file" / "cache"))


def test_programs_are_whole_instructions() -> None:
    program = seccomp.compile_profile(SMALL)
    codes = [code for code, _, _, _ in struct.iter_unpack("<HBBI", program)]
    assert codes[-1] == 0x06
