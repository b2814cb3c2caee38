"""The device filter of cgroup v2: an eBPF program made from device rules, loaded and attached.

Source: bpf(2); include/uapi/linux/bpf.h (BPF_PROG_TYPE_CGROUP_DEVICE, struct bpf_cgroup_dev_ctx);
Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import ctypes
import os
import struct
from errno import EINVAL

from sampan.linux.cgroups.devices import ALL_ACCESS, ANY
from sampan.linux.syscalls import SYS_bpf, check, libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.linux.cgroups.devices import Rule

# linux/bpf.h: commands, program and attach types, flags
BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_DETACH = 9
BPF_PROG_GET_FD_BY_ID = 13
BPF_PROG_QUERY = 16
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2
BPF_F_REPLACE = 4

# Instruction opcodes: class | operation | source
_LDX_W = 0x61  # dst = *(u32 *)(src + offset)
_AND32_K = 0x54
_AND64_K = 0x57
_RSH32_K = 0x74
_MOV32_X = 0xBC
_MOV64_K = 0xB7
_JA = 0x05
_JEQ_K = 0x15
_JSET_K = 0x45
_JNE_K = 0x55
_JMP32_JNE_K = 0x56
_EXIT = 0x95

_R0, _CONTEXT, _KIND, _ACCESS, _MAJOR, _MINOR = range(6)
_KINDS = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
_MAXIMUM_PROGRAMS = 64  # BPF_CGROUP_MAX_PROGS

_LICENSE = b"GPL\0"


def _instruction(
    code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0
) -> bytes:
    return struct.pack("<BBhI", code, source << 4 | target, offset, value & 0xFFFFFFFF)


def device_program(rules: Iterable[Rule]) -> bytes:
    """The instructions of a program that returns 1 for an access that `rules` allow, else 0.

    Each bit of an access (read, write, mknod) is decided by the last rule that matches the device
    and covers the bit; what no rule decides is denied. So the rules are tried from the last on,
    with the bits still undecided in a register.
    """
    code = [
        # access_type is access << 16 | kind; then major and minor
        _instruction(_LDX_W, _KIND, _CONTEXT, 0),
        _instruction(_MOV32_X, _ACCESS, _KIND),
        _instruction(_AND32_K, _KIND, value=0xFFFF),
        _instruction(_RSH32_K, _ACCESS, value=16),
        _instruction(_LDX_W, _MAJOR, _CONTEXT, 4),
        _instruction(_LDX_W, _MINOR, _CONTEXT, 8),
    ]
    seen: set[tuple[str, int, int, int]] = set()
    for rule in reversed(list(rules)):
        key = (rule.kind, rule.major, rule.minor, rule.access)
        if key in seen:
            continue  # a later rule decides the same bits of the same devices
        seen.add(key)
        code += _rule(rule)
        if rule.kind == "a":
            return b"".join(code)
    return b"".join(code) + _verdict(0)


def _verdict(value: int) -> bytes:
    return _instruction(_MOV64_K, _R0, value=value) + _instruction(_EXIT)


def _rule(rule: Rule) -> list[bytes]:
    """Decide what the rule decides, or fall through to the next one."""
    if rule.kind == "a":
        return [_verdict(int(rule.allow))]
    if rule.access == ALL_ACCESS:
        body = [_verdict(int(rule.allow))]
        length = 2
    elif rule.allow:
        # These bits are settled; if none is left the access is allowed.
        body = [
            _instruction(_AND64_K, _ACCESS, value=ALL_ACCESS & ~rule.access),
            _instruction(_JNE_K, _ACCESS, offset=2, value=0),
            _verdict(1),
        ]
        length = 4
    else:
        body = [
            _instruction(_JSET_K, _ACCESS, offset=1, value=rule.access),
            _instruction(_JA, offset=2),
            _verdict(0),
        ]
        length = 4
    guards = [(_KIND, _KINDS[rule.kind])]
    guards += [(_MAJOR, rule.major)] if rule.major != ANY else []
    guards += [(_MINOR, rule.minor)] if rule.minor != ANY else []
    tests = []
    for number, (register, value) in enumerate(guards):
        skip = length + len(guards) - number - 1
        tests.append(_instruction(_JMP32_JNE_K, register, offset=skip, value=value))
    return tests + body


def _bpf(command: int, attributes: bytearray) -> int:
    """bpf(2) on the union `attributes`, which the kernel may write to.

    Raises:
        OSError: the kernel's refusal.
    """
    view = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    result: int = check(libc.syscall(SYS_bpf, command, view, len(attributes)), "bpf")
    return result


def load_device_program(code: bytes) -> int:
    """Load a BPF_PROG_TYPE_CGROUP_DEVICE program; its fd, owned by the caller, close-on-exec.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN (or CAP_BPF with CAP_NET_ADMIN); EINVAL or EACCES if
            the verifier refuses the program.
    """
    text, licence = ctypes.create_string_buffer(code, len(code)), ctypes.c_char_p(_LICENSE)
    attributes = bytearray(
        struct.pack(
            "<IIQQIIQII16s",
            BPF_PROG_TYPE_CGROUP_DEVICE,
            len(code) // 8,
            ctypes.addressof(text),
            ctypes.cast(licence, ctypes.c_void_p).value,
            0,  # log_level
            0,
            0,
            0,
            0,
            b"sampan_device",
        )
    )
    return _bpf(BPF_PROG_LOAD, attributes)


def attached_device_programs(cgroup_fd: int) -> list[int]:
    """The IDs of the device programs attached to this cgroup itself, in order.

    Raises:
        OSError: the kernel's refusal.
    """
    identifiers = (ctypes.c_uint32 * _MAXIMUM_PROGRAMS)()
    attributes = bytearray(
        struct.pack(
            "<IIIIQII",
            cgroup_fd,
            BPF_CGROUP_DEVICE,
            0,
            0,
            ctypes.addressof(identifiers),
            _MAXIMUM_PROGRAMS,
            0,
        )
    )
    _bpf(BPF_PROG_QUERY, attributes)
    (count,) = struct.unpack_from("<I", attributes, 24)
    return list(identifiers[:count])


def replace_device_program(cgroup_fd: int, code: bytes) -> None:
    """Attach the program `code` to a cgroup, in place of the device programs attached there.

    One is replaced in one step. Several are detached behind the attaching, for all that are
    attached have to allow an access: at no moment more is allowed than before or after.

    Raises:
        OSError: the kernel's refusal.
    """
    program = load_device_program(code)
    old: list[int] = []
    try:
        for identifier in attached_device_programs(cgroup_fd):
            old.append(_bpf(BPF_PROG_GET_FD_BY_ID, bytearray(struct.pack("<II", identifier, 0))))
        if len(old) == 1 and _replace(cgroup_fd, program, old[0]):
            return
        _attach(cgroup_fd, program, BPF_F_ALLOW_MULTI, 0)
        for fd in old:
            _bpf(
                BPF_PROG_DETACH,
                bytearray(struct.pack("<IIIII", cgroup_fd, fd, BPF_CGROUP_DEVICE, 0, 0)),
            )
    finally:
        for fd in (program, *old):
            os.close(fd)


def _replace(cgroup_fd: int, program: int, old: int) -> bool:
    """Replace `old`; False where the kernel (before 5.6) cannot, or it was attached exclusively."""
    try:
        _attach(cgroup_fd, program, BPF_F_ALLOW_MULTI | BPF_F_REPLACE, old)
    except OSError as error:
        if error.errno == EINVAL:
            return False
        raise
    return True


def _attach(cgroup_fd: int, program: int, flags: int, replaced: int) -> None:
    values = (cgroup_fd, program, BPF_CGROUP_DEVICE, flags, replaced)
    _bpf(BPF_PROG_ATTACH, bytearray(struct.pack("<IIIII", *values)))
