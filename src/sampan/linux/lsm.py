"""Linux security modules: which are there, and the label that the next exec takes.

A label is written through a file descriptor of a procfs that the caller trusts, and only to a file
of that very mount: a container that puts something of its own over /proc/self/attr must not be
able to swallow or redirect the write.
"""

from __future__ import annotations

import os

from sampan.linux import syscalls as sys

_APPARMOR_FS = "/sys/kernel/security/apparmor"
_ATTR = sys.RESOLVE_NO_XDEV | sys.RESOLVE_NO_MAGICLINKS | sys.RESOLVE_BENEATH


def apparmor_enabled() -> bool:
    """Does the kernel confine by AppArmor?"""
    try:
        with open("/sys/module/apparmor/parameters/enabled", "rb") as file:
            return file.read(1) == b"Y"
    except OSError:
        return False


def apparmor_revision() -> int:
    """The number of the kernel's AppArmor policy, another one after each load or removal.

    Raises:
        OSError: the kernel does not say; securityfs may not be mounted.
    """
    fd = os.open(f"{_APPARMOR_FS}/revision", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 32))
    finally:
        os.close(fd)


def apparmor_profile_loaded(name: str) -> bool:
    """Is a profile of this name in the kernel?

    Raises:
        OSError: the kernel does not say; securityfs may not be mounted.
    """
    with open(f"{_APPARMOR_FS}/profiles", "rb") as file:
        return any(line.rpartition(b" (")[0] == name.encode() for line in file)


def apparmor_label() -> str:
    """The profile that confines this process, `unconfined` where none does.

    Raises:
        OSError: the kernel has no AppArmor.
    """
    try:
        file = open("/proc/self/attr/apparmor/current", "rb")
    except FileNotFoundError:
        file = open("/proc/self/attr/current", "rb")
    with file:
        return file.read().decode(errors="replace").strip().rpartition(" (")[0] or "unconfined"


def selinux_enabled() -> bool:
    """Is an SELinux policy loaded?"""
    return os.path.exists("/sys/fs/selinux/enforce")


def set_apparmor_exec(proc_fd: int, profile: str) -> None:
    """Have the next exec of this process run under an AppArmor profile.

    Raises:
        OSError: ENOENT if no such profile is loaded, EACCES if the change is not allowed.
    """
    data = f"exec {profile}".encode()
    try:
        _write_attribute(proc_fd, "self/attr/apparmor/exec", data)
    except FileNotFoundError:
        _write_attribute(proc_fd, "self/attr/exec", data)


def set_selinux_exec(proc_fd: int, label: str) -> None:
    """Have the next exec of this process run with an SELinux label."""
    _write_attribute(proc_fd, "self/attr/exec", label.encode())


def _write_attribute(proc_fd: int, name: str, data: bytes) -> None:
    fd = sys.openat2(proc_fd, name, os.O_WRONLY, resolve=_ATTR)
    try:
        os.write(fd, data)
    except OSError as error:
        error.filename = f"/proc/{name}"
        raise
    finally:
        os.close(fd)
