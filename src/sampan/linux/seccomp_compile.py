"""OCI `linux.seccomp` → classic BPF: libseccomp for what is intricate, a search tree for the rest.

libseccomp gives the numbers of calls, and the code for calls that are judged by their arguments or
that 32-bit architectures multiplex (socketcall, ipc). All other calls are answered before that by
`seccomp_bpf`. Source: seccomp_rule_add(3); runtime-spec config-linux.md "Seccomp".
"""

from __future__ import annotations

import ctypes
import os
from errno import EACCES, ENOSYS, EPERM

from sampan.errors import RuntimeFailure
from sampan.linux import seccomp_bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

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
_FLTATR_CTL_OPTIMIZE = 8
_NR_ERROR = -1
# __PNR_*: down to here calls that an architecture does through another one, below those it has not.
_NOT_THERE = -10000

# Calls through which 32-bit architectures do others, which rules for those also change.
_MULTIPLEXERS = frozenset(("socketcall", "ipc"))

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

_MAXIMUM_INSTRUCTIONS = 4096  # BPF_MAXINSNS


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
        library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
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
        # A binary tree over the numbers instead of a chain; libseccomp before 2.5 has it not.
        library.seccomp_attr_set(context, _FLTATR_CTL_OPTIMIZE, 2)
        simple, intricate = _split(library, _rules(profile), default, architectures)
        for name, rules in intricate.items():
            for rule in rules:
                if rule.action != default:  # libseccomp refuses a rule that changes nothing
                    _add_rule(library, context, name, rule)
        behind = _export(library, context)
    finally:
        library.seccomp_release(context)
    code = seccomp_bpf.program(_tables(simple, default, architectures)) + behind
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


class _Rule:
    """What happens to a call, always or if all `comparisons` hold."""

    __slots__ = ("action", "comparisons")

    def __init__(self, action: int, comparisons: list[_Comparison]) -> None:
        self.action = action
        self.comparisons = comparisons


def _rules(profile: Mapping[str, Any]) -> dict[str, list[_Rule]]:
    """The profile's rules by the call's name, in order."""
    rules: dict[str, list[_Rule]] = {}
    for entry in profile.get("syscalls") or ():
        action = _action(entry["action"], entry.get("errnoRet"))
        rule = _Rule(action, _comparisons(entry.get("args") or ()))
        for name in entry["names"]:
            if action == ACTIONS["SCMP_ACT_NOTIFY"] and name == "write":
                raise RuntimeFailure("seccomp", "SCMP_ACT_NOTIFY cannot be used for write")
            rules.setdefault(name, []).append(rule)
    return rules


class _Calls:
    """One architecture's calls that the number alone decides, and its greatest number named."""

    __slots__ = ("actions", "greatest")

    def __init__(self) -> None:
        self.actions: dict[int, int] = {}
        self.greatest = 0


def _split(
    library: ctypes.CDLL, rules: dict[str, list[_Rule]], default: int, architectures: list[int]
) -> tuple[dict[int, _Calls], dict[str, list[_Rule]]]:
    """What is simple, by architecture, and the rules that libseccomp has to make code for."""
    simple = {token: _Calls() for token in architectures}
    intricate: dict[str, list[_Rule]] = {}
    reserved: set[tuple[int, int]] = set()
    for name, each in rules.items():
        numbers = _numbers(library, name, architectures)
        plain = not any(rule.comparisons for rule in each) and len({r.action for r in each}) == 1
        if numbers is None or (not plain and name in _NEWER and numbers[0] == _NEWER[name]):
            continue  # unknown, or its arguments would have to be compared without libseccomp
        for token, number in zip(architectures, numbers, strict=True):
            simple[token].greatest = max(simple[token].greatest, number)
        multiplexed = name in _MULTIPLEXERS or any(_NOT_THERE < n < 0 for n in numbers)
        if not plain or multiplexed:
            intricate[name] = each
            reserved.update(zip(architectures, numbers, strict=True))
            continue
        if each[0].action != default:
            for token, number in zip(architectures, numbers, strict=True):
                if number >= 0:
                    simple[token].actions[number] = each[0].action
    for token, number in reserved:  # another name of a number that libseccomp decides
        simple[token].actions.pop(number, None)
    return simple, intricate


def _numbers(library: ctypes.CDLL, name: str, architectures: list[int]) -> list[int] | None:
    """The call's number on each architecture, x32's without its bit; None if nobody knows it."""
    word = name.encode()
    numbers = []
    for token in architectures:
        number = library.seccomp_syscall_resolve_name_arch(token, word)
        if number == _NR_ERROR:
            return [_NEWER[name]] * len(architectures) if name in _NEWER else None
        numbers.append(number & ~_X32_BIT if token == _X32 and number >= 0 else number)
    return numbers


def _tables(
    simple: dict[int, _Calls], default: int, architectures: list[int]
) -> list[tuple[int, list[seccomp_bpf.Range]]]:
    """The ranges of each architecture as the kernel tells them apart: x32 is a part of x86_64."""
    tables = []
    permissive = default in (_RET_ALLOW, _RET_LOG)
    for token in architectures:
        if token == _X32:
            continue
        table = _ranges(simple[token], permissive, 0)
        if token == _AUDIT_X86_64:
            # Without x32 its numbers go on to libseccomp, which treats them as a bad architecture.
            x32 = simple.get(_X32)
            table += _ranges(x32, permissive, _X32_BIT) if x32 else [(_X32_BIT, None)]
        tables.append((token, table))
    return tables


def _ranges(calls: _Calls, permissive: bool, bit: int) -> list[seccomp_bpf.Range]:
    actions = {number | bit: action for number, action in calls.actions.items()}
    beyond = None if permissive else (calls.greatest | bit, _RET_ERRNO | ENOSYS)
    return seccomp_bpf.ranges(actions, beyond, bit)


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


def _add_rule(library: ctypes.CDLL, context: int, name: str, rule: _Rule) -> None:
    """One rule, or one for each comparison where several are about one argument.

    libseccomp cannot have an argument twice in a rule; runc then takes them as alternatives.
    """
    number = library.seccomp_syscall_resolve_name(name.encode())
    comparisons = rule.comparisons
    indexes = {comparison.argument for comparison in comparisons}
    groups = [[each] for each in comparisons] if len(indexes) < len(comparisons) else [comparisons]
    for group in groups:
        array = (_Comparison * len(group))(*group)
        result = library.seccomp_rule_add_array(context, rule.action, number, len(group), array)
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
