"""Finding the program in the container and becoming it.

The texts are those of Go's os/exec as runc passes them on: dockerd and its clients tell 127 (not
found) from 126 (cannot be run) by them.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.errors import RuntimeFailure
from sampan.linux import process, vfork
from sampan.linux import syscalls as sys
from sampan.runtime import identity as identities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.runtime.identity import Identity


def find(identity: Identity) -> str:
    """The path of `args[0]`, looked up as the container's user in the container's PATH.

    Raises:
        RuntimeFailure: stage `exec`; ENOENT: not found, EACCES: found and cannot be run.
    """
    name = identity.args[0]
    if "/" in name:
        _check(name, name)
        return name
    refused: OSError | None = None
    for directory in identities.search_path(identity.environment).split(":"):
        path = f"{directory or '.'}/{name}"
        try:
            _probe(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            refused = refused or error
            continue
        return path
    if refused is not None and refused.errno == errno.EACCES and name:
        raise _failure(name, "permission denied", errno.EACCES)
    raise _failure(name, "executable file not found in $PATH", errno.ENOENT)


def _check(name: str, path: str) -> None:
    try:
        _probe(path)
    except FileNotFoundError:
        raise _failure(name, f"stat {path}: no such file or directory", errno.ENOENT) from None
    except NotADirectoryError:
        raise _failure(name, f"stat {path}: not a directory", errno.ENOTDIR) from None
    except IsADirectoryError:
        # runc's words and, for clients older than them, the ones that mean 126
        raise _failure(name, "is a directory: permission denied", errno.EISDIR) from None
    except PermissionError:
        raise _failure(name, "permission denied", errno.EACCES) from None
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise _failure(name, f"stat {path}: {reason}", error.errno or errno.EIO) from error


def _probe(path: str) -> None:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory", path)
    if not os.access(path, os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, "permission denied", path)


def _failure(name: str, reason: str, number: int) -> RuntimeFailure:
    return RuntimeFailure("exec", f'exec: "{name}": {reason}', path=name, errno=number)


def become(path: str, identity: Identity) -> None:
    """Replace this process by the program; returns never.

    Raises:
        RuntimeFailure: stage `exec` with the kernel's number (ENOEXEC: exec format error …).
    """
    process.default_signals()
    try:
        sys.execve(path, *_words(identity))
    except OSError as error:
        raise exec_failure(path, error) from error


def call(path: str, identity: Identity) -> tuple[str, int, *tuple[object, ...]]:
    """The execve(2) of `become`, for `linux.vfork`."""
    argv, env = _words(identity)
    return "execve", sys.SYS_execve, os.fsencode(path), vfork.words(argv), vfork.words(env)


def exec_failure(path: str, error: OSError) -> RuntimeFailure:
    """Why the program at `path` could not be run."""
    number = error.errno or 0
    reason = "exec format error" if number == errno.ENOEXEC else os.strerror(number)
    message = f"exec {path}: {reason.lower()}"
    return RuntimeFailure("exec", message, path=path, errno=error.errno)


def _words(identity: Identity) -> tuple[list[bytes], list[bytes]]:
    argv = [os.fsencode(word) for word in identity.args]
    return argv, [os.fsencode(entry) for entry in identity.environment]
