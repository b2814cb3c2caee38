"""Seccomp filters: OCI `linux.seccomp` → classic BPF by libseccomp, kept on disk, loaded by seccomp(2).

Compiling the default profile takes some ten milliseconds, loading the result a fraction of one. So
a program is compiled once for each profile, libseccomp version and architecture, and libseccomp is
not even opened where the program is there.

Source: seccomp(2), seccomp_rule_add(3); runtime-spec config-linux.md "Seccomp".
"""

from __future__ import annotations

import ctypes
import os
import struct
from errno import EACCES, ENOSYS, EPERM
from typing import TYPE_CHECKING

from sampan.errors import RuntimeFailure
from sampan.linux.syscalls import SYS_seccomp, check, libc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# linux/seccomp.h
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2
SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 0x10
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0x01,
    "SECCOMP_FILTER_FLAG_LOG": 0x02,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 0x04,
    "SECCOMP_FILTER_FLAG_NEW_LISTENER": 0x08,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 0x20,
}
NEW_LISTENER = "SECCOMP_FILTER_FLAG_NEW_LISTENER"

# seccomp.h of libseccomp
_RET_ERRNO = 0x00050000
_RET_ALLOW = 0x7FFF0000
_RET_LOG = 0x7FFC0000
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": _RET_ERRNO,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_ALLOW": _RET_ALLOW,
    "SCMP_ACT_LOG": _RET_LOG,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
}
_WITH_ERRNO = frozenset(("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"))
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_FLTATR_ACT_BADARCH = 2
_FLTATR_CTL_OPTIMIZE = 8
_NR_ERROR = -1

# linux/filter.h
_LD_W_ABS = 0x20
_JMP_JA = 0x05
_JMP_JEQ_K = 0x15
_JMP_JGT_K = 0x25
_JMP_JGE_K = 0x35
_RET_K = 0x06
_NR_OFFSET, _ARCH_OFFSET = 0, 4  # struct seccomp_data
_MAXIMUM_INSTRUCTIONS = 4096  # BPF_MAXINSNS

_AUDIT_X86_64 = 0xC000003E
_X32 = 0x4000003E  # libseccomp's token; to the kernel it is x86_64 with a bit in the number
_X32_BIT = 0x40000000

# Calls that libseccomp 2.5 does not know. From 424 on a call has one number everywhere.
_NEWER = {
    "memfd_secret": 447,
    "process_mrelease": 448,
    "futex_waitv": 449,
    "set_mempolicy_home_node": 450,
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}

_GENERATION = b"1"  # of the code this module writes; part of the cache's key


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


_library: ctypes.CDLL | None = None


def _libseccomp() -> ctypes.CDLL:
    global _library
    if _library is None:
        try:
            library = ctypes.CDLL("libseccomp.so.2")
        except OSError as error:
            raise RuntimeFailure(
                "seccomp",
                f"cannot compile a seccomp profile: {error}",
                hint="install libseccomp2, or run with --security-opt seccomp=unconfined",
            ) from error
        library.seccomp_init.restype = ctypes.c_void_p
        library.seccomp_init.argtypes = (ctypes.c_uint32,)
        library.seccomp_release.argtypes = (ctypes.c_void_p,)
        library.seccomp_release.restype = None
        library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
        library.seccomp_arch_native.restype = ctypes.c_uint32
        library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
        library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
        library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
        library.seccomp_rule_add_array.argtypes = (
            ctypes.c_void_p,
            ctypes.c_uint32,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_void_p,
        )
        library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
        library.seccomp_version.restype = ctypes.POINTER(_Version)
        _library = library
    return _library


def library_version() -> str:
    """libseccomp's version, `2.5.4`.

    Raises:
        RuntimeFailure: the library is not there.
    """
    version = _libseccomp().seccomp_version().contents
    return f"{version.major}.{version.minor}.{version.micro}"


def action_available(name: str) -> bool:
    """Whether the running kernel knows the action; SECCOMP_GET_ACTION_AVAIL of seccomp(2)."""
    value = ctypes.c_uint32(ACTIONS[name])
    return bool(libc.syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(value)) == 0)


# Compiling


def compile_profile(profile: Mapping[str, Any]) -> bytes:
    """OCI `linux.seccomp` as an array of struct sock_filter.

    A system call that neither libseccomp nor this module knows is left out, as runc does. One newer
    than every call the profile names fails with ENOSYS instead of the default action, so that C
    libraries fall back to older calls.

    Raises:
        RuntimeFailure: an unknown action, architecture or operator; an errno for an action without
            one; a notification where that would lock up; libseccomp is missing.
    """
    library = _libseccomp()
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    if profile["defaultAction"] == "SCMP_ACT_NOTIFY":
        raise RuntimeFailure("seccomp", "SCMP_ACT_NOTIFY cannot be the default action")
    context = library.seccomp_init(default)
    if not context:
        raise RuntimeFailure("seccomp", f"unusable default action {profile['defaultAction']!r}")
    try:
        architectures = _add_architectures(library, context, profile.get("architectures") or ())
        # A binary tree over the numbers instead of a chain: shorter ways for each call, and the
        # kernel fills its bitmap of always-allowed calls faster. libseccomp before 2.5 has it not.
        library.seccomp_attr_set(context, _FLTATR_CTL_OPTIMIZE, 2)
        newer, greatest = _add_rules(library, context, profile, default, architectures)
        code = _export(library, context)
    finally:
        library.seccomp_release(context)
    if default not in (_RET_ALLOW, _RET_LOG, _RET_ERRNO | ENOSYS):
        code = _prefix(architectures, newer, greatest, ENOSYS) + code
    elif newer:
        code = _prefix(architectures, newer, {}, None) + code
    if len(code) // 8 > _MAXIMUM_INSTRUCTIONS:
        raise RuntimeFailure("seccomp", f"the seccomp profile makes {len(code) // 8} instructions")
    return code


def _action(name: str, errno_return: int | None) -> int:
    value = ACTIONS.get(name)
    if value is None:
        raise RuntimeFailure("seccomp", f"unknown seccomp action {name!r}")
    if name in _WITH_ERRNO:
        return value | (EPERM if errno_return is None else errno_return & 0xFFFF)
    if errno_return:
        raise RuntimeFailure("seccomp", f"seccomp action {name} cannot have an errno")
    return value


def _add_architectures(library: ctypes.CDLL, context: int, names: Sequence[str]) -> list[int]:
    """The filter's architectures: the machine's own and those that `names` has."""
    tokens = [library.seccomp_arch_native()]
    for name in names:
        word = name.removeprefix("SCMP_ARCH_").lower().encode()
        token = library.seccomp_arch_resolve_name(word)
        if not token or not name.startswith("SCMP_ARCH_"):
            raise RuntimeFailure("seccomp", f"unknown seccomp architecture {name!r}")
        if token in tokens:
            continue
        result = library.seccomp_arch_add(context, token)
        if result < 0:
            raise _refused(f"add architecture {name}", result)
        tokens.append(token)
    return tokens


def _refused(what: str, result: int) -> RuntimeFailure:
    return RuntimeFailure("seccomp", f"{what}: {os.strerror(-result)}", errno=-result)


def _add_rules(
    library: ctypes.CDLL,
    context: int,
    profile: Mapping[str, Any],
    default: int,
    architectures: list[int],
) -> tuple[dict[int, int], dict[int, int]]:
    """Add the rules; return the actions of calls only we know, and each architecture's greatest."""
    newer: dict[int, int] = {}
    greatest = dict.fromkeys(architectures, 0)
    for entry in profile.get("syscalls") or ():
        action = _action(entry["action"], entry.get("errnoRet"))
        comparisons = _comparisons(entry.get("args") or ())
        for name in entry["names"]:
            if action == ACTIONS["SCMP_ACT_NOTIFY"] and name == "write":
                raise RuntimeFailure("seccomp", "SCMP_ACT_NOTIFY cannot be used for write")
            number = _resolve(library, name, architectures, greatest)
            if number == _NR_ERROR:
                known = _NEWER.get(name)
                if known is None or comparisons:
                    continue
                newer.setdefault(known, action)
                for token in architectures:
                    greatest[token] = max(greatest[token], known)
            elif action != default:  # libseccomp refuses a rule that changes nothing
                _add_rule(library, context, name, action, number, comparisons)
    return newer, greatest


def _resolve(
    library: ctypes.CDLL, name: str, architectures: list[int], greatest: dict[int, int]
) -> int:
    """The call's number as libseccomp wants it for rules; `greatest` is kept up."""
    word = name.encode()
    numbers = [library.seccomp_syscall_resolve_name_arch(token, word) for token in architectures]
    for token, number in zip(architectures, numbers, strict=True):
        if number > greatest[token]:
            greatest[token] = number & ~_X32_BIT if token == _X32 else number
    return int(numbers[0])


def _comparisons(arguments: Sequence[Mapping[str, Any]]) -> list[_Comparison]:
    out = []
    for entry in arguments:
        operator = OPERATORS.get(entry["op"])
        index = entry.get("index", 0)
        if operator is None:
            raise RuntimeFailure("seccomp", f"unknown seccomp operator {entry['op']!r}")
        if not 0 <= index <= 5:
            raise RuntimeFailure("seccomp", f"invalid seccomp argument index {index}")
        value, second = entry.get("value") or 0, entry.get("valueTwo") or 0
        if entry["op"] != "SCMP_CMP_MASKED_EQ":
            second = 0
        out.append(_Comparison(index, operator, value, second))
    return out


def _add_rule(
    library: ctypes.CDLL,
    context: int,
    name: str,
    action: int,
    number: int,
    comparisons: list[_Comparison],
) -> None:
    """One rule, or one for each comparison where several are about one argument.

    libseccomp cannot have an argument twice in a rule; runc then takes them as alternatives.
    """
    indexes = {comparison.argument for comparison in comparisons}
    groups = [[each] for each in comparisons] if len(indexes) < len(comparisons) else [comparisons]
    for group in groups:
        array = (_Comparison * len(group))(*group)
        result = library.seccomp_rule_add_array(context, action, number, len(group), array)
        if result < 0 and result != -EACCES:
            raise _refused(f"add seccomp rule for {name}", result)


def _export(library: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        result = library.seccomp_export_bpf(context, fd)
        if result < 0:
            raise _refused("export the seccomp program", result)
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


# What stands before libseccomp's part


def _statement(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, true, false, value)


def _prefix(
    architectures: list[int], newer: dict[int, int], greatest: dict[int, int], errno: int | None
) -> bytes:
    """Decide the calls that libseccomp's part does not know; let the others go on to it.

    For each architecture: an action for each number in `newer`; with `errno`, that for numbers
    above the architecture's in `greatest`.
    """
    blocks = []
    for token in architectures:
        if token == _X32:
            continue  # is handled with x86_64, of which it is a part
        x32 = token == _AUDIT_X86_64 and _X32 in architectures
        body = _decide(newer, greatest.get(token), errno, 0)
        if token == _AUDIT_X86_64:
            other = _decide(newer, greatest.get(_X32), errno, _X32_BIT) if x32 else []
            # JA reaches further than the eight bits of a conditional jump
            body = [
                _statement(_JMP_JGE_K, _X32_BIT, 0, 1),
                _statement(_JMP_JA, len(body) + 1),
                *body,
                None,
                *(other or []),
            ]
        blocks.append((token, [_statement(_LD_W_ABS, _NR_OFFSET), *body, None]))
    return _link(blocks)


def _decide(
    newer: dict[int, int], greatest: int | None, errno: int | None, bit: int
) -> list[bytes | None]:
    out: list[bytes | None] = []
    for number, action in newer.items():
        out.append(_statement(_JMP_JEQ_K, number | bit, 0, 1))
        out.append(_statement(_RET_K, action))
    if errno is not None and greatest is not None:
        out.append(_statement(_JMP_JGT_K, greatest | bit, 0, 1))
        out.append(_statement(_RET_K, _RET_ERRNO | errno))
    return out


def _link(blocks: list[tuple[int, list[bytes | None]]]) -> bytes:
    """Put the blocks in a row, each behind a test of the architecture; None is a jump to the end."""
    length = 1 + sum(len(body) + 2 for _, body in blocks)
    out = [_statement(_LD_W_ABS, _ARCH_OFFSET)]
    for token, body in blocks:
        out.append(_statement(_JMP_JEQ_K, token, 1, 0))
        out.append(_statement(_JMP_JA, len(body)))
        for statement in body:
            out.append(statement or _statement(_JMP_JA, length - len(out) - 1))
    return b"".join(out)


# Loading


def load(program: bytes, flags: Sequence[str] | None = None) -> int | None:
    """Put the calling thread under `program`; the fd for notifications if NEW_LISTENER is in flags.

    Without flags (None) SPEC_ALLOW is set, as runc does: a filter shall not slow the container by
    mitigations it did not ask for. Needs no_new_privs or CAP_SYS_ADMIN.

    Raises:
        RuntimeFailure: an unknown flag, or the kernel refuses.
    """
    names = ("SECCOMP_FILTER_FLAG_SPEC_ALLOW",) if flags is None else flags
    bits = 0
    for name in names:
        if name not in FLAGS:
            raise RuntimeFailure("seccomp", f"unknown seccomp flag {name!r}")
        bits |= FLAGS[name]
    listen = bool(bits & FLAGS[NEW_LISTENER])
    if listen and bits & FLAGS["SECCOMP_FILTER_FLAG_TSYNC"]:
        bits |= SECCOMP_FILTER_FLAG_TSYNC_ESRCH
    if not program or len(program) % 8:
        raise RuntimeFailure("seccomp", "the compiled seccomp program is damaged")
    text = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the compiler aligns the pointer
    arguments = struct.pack("@HP", len(program) // 8, ctypes.addressof(text))
    try:
        result = check(
            libc.syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, bits, arguments), "seccomp"
        )
    except OSError as error:
        raise RuntimeFailure(
            "seccomp", f"load the seccomp filter: {error.strerror}", errno=error.errno
        ) from error
    return result if listen else None


def uses_notify(profile: Mapping[str, Any]) -> bool:
    """Whether a rule hands calls to a listener, so that `load` needs NEW_LISTENER."""
    return any(entry["action"] == "SCMP_ACT_NOTIFY" for entry in profile.get("syscalls") or ())


# The cache


def cached_program(profile: Mapping[str, Any], directory: str) -> tuple[bytes, str]:
    """`compile_profile`, done once for each profile; the program and the file that has it.

    `directory` is made if missing. The file is plain BPF, named by its own digest, and never
    changes; a link named by the profile's digest leads to it. A file that does not fit its name is
    written anew. Any number of processes may do this at once.

    Raises:
        RuntimeFailure: see compile_profile; or the directory cannot be written.
    """
    link = f"{directory}/{_key(profile)}"
    try:
        path = f"{directory}/{os.readlink(link)}"
        return read_program(path), path
    except (OSError, RuntimeFailure):
        pass  # not there yet, or damaged: what follows makes it
    program = compile_profile(profile)
    name = f"{_digest(program)}.bpf"
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        _put(directory, name, program)
        _put(directory, os.path.basename(link), name)
    except OSError as error:
        raise RuntimeFailure(
            "seccomp", f"keep the seccomp program: {error}", path=directory, errno=error.errno
        ) from error
    return program, f"{directory}/{name}"


def read_program(path: str) -> bytes:
    """A program that `cached_program` put at `path`, compared with the digest in its name.

    Raises:
        RuntimeFailure: it is not there or damaged.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            program = os.read(fd, _MAXIMUM_INSTRUCTIONS * 8 + 1)
        finally:
            os.close(fd)
    except OSError as error:
        raise RuntimeFailure(
            "seccomp", f"read {path}: {error.strerror}", path=path, errno=error.errno
        ) from error
    if os.path.basename(path) != f"{_digest(program)}.bpf":
        raise RuntimeFailure("seccomp", f"{path} is damaged", path=path)
    return program


def _key(profile: Mapping[str, Any]) -> str:
    import json

    canonical = json.dumps(profile, sort_keys=True, separators=(",", ":")).encode()
    parts = (_GENERATION, library_version().encode(), os.uname().machine.encode(), canonical)
    return _digest(b"\0".join(parts))


def _digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _put(directory: str, name: str, content: bytes | str) -> None:
    """Make the file (bytes) or symbolic link (str) `name` in one step, whatever is there now."""
    temporary = f"{directory}/.{name}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        if isinstance(content, str):
            os.symlink(content, temporary)
        else:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, content)
            finally:
                os.close(fd)
        os.rename(temporary, f"{directory}/{name}")
    except OSError:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
