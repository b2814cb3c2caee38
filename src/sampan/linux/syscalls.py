"""System calls in the kernel's spelling, for what `os` does not offer in Python 3.11.

A wrapper converts its arguments, calls, and raises OSError with the call's name and the path; it
holds no policy. Paths are `str` or `bytes`; a wrapper that takes a directory file descriptor
resolves a relative path from there. Every file descriptor that comes back is close-on-exec.
"""

from __future__ import annotations

import ctypes
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

Path = str | bytes

libc = ctypes.CDLL(None, use_errno=True)
"""The C library; calls release the interpreter lock and keep errno."""

_held = ctypes.PyDLL(None, use_errno=True)
"""The same library, called with the interpreter lock held: for calls that return twice."""

# asm/unistd_64.h (x86_64) and asm-generic/unistd.h (aarch64); calls from 424 on share one number.
_NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {
        "add_key": 248,
        "bpf": 321,
        "capget": 125,
        "capset": 126,
        "execve": 59,
        "execveat": 322,
        "ioctl": 16,
        "ioprio_get": 252,
        "ioprio_set": 251,
        "keyctl": 250,
        "memfd_create": 319,
        "personality": 135,
        "pivot_root": 155,
        "prctl": 157,
        "prlimit64": 302,
        "rt_sigaction": 13,
        "sched_setattr": 314,
        "seccomp": 317,
        "setns": 308,
        "setsid": 112,
        "unshare": 272,
    },
    "aarch64": {
        "add_key": 217,
        "bpf": 280,
        "capget": 90,
        "capset": 91,
        "execve": 221,
        "execveat": 281,
        "ioctl": 29,
        "ioprio_get": 31,
        "ioprio_set": 30,
        "keyctl": 219,
        "memfd_create": 279,
        "personality": 92,
        "pivot_root": 41,
        "prctl": 167,
        "prlimit64": 261,
        "rt_sigaction": 134,
        "sched_setattr": 274,
        "seccomp": 277,
        "setns": 268,
        "setsid": 157,
        "unshare": 97,
    },
}

MACHINE = os.uname().machine
if MACHINE not in _NUMBERS:  # pragma: no cover - no such machine in the tests
    raise ImportError(f"no system call numbers for machine {MACHINE}")
_number = _NUMBERS[MACHINE]

SYS_add_key = _number["add_key"]
SYS_bpf = _number["bpf"]
SYS_capget = _number["capget"]
SYS_capset = _number["capset"]
SYS_execve = _number["execve"]
SYS_execveat = _number["execveat"]
SYS_ioctl = _number["ioctl"]
SYS_ioprio_get = _number["ioprio_get"]
SYS_ioprio_set = _number["ioprio_set"]
SYS_keyctl = _number["keyctl"]
SYS_memfd_create = _number["memfd_create"]
SYS_personality = _number["personality"]
SYS_pivot_root = _number["pivot_root"]
SYS_prctl = _number["prctl"]
SYS_prlimit64 = _number["prlimit64"]
SYS_rt_sigaction = _number["rt_sigaction"]
SYS_sched_setattr = _number["sched_setattr"]
SYS_seccomp = _number["seccomp"]
SYS_setns = _number["setns"]
SYS_setsid = _number["setsid"]
SYS_unshare = _number["unshare"]
SYS_pidfd_send_signal = 424
SYS_open_tree = 428
SYS_move_mount = 429
SYS_fsopen = 430
SYS_fsconfig = 431
SYS_fsmount = 432
SYS_fspick = 433
SYS_pidfd_open = 434
SYS_clone3 = 435
SYS_close_range = 436
SYS_openat2 = 437
SYS_mount_setattr = 442

# fcntl.h
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
O_PATH = 0o10000000

# linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# linux/sched.h
CLONE_NEWTIME = 0x00000080
CLONE_FS = 0x00000200
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

# linux/mount.h
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_SILENT = 0x8000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000
MS_LAZYTIME = 0x2000000
MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8
OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
FSOPEN_CLOEXEC = 0x1
FSMOUNT_CLOEXEC = 0x1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

# linux/keyctl.h
KEYCTL_JOIN_SESSION_KEYRING = 1
KEYCTL_SETPERM = 5
KEYCTL_DESCRIBE = 6

# asm-generic/signal.h; `signal` has them too, with enums that cost a start 3 ms
SIGKILL = 9
SIGCHLD = 17
SIGSTOP = 19
SIG_SETMASK = 2
NSIG = 64  # the highest number

# linux/close_range.h, linux/memfd.h
CLOSE_RANGE_CLOEXEC = 0x4
MFD_CLOEXEC = 0x1
MFD_ALLOW_SEALING = 0x2

# linux/magic.h
PROC_SUPER_MAGIC = 0x9FA0
TMPFS_MAGIC = 0x01021994
CGROUP2_SUPER_MAGIC = 0x63677270

_LINUX_CAPABILITY_VERSION_3 = 0x20080522


def check(result: int, call: str, path: Path | None = None) -> int:
    """Return `result`, or raise the OSError that errno tells when it is negative.

    Raises:
        OSError: names the call and, where one is given, the path.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise failure(number, call, path)
    return result


def failure(number: int, call: str, path: Path | None = None) -> OSError:
    """The OSError of an error's number, for calls that return it."""
    text = f"{call}: {os.strerror(number)}"
    return OSError(number, text) if path is None else OSError(number, text, os.fsdecode(path))


def _bytes(path: Path) -> bytes:
    return path if isinstance(path, bytes) else os.fsencode(path)


def _optional(text: Path | None) -> bytes | None:
    return None if text is None else _bytes(text)


# -- Processes and namespaces ------------------------------------------------------------------


class Clone(ctypes.Structure):
    """struct clone_args of linux/sched.h, as of its 88-byte version (Linux 5.7)."""

    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("pidfd", ctypes.c_uint64),
        ("child_tid", ctypes.c_uint64),
        ("parent_tid", ctypes.c_uint64),
        ("exit_signal", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("stack_size", ctypes.c_uint64),
        ("tls", ctypes.c_uint64),
        ("set_tid", ctypes.c_uint64),
        ("set_tid_size", ctypes.c_uint64),
        ("cgroup", ctypes.c_uint64),
    ]


def clone3(flags: int, *, exit_signal: int = SIGCHLD, cgroup_fd: int = -1) -> tuple[int, int]:
    """Clone this process without sharing memory; returns (pid, pidfd), (0, -1) in the child.

    `flags` are CLONE_NEW*, CLONE_PARENT (then `exit_signal` must be 0) and the like; a pidfd is
    always made, close-on-exec. With `cgroup_fd` the child begins in that version 2 cgroup.

    The call goes around the C library, so no handler of pthread_atfork(3) runs, and Python is not
    told: `linux.process.clone` does that and is what others should call. See clone(2).

    Raises:
        OSError: EPERM, EINVAL, EUSERS/ENOSPC (too many namespaces), EAGAIN, ENOMEM (the joined
            PID namespace has ended), ENOSYS.
    """
    pidfd = ctypes.c_int(-1)
    arguments = Clone(flags=flags | CLONE_PIDFD, exit_signal=exit_signal)
    arguments.pidfd = ctypes.addressof(pidfd)
    if cgroup_fd >= 0:
        arguments.flags |= CLONE_INTO_CGROUP
        arguments.cgroup = cgroup_fd
    size = ctypes.sizeof(arguments)
    pid = check(_held.syscall(SYS_clone3, ctypes.byref(arguments), size), "clone3")
    return (pid, pidfd.value) if pid else (0, -1)


def unshare(flags: int) -> None:
    """Give this process namespaces of its own; see unshare(2)."""
    check(libc.syscall(SYS_unshare, flags), "unshare")


def setns(fd: int, flags: int) -> None:
    """Join the namespace, or with a pidfd all the kinds in `flags`, of `fd`; see setns(2)."""
    check(libc.syscall(SYS_setns, fd, flags), "setns")


def pidfd_open(pid: int, flags: int = 0) -> int:
    """A file descriptor for process `pid`; see pidfd_open(2). Raises ESRCH for a reaped one."""
    return check(libc.syscall(SYS_pidfd_open, pid, flags), "pidfd_open")


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Send a signal to exactly the process of `pidfd`; see pidfd_send_signal(2)."""
    check(libc.syscall(SYS_pidfd_send_signal, pidfd, signal, None, 0), "pidfd_send_signal")


_prctl = libc.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def prctl(option: int, second: int = 0, third: int = 0, fourth: int = 0, fifth: int = 0) -> int:
    """Operate on this process; see prctl(2)."""
    return check(_prctl(option, second, third, fourth, fifth), "prctl")


def default_action(signal: int) -> None:
    """Give a signal its default action, also 32 and 33, which the C library keeps for itself.

    See rt_sigaction(2); struct sigaction of the kernel is all zeros then.
    """
    check(libc.syscall(SYS_rt_sigaction, signal, bytes(32), None, 8), "rt_sigaction")


def personality(persona: int) -> int:
    """Set the execution domain and return the former one; see personality(2)."""
    return check(libc.syscall(SYS_personality, ctypes.c_ulong(persona)), "personality")


def execveat(fd: int, path: Path, argv: Sequence[bytes], env: Sequence[bytes], flags: int) -> None:
    """Replace this process by the program at `path` under `fd`; returns never, or raises."""
    arguments = (ctypes.c_char_p * (len(argv) + 1))(*argv, None)
    environment = (ctypes.c_char_p * (len(env) + 1))(*env, None)
    check(
        libc.syscall(SYS_execveat, fd, _bytes(path), arguments, environment, flags),
        "execveat",
        path,
    )


def execve(path: Path, argv: Sequence[bytes], env: Sequence[bytes]) -> None:
    """Replace this process; unlike os.execve the environment may repeat names and lack `=`."""
    arguments = (ctypes.c_char_p * (len(argv) + 1))(*argv, None)
    environment = (ctypes.c_char_p * (len(env) + 1))(*env, None)
    check(libc.execve(_bytes(path), arguments, environment), "execve", path)


def prlimit64(pid: int, resource: int, soft: int, hard: int) -> None:
    """Set both limits of a process (0: this one); see prlimit(2). 2**64-1 is infinity."""
    limits = (ctypes.c_uint64 * 2)(soft, hard)
    check(libc.syscall(SYS_prlimit64, pid, resource, ctypes.byref(limits), None), "prlimit")


def ioprio_set(which: int, who: int, priority: int) -> None:
    """Set an I/O scheduling class and priority; see ioprio_set(2)."""
    check(libc.syscall(SYS_ioprio_set, which, who, priority), "ioprio_set")


def sched_setattr(
    pid: int,
    *,
    policy: int,
    flags: int = 0,
    nice: int = 0,
    priority: int = 0,
    runtime_ns: int = 0,
    deadline_ns: int = 0,
    period_ns: int = 0,
) -> None:
    """Set a process's scheduling policy and its attributes; see sched_setattr(2)."""
    size = 48
    attributes = struct.pack(
        "=IIQiIQQQ", size, policy, flags, nice, priority, runtime_ns, deadline_ns, period_ns
    )
    buffer = ctypes.create_string_buffer(attributes, size)
    check(libc.syscall(SYS_sched_setattr, pid, ctypes.byref(buffer), 0), "sched_setattr")


def sethostname(name: bytes) -> None:
    """Set the host name of the UTS namespace; see sethostname(2)."""
    check(libc.sethostname(name, ctypes.c_size_t(len(name))), "sethostname")


def setdomainname(name: bytes) -> None:
    """Set the NIS domain name of the UTS namespace; see setdomainname(2)."""
    check(libc.setdomainname(name, ctypes.c_size_t(len(name))), "setdomainname")


# -- Capabilities and keys ---------------------------------------------------------------------


def capget(pid: int = 0) -> tuple[int, int, int]:
    """(effective, permitted, inheritable) as bit masks; see capget(2)."""
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, pid)
    data = (ctypes.c_uint32 * 6)()
    check(libc.syscall(SYS_capget, ctypes.byref(header), ctypes.byref(data)), "capget")
    effective, permitted, inheritable = (data[i] | data[i + 3] << 32 for i in range(3))
    return effective, permitted, inheritable


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's capability sets from bit masks; see capset(2)."""
    header, data = capset_arguments(effective, permitted, inheritable)
    check(libc.syscall(SYS_capset, ctypes.byref(header), ctypes.byref(data)), "capset")


def capset_arguments(
    effective: int, permitted: int, inheritable: int
) -> tuple[ctypes.Array[ctypes.c_uint32], ctypes.Array[ctypes.c_uint32]]:
    """What capset(2) takes: a header and the sets, low halves first."""
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    low = [mask & 0xFFFFFFFF for mask in (effective, permitted, inheritable)]
    high = [mask >> 32 for mask in (effective, permitted, inheritable)]
    return header, (ctypes.c_uint32 * 6)(*low, *high)


def keyctl(operation: int, *arguments: int | bytes | None) -> int:
    """Operate on the kernel's keys; see keyctl(2)."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return check(libc.syscall(SYS_keyctl, operation, *words), "keyctl")


# -- Files -------------------------------------------------------------------------------------


def openat2(directory: int, path: Path, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """Open `path` from a directory with rules for its resolution; see openat2(2).

    The file descriptor is close-on-exec. An EAGAIN, which the kernel gives when a rename ran
    beside a RESOLVE_IN_ROOT or RESOLVE_BENEATH walk, is tried again a few times.
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    name = _bytes(path)
    for _ in range(64):
        result = int(libc.syscall(SYS_openat2, directory, name, how, 24))
        if result >= 0:
            return result
        number = ctypes.get_errno()
        if number not in (11, 4):  # EAGAIN, EINTR
            raise failure(number, "openat2", path)
    raise failure(11, "openat2", path)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """Close (or with CLOSE_RANGE_CLOEXEC mark) all file descriptors in a range."""
    arguments = [ctypes.c_uint(first), ctypes.c_uint(last)]
    check(libc.syscall(SYS_close_range, *arguments, flags), "close_range")


def memfd_create(name: str, flags: int = MFD_CLOEXEC) -> int:
    """An anonymous file in memory; see memfd_create(2)."""
    return check(libc.syscall(SYS_memfd_create, _bytes(name), flags), "memfd_create")


# -- Mounts ------------------------------------------------------------------------------------


def file_system_type(fd: int) -> int:
    """The magic number of the file system that a descriptor, also an O_PATH one, is of; fstatfs(2)."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs has 120 bytes, the type comes first
    check(libc.fstatfs(fd, buffer), "fstatfs")
    return ctypes.c_long.from_buffer(buffer).value


def mount(
    source: Path | None, target: Path, fstype: str | None, flags: int, data: Path | None = None
) -> None:
    """Mount a file system, or change a mount; see mount(2)."""
    kind = _optional(fstype)
    if libc.mount(_optional(source), _bytes(target), kind, ctypes.c_ulong(flags), _optional(data)):
        raise failure(ctypes.get_errno(), "mount", target)


def umount2(target: Path, flags: int = 0) -> None:
    """Unmount what is mounted on top at `target`; see umount(2)."""
    check(libc.umount2(_bytes(target), flags), "umount2", target)


def pivot_root(new_root: Path, put_old: Path) -> None:
    """Make new_root the root mount and move the old one to put_old; see pivot_root(2).

    Raises:
        OSError: EINVAL if new_root is not a mount point, or it or its parent mount is shared.
    """
    check(libc.syscall(SYS_pivot_root, _bytes(new_root), _bytes(put_old)), "pivot_root", new_root)


def open_tree(directory: int, path: Path, flags: int) -> int:
    """A file descriptor for a mount, or with OPEN_TREE_CLONE for a detached copy of it."""
    flags |= OPEN_TREE_CLOEXEC | (AT_EMPTY_PATH if not path else 0)
    return check(
        libc.syscall(SYS_open_tree, directory, _bytes(path), ctypes.c_uint(flags)),
        "open_tree",
        path,
    )


def move_mount(from_fd: int, to_fd: int, to_path: Path = b"") -> None:
    """Attach the mount of `from_fd` at `to_path` under `to_fd` (empty: at `to_fd` itself)."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if to_path else MOVE_MOUNT_T_EMPTY_PATH)
    check(
        libc.syscall(SYS_move_mount, from_fd, b"", to_fd, _bytes(to_path), flags),
        "move_mount",
        to_path or None,
    )


def mount_setattr(
    fd: int,
    path: Path = b"",
    *,
    set_attributes: int = 0,
    clear_attributes: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
    recursive: bool = False,
) -> None:
    """Change properties of a mount or, recursively, of a tree of mounts; see mount_setattr(2)."""
    attributes = struct.pack("=QQQQ", set_attributes, clear_attributes, propagation, userns_fd)
    flags = (AT_EMPTY_PATH if not path else 0) | (AT_RECURSIVE if recursive else 0)
    check(
        libc.syscall(
            SYS_mount_setattr, fd, _bytes(path), ctypes.c_uint(flags), attributes, len(attributes)
        ),
        "mount_setattr",
        path or None,
    )


def fsopen(fstype: str) -> int:
    """A context in which to configure a new file system instance; see fsopen(2)."""
    return check(libc.syscall(SYS_fsopen, _bytes(fstype), FSOPEN_CLOEXEC), "fsopen", fstype)


def fsconfig(fd: int, command: int, key: str | None = None, value: Path | None = None) -> None:
    """Set an option of, or create, the file system of a context; see fsconfig(2)."""
    check(
        libc.syscall(SYS_fsconfig, fd, command, _optional(key), _optional(value), 0),
        "fsconfig",
        key,
    )


def fsmount(fd: int, attributes: int = 0) -> int:
    """A detached mount of the file system that a context created; see fsmount(2)."""
    return check(libc.syscall(SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes), "fsmount")
