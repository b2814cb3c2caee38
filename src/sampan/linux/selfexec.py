"""Running our own interpreter so that a container cannot overwrite it.

A runtime that enters a container's namespaces is for a moment a process that the container can
look at: /proc/PID/exe then leads to the runtime's own program file, and whoever opens that link
for writing after the exec replaces the machine's runtime (CVE-2019-5736). Our program file is the
Python interpreter. `readonly_interpreter` gives a file descriptor of it on a detached mount that
is read-only and belongs to no mount namespace; started through that, /proc/PID/exe leads to the
read-only mount, and opening it for writing fails with EROFS for everybody.

Together with PR_SET_DUMPABLE 0 before namespaces are joined, which hides /proc/PID/{exe,fd,mem}
from all but the machine's root, this closes the way twice.
"""

from __future__ import annotations

import os
import sys as python

from sampan.linux import syscalls as sys


def readonly_interpreter() -> int:
    """An O_PATH-like file descriptor of this interpreter's file on a read-only detached mount.

    Execute it by the path `/proc/self/fd/N` with `sys.executable` as argv[0], so that a virtual
    environment is found as usual; the descriptor is close-on-exec and may be closed after it. Cost:
    two system calls.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN.
    """
    tree = sys.open_tree(sys.AT_FDCWD, os.path.realpath(python.executable), sys.OPEN_TREE_CLONE)
    try:
        sys.mount_setattr(tree, set_attributes=sys.MOUNT_ATTR_RDONLY | sys.MOUNT_ATTR_NOSUID)
    except OSError:
        os.close(tree)
        raise
    return tree


def interpreter_is_readonly() -> bool:
    """Does this process run from a mount that is read-only?"""
    return bool(os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY)
