"""Project quotas: a limit for all that lies below a directory, by the file system itself.

A directory has a project's number, which what is made in it inherits; the file system counts the blocks
of each number and refuses those beyond its limit (EDQUOT on ext4, ENOSPC on xfs). statfs(2) in such a
directory shows the limit as the size.

Source: quotactl(2), quotactl_fd(2) (Linux 5.14), linux/fs.h, linux/dqblk_xfs.h: its calls serve ext4, too.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from sampan.linux import syscalls as sys

# asm-generic/unistd.h
_SYS_quotactl_fd = 443
# linux/fs.h
_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
_FS_XFLAG_PROJINHERIT = 0x200
_FSXATTR = struct.Struct("=5I8s")  # flags, extent size, extents, project, copy-on-write extent size
# linux/quota.h
_PRJQUOTA = 2
# linux/dqblk_xfs.h
_Q_XGETQUOTA = 0x5803
_Q_XSETQLIM = 0x5804
_Q_XGETQSTAT = 0x5805
_FS_DQUOT_VERSION = 1
_FS_PROJ_QUOTA = 2
_FS_DQ_BHARD = 8
_FS_QUOTA_PDQ_ENFD = 0x20
_BLOCK = 512
# version, kind, fields to set, project, hard and soft limit of blocks, of inodes, blocks and inodes in use …
_DISK_QUOTA = struct.Struct("=bbHI6Q56s")
_STAT_BYTES = 128

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def enforced(path: str) -> bool:
    """Does the file system of a directory keep projects to their limits?"""
    answer = ctypes.create_string_buffer(_STAT_BYTES)
    try:
        _quotactl(path, _Q_XGETQSTAT, 0, answer)
    except OSError:
        return False  # no quota there, none that is on, or a kernel without the call
    (flags,) = struct.unpack_from("=H", answer, 2)
    return bool(flags & _FS_QUOTA_PDQ_ENFD)


def project(path: str) -> int:
    """The project that a directory belongs to; 0 where the file system knows none.

    Raises:
        OSError: the directory cannot be opened.
    """
    fd = os.open(path, _DIRECTORY)
    try:
        return int(_FSXATTR.unpack(fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size)))[3])
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP):
            raise
        return 0
    finally:
        os.close(fd)


def set_project(path: str, number: int) -> None:
    """Make a directory belong to a project, as will what is made in it.

    Raises:
        OSError: EOPNOTSUPP where the file system knows none.
    """
    fd = os.open(path, _DIRECTORY)
    try:
        flags, *others = _FSXATTR.unpack(fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size)))
        others[2] = number
        fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, _FSXATTR.pack(flags | _FS_XFLAG_PROJINHERIT, *others))
    except OSError as error:
        raise OSError(error.errno, f"FS_IOC_FSSETXATTR: {error.strerror}", path) from None
    finally:
        os.close(fd)


def is_taken(path: str, number: int) -> bool:
    """Has a project of this file system a limit, or files?

    Raises:
        OSError: ESRCH where there are no project quotas.
    """
    answer = ctypes.create_string_buffer(_DISK_QUOTA.size)
    try:
        _quotactl(path, _Q_XGETQUOTA, number, answer)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return any(_DISK_QUOTA.unpack(answer)[4:10])


def set_limit(path: str, number: int, size_bytes: int) -> None:
    """Limit what the files of a project take, to whole blocks of 512 bytes; 0 for no limit.

    Raises:
        OSError: EPERM, or ESRCH where there are no project quotas.
    """
    blocks = -(-size_bytes // _BLOCK)
    wish = _DISK_QUOTA.pack(
        *(_FS_DQUOT_VERSION, _FS_PROJ_QUOTA, _FS_DQ_BHARD, number, blocks),
        *(0, 0, 0, 0, 0, b""),
    )
    _quotactl(path, _Q_XSETQLIM, number, ctypes.create_string_buffer(wish, len(wish)))


def _quotactl(path: str, command: int, number: int, data: ctypes.Array[ctypes.c_char]) -> None:
    fd = os.open(path, _DIRECTORY)
    try:
        if sys.libc.syscall(_SYS_quotactl_fd, fd, command << 8 | _PRJQUOTA, number, data) == -1:
            number = ctypes.get_errno()
            raise OSError(number, f"quotactl_fd: {os.strerror(number)}", path)
    finally:
        os.close(fd)
