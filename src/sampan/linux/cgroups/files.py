"""Reading and writing the kernel's small files, with failures that name file and value."""

from __future__ import annotations

import os

from sampan.errors import RuntimeFailure

_READ = os.O_RDONLY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CLOEXEC


def failure(error: OSError, action: str, path: str) -> RuntimeFailure:
    """A RuntimeFailure of stage `cgroup` for `error`, which `action` on `path` met."""
    return RuntimeFailure(
        "cgroup", f"{action}: {os.strerror(error.errno or 0)}", path=path, errno=error.errno
    )


def write_raw(path: str, value: bytes) -> None:
    """Write `value` to `path` in one write(2), as control files want it; OSError as it comes."""
    fd = os.open(path, _WRITE)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)


def write(path: str, value: str) -> None:
    """Write `value` to the control file `path`.

    Raises:
        RuntimeFailure: the kernel refused; the message has the value and the file.
    """
    try:
        write_raw(path, value.encode())
    except OSError as error:
        raise failure(error, f"write {value!r} to {path}", path) from error


def read(path: str) -> str:
    """The text of `path`, at most a megabyte.

    Raises:
        RuntimeFailure: it cannot be read.
    """
    try:
        return read_raw(path)
    except OSError as error:
        raise failure(error, f"read {path}", path) from error


def read_raw(path: str) -> str:
    """The text of `path`; OSError as it comes. seq_file hands out a page or less a call."""
    fd = os.open(path, _READ)
    try:
        text = os.read(fd, 65536)
        chunk = text
        while chunk and len(text) < 1 << 20:
            chunk = os.read(fd, 65536)
            text += chunk
    finally:
        os.close(fd)
    return text.decode(errors="surrogateescape")


def read_optional(path: str) -> str | None:
    """The text of `path`; None where there is no such file or the kernel does not support it."""
    try:
        return read_raw(path)
    except OSError:
        return None


def make_directory(path: str) -> bool:
    """Create the cgroup directory `path`; False if it is there already, or its parent is not.

    Raises:
        RuntimeFailure: any other refusal.
    """
    try:
        os.mkdir(path, 0o755)
    except (FileExistsError, FileNotFoundError):
        return False
    except OSError as error:
        raise failure(error, f"create cgroup {path}", path) from error
    return True


def make_directories(root: str, path: str) -> None:
    """Create `root` + `path`, parents included; `root` exists and `path` begins with a slash.

    Raises:
        RuntimeFailure: a directory cannot be made.
    """
    directory = root + path
    if make_directory(directory) or os.path.isdir(directory):
        return
    partial = root
    for name in path.strip("/").split("/"):
        partial += "/" + name
        make_directory(partial)
    if not os.path.isdir(directory):
        raise RuntimeFailure("cgroup", f"create cgroup {directory}: it vanished", path=directory)
