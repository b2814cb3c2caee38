"""Running command lines as a person would: output, exit code, a terminal if asked for."""

from __future__ import annotations

import fcntl
import functools
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType


class Result:
    """What a command came to."""

    def __init__(
        self, argv: Sequence[str], code: int, out: str, err: str, raw: bytes = b""
    ) -> None:
        self.argv, self.code, self.out, self.err, self.raw = argv, code, out, err, raw

    @property
    def line(self) -> str:
        """Its output without the end of the line."""
        return self.out.strip()

    def __repr__(self) -> str:
        return f"<{' '.join(self.argv)}: exit {self.code}, stdout {self.out[-2000:]!r}, stderr {self.err[-2000:]!r}>"


def run(
    argv: Sequence[str],
    *,
    stdin: bytes | str | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
    check: bool = True,
) -> Result:
    """Run to the end.

    Raises:
        AssertionError: it failed, unless `check` is off; or it ran past `timeout_s`.
    """
    if isinstance(stdin, str):
        stdin = stdin.encode()
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    ) as process:
        try:
            out, err = process.communicate(stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(
                f"{' '.join(argv)}: no end after {timeout_s:g} s; stdout {out!r}, stderr {err!r}"
            ) from None
    result = Result(
        argv, process.returncode, out.decode(errors="replace"), err.decode(errors="replace"), out
    )
    assert not check or result.code == 0, result
    return result


class Terminal:
    """A command on a pseudo-terminal of its own: type into it, wait for what it prints."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        rows: int = 24,
        columns: int = 80,
    ) -> None:
        self.argv = argv
        self.screen = b""
        self.master, slave = pty.openpty()
        self.resize(rows, columns, notify=False)
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True,
            preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def resize(self, rows: int, columns: int, *, notify: bool = True) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if notify:
            os.killpg(self.process.pid, signal.SIGWINCH)

    def type(self, data: str | bytes) -> None:
        os.write(self.master, data.encode() if isinstance(data, str) else data)

    def resize_until(self, rows: int, columns: int, text: str, *, timeout_s: float = 45.0) -> None:
        """Resize, and say so again until `text` is printed: a client may not listen for it yet."""
        self.resize(rows, columns)
        deadline = time.monotonic() + timeout_s
        while text.encode() not in self.screen:
            if time.monotonic() > deadline:
                raise AssertionError(f"no {text!r} after the resize; there is {self.screen!r}")
            if not self._read(time.monotonic() + 0.2):
                os.killpg(self.process.pid, signal.SIGWINCH)
        self.expect(text)

    def expect(self, text: str, *, timeout_s: float = 45.0) -> str:
        """Read until `text` has been printed; forget and return all up to its end."""
        needle = text.encode()
        deadline = time.monotonic() + timeout_s
        while needle not in self.screen:
            if not self._read(deadline):
                raise AssertionError(
                    f"{' '.join(self.argv)}: no {text!r} on the terminal; there is {self.screen!r}"
                )
        seen, _, self.screen = self.screen.partition(needle)
        return (seen + needle).decode(errors="replace")

    def wait(self, *, timeout_s: float = 45.0) -> int:
        """Read until the command has ended; return its exit code."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        return self.process.wait(timeout=max(0.1, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: every copy of the other side is closed
            return False
        self.screen += data
        return bool(data)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class DockerCLI:
    """A docker (or sampan) command line on one engine."""

    def __init__(self, path: str, socket: str, config_directory: str) -> None:
        self.path, self.socket = path, socket
        self.env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": config_directory,
            "DOCKER_CONFIG": config_directory,
            "DOCKER_HOST": f"unix://{socket}",
            "SAMPAN_HOST": f"unix://{socket}",
            "DOCKER_CLI_HINTS": "false",
            "TERM": "xterm",
            "LANG": "C.UTF-8",
        }

    def __call__(
        self, *arguments: str, stdin: bytes | str | None = None, timeout_s: float = 60.0, check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> Result:  # fmt: skip
        return run(
            (self.path, *arguments),
            stdin=stdin,
            env={**self.env, **(env or {})},
            timeout_s=timeout_s,
            check=check,
        )

    def fails(self, *arguments: str, stdin: bytes | str | None = None) -> Result:
        """Run what has to fail."""
        result = self(*arguments, stdin=stdin, check=False)
        assert result.code != 0, result
        return result

    def terminal(self, *arguments: str, rows: int = 24, columns: int = 80) -> Terminal:
        return Terminal((self.path, *arguments), env=self.env, rows=rows, columns=columns)

    def background(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start without waiting; the caller ends it."""
        return subprocess.Popen(
            (self.path, *arguments),
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


@functools.cache
def docker_clis() -> dict[str, str]:
    """The docker command lines of this machine, version → path, newest first."""
    found: dict[tuple[int, ...], tuple[str, str]] = {}
    directories = (*os.environ.get("PATH", os.defpath).split(":"), "/usr/local/bin", "/usr/bin")
    for path in dict.fromkeys(os.path.realpath(f"{directory}/docker") for directory in directories):
        if not os.access(path, os.X_OK):
            continue
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        words = done.stdout.split()
        if len(words) < 3:
            continue
        version = words[2].rstrip(",").partition("+")[0]
        key = tuple(int(part) for part in version.split(".") if part.isdigit())
        found.setdefault(key, (version, path))
    return {version: path for _, (version, path) in sorted(found.items(), reverse=True)}
