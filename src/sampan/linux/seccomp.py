"""Seccomp filters: OCI `linux.seccomp` compiled to classic BPF, kept on disk, loaded by seccomp(2).

Compiling the default profile takes some ten milliseconds, loading the result half a one. So a
program is compiled once for each profile, libseccomp version and architecture.

Source: seccomp(2), seccomp_rule_add(3); runtime-spec config-linux.md "Seccomp".
"""

from __future__ import annotations

import ctypes
import os

from sampan.errors import RuntimeFailure
from sampan.linux.syscalls import SYS_seccomp, check, libc

TYPE_CHECKING = False
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

_MAXIMUM_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_GENERATION = b"2"  # of the code that `seccomp_compile` writes; part of the cache's key


def compile_profile(profile: Mapping[str, Any]) -> bytes:
    """OCI `linux.seccomp` as an array of struct sock_filter; see `seccomp_compile`.

    Raises:
        RuntimeFailure: the profile is wrong, or libseccomp is missing.
    """
    from sampan.linux import seccomp_compile

    return seccomp_compile.compile_profile(profile)


def action_available(action: int) -> bool:
    """Whether the running kernel knows the SECCOMP_RET_* value; SECCOMP_GET_ACTION_AVAIL of seccomp(2)."""
    value = ctypes.c_uint32(action)
    return bool(libc.syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(value)) == 0)


# Loading


def load(program: bytes, flags: Sequence[str] | None = None) -> int | None:
    """Put the calling thread under `program`; the fd for notifications if NEW_LISTENER is in flags.

    Without flags (None) SPEC_ALLOW is set, as runc does: a filter shall not slow the container by
    mitigations it did not ask for. Needs no_new_privs or CAP_SYS_ADMIN.

    Raises:
        RuntimeFailure: an unknown flag, or the kernel refuses.
    """
    mode, bits, filter = load_arguments(program, flags)
    try:
        result = check(libc.syscall(SYS_seccomp, mode, bits, ctypes.byref(filter)), "seccomp")
    except OSError as error:
        raise load_failure(error) from error
    return result if bits & FLAGS[NEW_LISTENER] else None


class Filter(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def load_arguments(program: bytes, flags: Sequence[str] | None) -> tuple[int, int, Filter]:
    """What `load` gives to seccomp(2).

    Raises:
        RuntimeFailure: an unknown flag, or no program.
    """
    names = ("SECCOMP_FILTER_FLAG_SPEC_ALLOW",) if flags is None else flags
    bits = 0
    for name in names:
        if name not in FLAGS:
            raise RuntimeFailure("seccomp", f"unknown seccomp flag {name!r}")
        bits |= FLAGS[name]
    if bits & FLAGS[NEW_LISTENER] and bits & FLAGS["SECCOMP_FILTER_FLAG_TSYNC"]:
        bits |= SECCOMP_FILTER_FLAG_TSYNC_ESRCH
    if not program or len(program) % 8:
        raise RuntimeFailure("seccomp", "the compiled seccomp program is damaged")
    filter = Filter(len(program) // 8)
    filter.text = ctypes.create_string_buffer(program, len(program))  # lives as long as it
    filter.instructions = ctypes.addressof(filter.text)
    return SECCOMP_SET_MODE_FILTER, bits, filter


def load_failure(error: OSError) -> RuntimeFailure:
    """The kernel's refusal of a program."""
    reason = os.strerror(error.errno or 0)
    return RuntimeFailure("seccomp", f"load the seccomp filter: {reason}", errno=error.errno)


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

    from sampan.linux import seccomp_compile

    canonical = json.dumps(profile, sort_keys=True, separators=(",", ":")).encode()
    parts = (
        _GENERATION,
        seccomp_compile.library_version().encode(),
        os.uname().machine.encode(),
        canonical,
    )
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
