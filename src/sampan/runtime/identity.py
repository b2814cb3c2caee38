"""Who a container's process is: user, capabilities, limits, labels, scheduling, directory.

`prepare` reads `process` of the OCI configuration in the runtime, where mistakes are cheap to tell;
`assume` puts it into force in the process itself, inside the container's namespaces.
"""

from __future__ import annotations

import errno
import os

from sampan.errors import RuntimeFailure
from sampan.linux import capabilities, lsm, process
from sampan.linux import syscalls as sys
from sampan.runtime import users
from sampan.runtime.messages import os_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.linux.capabilities import CapabilitySets
    from sampan.runtime.messages import Progress

_INFINITY = 2**64 - 1
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_available: int | None = None


def available_capabilities() -> int:
    """This process's bounding set, read once: it can only shrink, and nothing here shrinks it."""
    global _available
    if _available is None:
        _available = capabilities.bounding()
    return _available


class Identity:
    """`process` of the OCI runtime-spec, checked; the raw mapping is kept for the simple parts."""

    __slots__ = (
        "additional_gids",
        "apparmor",
        "args",
        "environment",
        "gid",
        "no_new_privileges",
        "raw",
        "selinux",
        "sets",
        "uid",
        "umask",
    )

    def __init__(self, raw: Mapping[str, Any], sets: CapabilitySets) -> None:
        user = raw.get("user") or {}
        self.raw = raw
        self.sets = sets
        self.uid: int = user.get("uid", 0)
        self.gid: int = user.get("gid", 0)
        self.additional_gids: list[int] = list(user.get("additionalGids") or ())
        self.umask: int = user["umask"] if user.get("umask") is not None else 0o022
        self.no_new_privileges = bool(raw.get("noNewPrivileges"))
        self.args: list[str] = list(raw.get("args") or ())
        self.environment: list[str] = list(raw.get("env") or ())
        self.apparmor: str = raw.get("apparmorProfile") or ""
        self.selinux: str = raw.get("selinuxLabel") or ""


def prepare(raw: Mapping[str, Any], warnings: list[str]) -> Identity:
    """Check `process`; what this machine cannot give is left out with a warning.

    Raises:
        RuntimeFailure: stage `config`: no arguments, an unknown limit, a label without its module.
    """
    if not raw.get("args"):
        raise RuntimeFailure("config", "process.args must be set")
    named = raw.get("capabilities") or {}
    unknown = sorted(
        {name for names in named.values() for name in capabilities.unknown(names or ())}
    )
    if unknown:
        warnings.append(f"ignoring unknown or unavailable capabilities: {' '.join(unknown)}")
    sets = capabilities.parse_sets(named)
    missing = sets.permitted & ~available_capabilities()
    if missing:
        names = " ".join(capabilities.names_of(missing))
        warnings.append(f"this machine does not have, and the container goes without: {names}")
    identity = Identity(raw, sets.limited_to(available_capabilities()))
    _check(identity)
    return identity


def _check(identity: Identity) -> None:
    raw = identity.raw
    if identity.apparmor and identity.apparmor != "unconfined" and not lsm.apparmor_enabled():
        raise RuntimeFailure(
            "config", "apparmor profile specified in the configuration, but apparmor is not enabled"
        )
    if identity.selinux and not lsm.selinux_enabled():
        raise RuntimeFailure(
            "config",
            "selinux label is specified in config, but selinux is disabled or not supported",
        )
    for limit in raw.get("rlimits") or ():
        if limit.get("type") not in process.RLIMITS:
            raise RuntimeFailure("config", f"invalid rlimit type: {limit.get('type')}")
    io_class = (raw.get("ioPriority") or {}).get("class")
    if io_class and io_class not in process.IO_PRIORITY_CLASSES:
        raise RuntimeFailure("config", f"invalid ioPriority.class: {io_class}")
    policy = (raw.get("scheduler") or {}).get("policy")
    if policy is not None and policy not in process.SCHEDULING_POLICIES:
        raise RuntimeFailure("config", f"invalid scheduler policy: {policy}")


def look_up_user(identity: Identity) -> None:
    """Resolve names in `user` from the container's own files; sets HOME where it is missing."""
    user = identity.raw.get("user") or {}
    home = ""
    if user.get("username") or user.get("additionalGroups"):
        found = users.resolve(
            user.get("username") or str(identity.uid), list(user.get("additionalGroups") or ())
        )
        identity.uid, identity.gid, home = found.uid, found.gid, found.home
        identity.additional_gids = list(found.additional_gids)
    if not any(entry.startswith("HOME=") and entry != "HOME=" for entry in identity.environment):
        kept = [entry for entry in identity.environment if entry != "HOME="]
        identity.environment = [*kept, f"HOME={home or _home(identity.uid)}"]


def _home(uid: int) -> str:
    try:
        return users.resolve(str(uid), []).home or "/"
    except RuntimeFailure:
        return "/"


def set_limits(identity: Identity) -> None:
    """Set the resource limits of this process, which still has its capabilities.

    Raises:
        RuntimeFailure: a raise that this machine does not allow.
    """
    for limit in identity.raw.get("rlimits") or ():
        soft, hard = (_INFINITY if limit[key] < 0 else limit[key] for key in ("soft", "hard"))
        try:
            process.set_limit(limit["type"], soft, hard)
        except OSError as error:
            message = f"set limit {limit['type']} to {limit['soft']}:{limit['hard']}: "
            message += (error.strerror or "").rpartition(": ")[2].lower()
            hint = None
            if error.errno == errno.EPERM:
                hint = (
                    "raising a hard limit needs CAP_SYS_RESOURCE, which this machine may not give"
                )
            raise RuntimeFailure("rlimit", message, errno=error.errno, hint=hint) from error


def set_scheduling(identity: Identity, progress: Progress) -> None:
    """Apply scheduler, I/O priority, memory policy and CPU affinity of `process`."""
    raw = identity.raw
    if scheduler := raw.get("scheduler"):
        progress.at("scheduler")
        process.set_scheduler(scheduler)
    if priority := raw.get("ioPriority"):
        progress.at("ioprio")
        process.set_io_priority(priority["class"], priority.get("priority") or 0)
    if affinity := raw.get("execCPUAffinity"):
        progress.at("affinity")
        cpus = affinity.get("final") or affinity.get("initial")
        if cpus:
            os.sched_setaffinity(0, process.parse_list(cpus))


def set_labels(identity: Identity, proc_fd: int, progress: Progress) -> None:
    """Say which AppArmor profile or SELinux label the program will run with."""
    if identity.apparmor:
        progress.at("apparmor", identity.apparmor)
        try:
            lsm.set_apparmor_exec(proc_fd, identity.apparmor)
        except OSError as error:
            raise RuntimeFailure(
                "apparmor",
                f"unable to apply apparmor profile {identity.apparmor}: "
                f"{(error.strerror or '').lower()}",
                path=identity.apparmor,
                errno=error.errno,
            ) from error
    if identity.selinux:
        progress.at("selinux", identity.selinux)
        lsm.set_selinux_exec(proc_fd, identity.selinux)


def assume(identity: Identity, progress: Progress, *, keep_admin: bool) -> None:
    """Change user, groups and capabilities for good; also enter the working directory.

    With `keep_admin`, CAP_SYS_ADMIN stays for loading a seccomp filter without no_new_privs;
    `finish` then drops it. All of Python's calls before exec still work afterwards.

    Raises:
        RuntimeFailure, OSError: what the kernel refused, at the step noted in `progress`.
    """
    if identity.no_new_privileges:
        progress.at("no_new_privs")
        sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
    sets = identity.sets
    progress.at("capabilities")
    capabilities.drop_bounding(sets.bounding, available_capabilities())
    entered = _enter_directory(identity, postpone=True)
    progress.at("user", None)
    sys.prctl(sys.PR_SET_KEEPCAPS, 1)
    _change_user(identity)
    sys.prctl(sys.PR_SET_KEEPCAPS, 0)
    if not entered:
        _enter_directory(identity, postpone=False)
    _verify_directory(identity)
    progress.at("capabilities")
    extra = capabilities.CAP_SYS_ADMIN if keep_admin else 0
    extra &= sys.capget()[1]
    sys.capset(sets.effective | extra, sets.permitted | extra, sets.inheritable)
    capabilities.set_ambient(sets.ambient & sets.permitted & sets.inheritable)
    os.umask(identity.umask)


def finish(identity: Identity, *, keep_admin: bool) -> None:
    """Drop what `assume` kept for loading the seccomp filter."""
    sets = identity.sets
    if keep_admin:
        sys.capset(sets.effective, sets.permitted, sets.inheritable)


def _change_user(identity: Identity) -> None:
    try:
        os.setgroups(identity.additional_gids)
    except PermissionError:
        if identity.additional_gids or not _groups_denied():
            raise
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)


def _groups_denied() -> bool:
    with open("/proc/self/setgroups", "rb") as file:
        return file.read().strip() == b"deny"


def _enter_directory(identity: Identity, *, postpone: bool) -> bool:
    """Change to `cwd`; False if the user may reach it and root may not (NFS, FUSE)."""
    cwd = identity.raw.get("cwd") or "/"
    try:
        os.chdir(cwd)
    except PermissionError as error:
        if postpone:
            return False
        raise _directory_failure(cwd, error) from error
    except OSError as error:
        raise _directory_failure(cwd, error) from error
    return True


def _directory_failure(cwd: str, error: OSError) -> RuntimeFailure:
    reason = (error.strerror or "").lower()
    message = f'chdir to cwd ("{cwd}") set in config.json failed: {reason}'
    return RuntimeFailure("chdir", message, path=cwd, errno=error.errno)


def _verify_directory(identity: Identity) -> None:
    """Refuse a working directory outside of the root, as in CVE-2024-21626."""
    cwd = identity.raw.get("cwd") or "/"
    try:
        inside = os.getcwd().startswith("/")
    except OSError as error:
        inside = error.errno in (errno.EACCES, errno.EPERM)
        if not inside:
            raise os_failure("chdir", error, cwd) from error
    if not inside:
        raise RuntimeFailure(
            "chdir",
            "current working directory is outside of container mount namespace root",
            path=cwd,
        )


def search_path(environment: list[str]) -> str:
    """The PATH that a program is looked up with; the kernel's last entry of a name wins."""
    found = [entry[5:] for entry in environment if entry.startswith("PATH=")]
    return found[-1] if found else _DEFAULT_PATH
