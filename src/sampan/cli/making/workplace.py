"""A directory for another program's work, and that program: both end when this process does.

    sampan  --- pipe: closed when it ends, however it ends --->  keeper  --- parent of --->  program
            <-- pipe: the program's wait status, and then its end --

The keeper is a process of its own in a session of its own, so neither Ctrl-C nor a `kill -9` of the
command reaches it. When the pipe closes it ends the program and removes the directory. Root's
programs get namespaces for mounts and processes, so that whatever they started or mounted is gone
with them. What a machine that went down left behind has no keeper, and is removed by the next one: a
keeper holds a lock on its directory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import time

from sampan.cli import signals
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PREFIX = "sampan-making-"
TERMINATE_S = 10.0
"""How long a program that can only be asked to end is waited for."""
ATTEMPTS, PAUSE_S = 50, 0.1
CHUNK_BYTES = 1 << 18
_ISOLATED = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
_PR_SET_PDEATHSIG = 1


class Workplace:
    """The directory, for the length of a `with` block; `directory` is its path."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._lifeline = self._told = -1
        self._keeper = 0
        self._directory_fd = -1
        self.directory = ""

    def __enter__(self) -> Workplace:
        _sweep(self._base)
        self.directory = os.path.join(self._base, PREFIX + os.urandom(6).hex())
        try:
            os.mkdir(self.directory, 0o711)
            self._directory_fd = _locked(self.directory)
        except OSError as error:
            raise CommandError(
                f"cannot work in {self._base}: {str(error.strerror).lower()}",
                hint="TMPDIR names another directory",
            ) from None
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._keeper:
            _remove(self.directory)
        else:
            os.close(self._lifeline)
            try:
                os.waitpid(self._keeper, 0)
            finally:
                os.close(self._told)
        os.close(self._directory_fd)

    def output(
        self, argv: Sequence[str], environ: dict[str, str], on_line: Callable[[str], None]
    ) -> Iterator[bytes]:
        """Run a program once; its standard output in blocks, its standard error by lines.

        Raises:
            CommandError: it ends with another status than 0, or cannot be run.
        """
        output, output_end = os.pipe2(os.O_CLOEXEC)
        errors, errors_end = os.pipe2(os.O_CLOEXEC)
        lifeline_end, self._lifeline = os.pipe2(os.O_CLOEXEC)
        self._told, told_end = os.pipe2(os.O_CLOEXEC)
        if os.geteuid() == 0:
            argv = [*_ISOLATED, *argv]
        self._keeper = os.fork()
        if self._keeper == 0:
            for fd in (output, errors, self._lifeline, self._told):
                os.close(fd)
            _keep(lifeline_end, told_end, argv, environ, (output_end, errors_end), self.directory)
        for fd in (lifeline_end, told_end, output_end, errors_end):
            os.close(fd)
        yield from _read_both(output, errors, on_line)
        self._check(argv)

    def _check(self, argv: Sequence[str]) -> None:
        word = os.read(self._told, 64)
        if not word:
            raise CommandError(f"{argv[0]} was given up: the process that watched it is gone")
        code = os.waitstatus_to_exitcode(int(word))
        if code:
            how = f"ended with status {code}" if code > 0 else f"was ended by signal {-code}"
            raise CommandError(how)


def _read_both(output: int, errors: int, on_line: Callable[[str], None]) -> Iterator[bytes]:
    """What comes out of the one, while lines of the other are passed on; until both have ended."""
    poller = select.poll()
    for fd in (output, errors):
        poller.register(fd, select.POLLIN)
    waiting = {output, errors}
    partial = b""
    try:
        while waiting:
            for fd, _ in poller.poll():
                data = os.read(fd, CHUNK_BYTES)
                if not data:
                    poller.unregister(fd)
                    waiting.discard(fd)
                elif fd == output:
                    yield data
                else:
                    *lines, partial = (partial + data).replace(b"\r", b"\n").split(b"\n")
                    for line in lines:
                        on_line(line.decode("utf-8", "replace"))
        if partial:
            on_line(partial.decode("utf-8", "replace"))
    finally:
        os.close(output)
        os.close(errors)


# -- The keeper -----------------------------------------------------------------------------------


def _keep(
    lifeline: int,
    told: int,
    argv: Sequence[str],
    environ: dict[str, str],
    outputs: tuple[int, int],
    directory: str,
) -> None:
    """What the keeper does with its life; never returns."""
    status = 1
    try:
        os.setsid()
        for name in ("INT", "TERM", "HUP", "QUIT", "PIPE"):
            signals.raw.signal(getattr(signals.raw, f"SIG{name}"), signals.raw.SIG_IGN)
        child = _start(argv, environ, outputs, directory)
        _let_go_of_stdio()
        for fd in outputs:
            os.close(fd)
        ended = _watch(child, lifeline)
        _tell(told, ended)
        select.select([lifeline], [], [])  # the files in it may still be wanted
        _remove(directory)
        status = 0
    finally:
        os._exit(status)


def _start(
    argv: Sequence[str], environ: dict[str, str], outputs: tuple[int, int], directory: str
) -> int:
    """The program, which the kernel kills when the keeper ends; its pid is its group's, too."""
    child = os.fork()
    if child:
        return child
    try:
        from sampan.linux import syscalls

        for name in ("INT", "TERM", "HUP", "QUIT", "PIPE"):
            signals.raw.signal(getattr(signals.raw, f"SIG{name}"), signals.raw.SIG_DFL)
        os.setpgid(0, 0)
        syscalls.prctl(_PR_SET_PDEATHSIG, signals.raw.SIGKILL)
        null = os.open(os.devnull, os.O_RDONLY)
        for fd, number in ((null, 0), (outputs[0], 1), (outputs[1], 2)):
            os.dup2(fd, number)
        os.chdir(directory)
        os.execvpe(argv[0], list(argv), environ)
    except OSError as error:
        os.write(2, f"E: {argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _let_go_of_stdio() -> None:
    """A terminal or a pipe that the command was given is not held by who stays behind it."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)


def _watch(child: int, lifeline: int) -> int:
    """Wait until the program ends, or end it because the command has; its wait status."""
    pidfd = os.pidfd_open(child)
    ready, _, _ = select.select([pidfd, lifeline], [], [])
    if pidfd not in ready:
        if os.geteuid() != 0:  # its own namespaces are its own to clean up
            _kill(child, signals.raw.SIGTERM)
            select.select([pidfd], [], [], TERMINATE_S)
        _kill(child, signals.raw.SIGKILL)
    os.close(pidfd)
    return os.waitpid(child, 0)[1]


def _kill(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _tell(fd: int, status: int) -> None:
    try:
        os.write(fd, str(status).encode())
    except BrokenPipeError:
        return


# -- Directories ----------------------------------------------------------------------------------


def _locked(path: str) -> int:
    """A descriptor of a directory with its lock, which processes forked from here share.

    Raises:
        BlockingIOError: another process has it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _sweep(base: str) -> None:
    """Remove what this user's commands left when the machine went down in the middle."""
    try:
        names = os.listdir(base)
    except OSError:
        return
    for name in names:
        path = os.path.join(base, name)
        if not name.startswith(PREFIX) or os.lstat(path).st_uid != os.geteuid():
            continue
        try:
            fd = _locked(path)
        except OSError:
            continue  # in use, or no directory
        _remove(path)
        os.close(fd)


def _remove(directory: str) -> None:
    """Remove a tree; what a program that is just being killed still writes is met by trying again."""
    from sampan.snapshots.trees import remove_tree

    for _ in range(ATTEMPTS):
        try:
            for name in os.listdir(directory):
                path = os.path.join(directory, name)
                if os.path.isdir(path) and not os.path.islink(path):
                    remove_tree(path)
                else:
                    os.unlink(path)
            os.rmdir(directory)
            return
        except FileNotFoundError:
            if not os.path.lexists(directory):
                return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
                return
        time.sleep(PAUSE_S)
