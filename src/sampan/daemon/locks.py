"""One daemon for each data root, and the file that says which process it is."""

from __future__ import annotations

import fcntl
import os

from sampan.errors import Conflict, Unavailable


class DataRootLock:
    """Holds a data root for this process; the kernel lets go when the process ends.

    Raises:
        Conflict: another daemon has it.
    """

    def __init__(self, data_root: str) -> None:
        os.makedirs(data_root, mode=0o711, exist_ok=True)
        self._fd = os.open(f"{data_root}/daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _claim(self._fd):
            holder = os.read(self._fd, 32).decode(errors="replace").strip()
            os.close(self._fd)
            raise Conflict(
                f"another daemon{f' (pid {holder})' if holder else ''} uses {data_root}",
                hint="stop it, or choose another --data-root",
            )

    def close(self) -> None:
        os.close(self._fd)


class PidFile:
    """The daemon's pid for `sampan daemon stop`; taken away when the daemon ends.

    The file is locked, so a pid that a crash left behind and another process has now means nothing.

    Raises:
        Conflict: a living daemon has it.
        Unavailable: it cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Unavailable(f"cannot write the PID file {path}: {error.strerror}") from error
        if not _claim(self._fd):
            os.close(self._fd)
            raise Conflict(
                f"process with PID {read_pid(path)} is still running, says {path}",
                hint="stop that daemon, or choose another --pidfile",
            )

    def close(self) -> None:
        os.unlink(self._path)
        os.close(self._fd)


def _claim(fd: int) -> bool:
    """Lock an open file and write this process's pid into it; False when another holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    os.ftruncate(fd, 0)
    os.write(fd, b"%d\n" % os.getpid())
    return True


def read_pid(path: str) -> int:
    """The pid in a file; 0 when there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read(32).strip()
    except OSError:
        return 0
    return int(text) if text.isdecimal() else 0
