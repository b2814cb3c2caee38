"""A child that shares this process's memory until it has become a program.

fork(2) copies the caller's page tables and then each page that either side writes to, and execve(2)
tears the copy down again: three milliseconds for an interpreter of ten megabytes. With CLONE_VM and
CLONE_VFORK nothing is copied, and this process waits until the child has called execve or ended.
No Python can run in such a child, for it would run on the memory of the parent. What the child does is
a list of system calls, made by the few machine instructions below; the last call is execve.

The C library's posix_spawn(3) is of the same kind. It can neither make a child of our parent, put the
child into a cgroup, nor load a seccomp filter in it.
"""

from __future__ import annotations

import ctypes
import os

from sampan.linux import syscalls as sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# linux/sched.h, asm-generic/mman-common.h
_CLONE_VM = 0x00000100
_CLONE_VFORK = 0x00004000
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_PRIVATE, _MAP_ANONYMOUS = 0x02, 0x20
_PAGE = 4096

# long run(struct clone_args *rdi, size_t rsi, struct call *rdx)
# The stack is not touched: the child begins on the parent's, which waits for it there.
_X86_64 = bytes.fromhex(
    "f30f1efa"  #            endbr64
    "b8b3010000"  #          mov   eax, 435            clone3
    "0f05"  #                syscall
    "4885c0"  #              test  rax, rax
    "7401"  #                jz    child
    "c3"  #                  ret                       the parent, with the PID or an error
    "4989d4"  #       child: mov   r12, rdx
    "498b0424"  #      next: mov   rax, [r12]          its number
    "498b7c2408"  #          mov   rdi, [r12+8]        its six arguments
    "498b742410"  #          mov   rsi, [r12+16]
    "498b542418"  #          mov   rdx, [r12+24]
    "4d8b542420"  #          mov   r10, [r12+32]
    "4d8b442428"  #          mov   r8, [r12+40]
    "4d8b4c2430"  #          mov   r9, [r12+48]
    "0f05"  #                syscall
    "4989442438"  #          mov   [r12+56], rax       its result
    "4983c440"  #            add   r12, 64
    "4885c0"  #              test  rax, rax
    "79ce"  #                jns   next
    "bf7f000000"  #          mov   edi, 127
    "b83c000000"  #          mov   eax, 60             exit
    "0f05"  #                syscall
    "0f0b"  #                ud2
)
_CODE = {"x86_64": _X86_64}

_ARGUMENTS = 6
_ENTRY = 2 + _ARGUMENTS  # words of struct call: number, arguments, result


class Child:
    """A child that was made. `failed` is the call that ended it, by name and error, if one did."""

    __slots__ = ("failed", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int, failed: tuple[str, OSError] | None) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.failed = failed


def available() -> bool:
    """Whether there is code for this machine, and the kernel lets us run it (SELinux may not)."""
    return _code() != 0


def clone(
    calls: Sequence[tuple[str, int, *tuple[object, ...]]],
    *,
    flags: int = 0,
    exit_signal: int = sys.SIGCHLD,
    cgroup_fd: int = -1,
) -> Child:
    """Make a child that makes `calls`, the last of them execve(2); back when it has, or has failed.

    A call is its name, its number and up to six arguments: numbers, or ctypes objects and bytes, whose
    addresses they are. The first that fails ends the child, with code 127. `flags`, `exit_signal` and
    `cgroup_fd` are those of `sampan.linux.syscalls.clone3`. A signal that has a handler here must not
    reach the child: see `sampan.linux.process.default_signals`.

    Raises:
        OSError: of clone3(2); there is no child.
    """
    kept: list[object] = []
    table = (ctypes.c_uint64 * (_ENTRY * len(calls)))()
    for index, (_, number, *arguments) in enumerate(calls):
        words = [_word(argument, kept) for argument in arguments]
        table[index * _ENTRY : index * _ENTRY + 1 + len(words)] = [number, *words]
    pidfd = ctypes.c_int(-1)
    given = sys.Clone(flags=flags | sys.CLONE_PIDFD | _CLONE_VM | _CLONE_VFORK)
    given.exit_signal = exit_signal
    given.pidfd = ctypes.addressof(pidfd)
    if cgroup_fd >= 0:
        given.flags |= sys.CLONE_INTO_CGROUP
        given.cgroup = cgroup_fd
    run = ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)(
        _code()
    )
    pid: int = run(ctypes.addressof(given), ctypes.sizeof(given), ctypes.addressof(table))
    if pid < 0:
        raise sys.failure(-pid, "clone3")
    failed = None
    for index, (name, *_) in enumerate(calls):
        result = ctypes.c_int64(table[index * _ENTRY + _ENTRY - 1]).value
        if result < 0:
            failed = name, sys.failure(-result, name)
            break
    return Child(pid, pidfd.value, failed)


def words(texts: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    """A list of strings as execve(2) takes it."""
    return (ctypes.c_char_p * (len(texts) + 1))(*texts, None)


def _word(argument: object, kept: list[object]) -> int:
    """An argument as a register has it; what it points to is `kept` as long as that list is."""
    if isinstance(argument, int):
        return argument & 0xFFFFFFFFFFFFFFFF
    if isinstance(argument, bytes):
        argument = ctypes.create_string_buffer(argument)
    kept.append(argument)
    return ctypes.addressof(argument)  # type: ignore[arg-type]


_address: int | None = None


def _code() -> int:
    """The address of the instructions in this process; 0 if they cannot run here."""
    global _address
    if _address is None:
        _address = _load(_CODE.get(os.uname().machine, b""))
    return _address


def _load(code: bytes) -> int:
    if not code:
        return 0
    sys.libc.mmap.restype = ctypes.c_void_p
    sys.libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    mode = _MAP_PRIVATE | _MAP_ANONYMOUS
    address = sys.libc.mmap(None, _PAGE, _PROT_READ | _PROT_WRITE, mode, -1, 0)
    if address == ctypes.c_void_p(-1).value:
        return 0
    ctypes.memmove(address, code, len(code))
    area = ctypes.c_void_p(address), ctypes.c_size_t(_PAGE)
    if sys.libc.mprotect(*area, _PROT_READ | _PROT_EXEC) < 0:
        sys.libc.munmap(*area)
        return 0
    return int(address)
