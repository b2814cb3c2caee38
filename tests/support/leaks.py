"""What a test session may not leave on the machine: a picture before, one after, the difference.

Processes count if they carry the session's mark in their environment (or sit in a cgroup that is new);
everything else is compared by name.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

MARK = "SAMPAN_TEST_SESSION"
ENGINE_MARK = "SAMPAN_TEST_ENGINE"
MARKED = "marked "

# Where engines, runtimes and their tests put things.
WATCHED_DIRECTORIES = (
    "/run",
    "/run/netns",
    "/var/lib",
    "/var/run/docker",
    "/tmp",
    "/dev/shm",
    "/etc/sampan",
)
CGROUP_ROOT = "/sys/fs/cgroup"


class Picture:
    """The machine at one moment: sets of names by kind."""

    __slots__ = ("cgroups", "files", "interfaces", "mounts", "nft_tables", "processes")

    def __init__(self, token: str) -> None:
        self.processes = {*marked_processes(token), *_engine_processes()}
        self.mounts = set(_mounts())
        self.interfaces = set(os.listdir("/sys/class/net"))
        self.nft_tables = set(_nft_tables())
        self.cgroups = set(_cgroups())
        self.files = set(_files())


def differences(before: Picture, after: Picture, *, only: str | None = None) -> list[str]:
    """What is in `after` and was not in `before`, one line each; with `only`, what bears that text."""
    lines = []
    for kind in Picture.__slots__:
        for name in sorted(getattr(after, kind) - getattr(before, kind)):
            if only is None or only in name or name.startswith(MARKED):
                lines.append(f"{kind}: {name}")
    return lines


def marked_processes(token: str, mark: str = MARK) -> Iterator[str]:
    """`marked pid command line` of every other living process that inherited the mark with that token."""
    needle = f"{mark}={token}".encode()
    own = {os.getpid(), os.getppid()}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in own:
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                environment = file.read()
            if needle not in environment.split(b"\0"):
                continue
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode(errors="replace")
            with open(f"/proc/{entry}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[0]
        except OSError:
            continue
        if state != b"Z":
            yield f"{MARKED}{entry} {command}"


def _engine_processes() -> Iterator[str]:
    """Daemons, fork servers, resolvers and shims, which shed their environment."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(
            word in command
            for word in ("sampan.shim", "sampan.network", "sampand", "sampan.daemon")
        ):
            yield f"{entry} {command}"


def _mounts() -> Iterator[str]:
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields = line.split()
            yield f"{fields[4]} ({fields[fields.index('-') + 1]})"


def _nft_tables() -> Iterator[str]:
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return (line for line in done.stdout.splitlines() if line)


def _cgroups() -> Iterator[str]:
    for directory, _, _ in os.walk(CGROUP_ROOT):
        yield directory


def _files() -> Iterator[str]:
    for directory in WATCHED_DIRECTORIES:
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        yield from (os.path.join(directory, name) for name in names)
