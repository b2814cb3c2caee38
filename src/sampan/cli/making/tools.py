"""mmdebstrap and debootstrap: which of them is here, how they are called, what they say meanwhile.

mmdebstrap is taken where there are both: it is several times faster, cleans up after itself, writes
the tar itself, and needs no root.
"""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sampan.cli.making.distributions import Release
    from sampan.cli.making.sending import Status
    from sampan.cli.making.workplace import Workplace

TOOLS = ("mmdebstrap", "debootstrap")
_SEARCHED = "/usr/local/sbin:/usr/sbin:/sbin"  # where an ordinary user's PATH has no debootstrap
_KEPT_LINES = 15
_MERGED_USR = "/usr/share/mmdebstrap/hooks/maybe-merged-usr"
"""Without it apt chooses usrmerge where usr-is-merged would do, and so 50 MB of Perl."""
_PASSING = ("removing", "skipping", "using")
_EMPTIED = (
    "/dev/", "/proc/", "/sys/", "/run/", "/tmp/", "/var/cache/apt/", "/var/lib/apt/lists/",
    "/debootstrap/",
)  # fmt: skip
_LOGS = (".log", ".log.xz")
_LEFT_OUT = (
    "/etc/hostname", "/etc/resolv.conf", "/etc/machine-id", "/var/lib/dbus/machine-id",
    "/debootstrap", "/var/cache/ldconfig/aux-cache",
)  # fmt: skip
_APT_FILES = ("/var/cache/apt/archives", "/var/lib/apt/lists")


class Order:
    """What is to be made. `variant`, `include`, `components`, `keyring` are the tools' own words."""

    __slots__ = ("components", "include", "keyring", "latest_s", "mirror_given", "release", "variant")  # fmt: skip

    def __init__(self, release: Release) -> None:
        self.release = release
        self.variant = "minbase"
        self.include: list[str] = []
        self.components: list[str] = []
        self.keyring = ""
        self.mirror_given = False
        self.latest_s: int | None = None


def choose(environ: dict[str, str], wanted: str) -> str:
    """The path of the tool to use.

    Raises:
        CommandError: neither is there, or the one there is needs root.
    """
    names = (wanted,) if wanted else TOOLS
    if wanted and wanted not in TOOLS:
        raise CommandError(f"unknown tool: {wanted}", hint=f"There are: {', '.join(TOOLS)}")
    for name in names:
        path = _which(name, environ)
        if path and name == "debootstrap" and os.geteuid() != 0:
            raise CommandError(
                "debootstrap needs root", hint="Use sudo, or install mmdebstrap, which does not"
            )
        if path:
            return path
    raise CommandError(
        f"{' or '.join(names)} is needed to make an image of a distribution, and is not here",
        hint="apt-get install mmdebstrap",
    )


def _which(name: str, environ: dict[str, str]) -> str:
    for folder in f"{environ.get('PATH', '')}:{_SEARCHED}".split(":"):
        path = os.path.join(folder, name)
        if folder and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


class Maker:
    """One run of a tool, as a tar in blocks."""

    def __init__(self, tool: str, order: Order, place: Workplace, status: Status) -> None:
        self._tool = tool
        self._order = order
        self._place = place
        self._status = status
        self._lines: list[str] = []
        self._told: set[str] = set()

    def blocks(self, environ: dict[str, str]) -> Iterator[bytes]:
        """The tar of the distribution.

        Raises:
            CommandError: the tool failed; its last words are the hint.
        """
        name = os.path.basename(self._tool)
        environ = {**environ, "TMPDIR": self._place.directory, "LC_ALL": "C.UTF-8"}
        try:
            if name == "mmdebstrap":
                argv = [self._tool, *_mmdebstrap(self._order)]
                yield from self._place.output(argv, environ, self._line)
            else:
                yield from self._debootstrap(environ)
        except CommandError as error:
            if not error.hint:
                error.message = f"{name} {error.message}"
                error.hint = "\n".join(self._lines)
            raise

    def _debootstrap(self, environ: dict[str, str]) -> Iterator[bytes]:
        """It writes progress to standard output and makes a directory."""
        from sampan.cli.making.archive import Archive
        from sampan.cli.making.collection import Collection

        root = os.path.join(self._place.directory, "root")
        argv = [self._tool, *_debootstrap(self._order, root)]
        partial = b""
        for data in self._place.output(argv, environ, self._line):
            *lines, partial = (partial + data).split(b"\n")
            for line in lines:
                self._line(line.decode("utf-8", "replace"))
        self._status.step("Packing")
        tree = Collection(root)
        for _ in tree.add_tree("/", follow=False, skip=_is_left_out):
            pass
        tree.make("/etc/machine-id", 0o444, b"")
        for folder in _APT_FILES:
            tree.make(f"{folder}/partial", 0o700)
        yield from Archive(tree, times=True, latest_s=self._order.latest_s).blocks()

    def _line(self, line: str) -> None:
        """One line of the tool. Off a terminal only the first of each kind of work is told."""
        line = line.strip()
        if not line:
            return
        self._lines = [*self._lines[1 - _KEPT_LINES :], line]
        kind, colon, text = line.partition(": ")
        if colon and kind == "W":
            self._status.keep(line)
        elif not colon or kind != "I":
            self._status.tick(line)
        elif self._is_new_work(text):
            self._status.step(text[:1].upper() + text[1:])
        else:
            self._status.tick(text)

    def _is_new_work(self, text: str) -> bool:
        word = text.split(" ", 1)[0].lower()
        if not word.endswith("ing") or word in _PASSING or word in self._told:
            return False
        self._told.add(word)
        return True


def _mmdebstrap(order: Order) -> Sequence[str]:
    release = order.release
    argv = [f"--variant={order.variant}", "--format=tar"]
    if release.architecture:
        argv.append(f"--architectures={release.architecture}")
    if os.path.isdir(_MERGED_USR):
        argv.append(f"--hook-dir={_MERGED_USR}")
    argv += _common(order)
    argv += [release.suite, "-"]
    # For Debian it knows the mirror, and adds those of security fixes and updates, unless told.
    if order.mirror_given or release.distribution != "debian":
        argv.append(release.mirror)
    return argv


def _debootstrap(order: Order, root: str) -> Sequence[str]:
    release = order.release
    argv = [f"--variant={order.variant}", "--force-check-gpg"]
    if release.architecture:
        argv.append(f"--arch={release.architecture}")
    return [*argv, *_common(order), release.suite, root, release.mirror]


def _common(order: Order) -> list[str]:
    argv = []
    if order.include:
        argv.append(f"--include={','.join(order.include)}")
    if order.components:
        argv.append(f"--components={','.join(order.components)}")
    if order.keyring:
        argv.append(f"--keyring={os.path.abspath(order.keyring)}")
    return argv


def _is_left_out(path: str) -> bool:
    """What debootstrap leaves that is of the making or of this machine, as mmdebstrap removes it."""
    return (
        path in _LEFT_OUT
        or path.startswith(_EMPTIED)
        or (path.startswith("/var/log/") and path.endswith(_LOGS))
    )
