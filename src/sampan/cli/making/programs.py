"""The programs that a user names, as the paths that an image needs to run them.

A program is found by PATH; a script brings its interpreter, an ELF file its loader and libraries. With
them come the links at the root (`/bin → usr/bin`) and the little that C libraries ask for: `passwd`,
`group`, `nsswitch.conf`, a cache of the libraries that are where the loader does not look by itself.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.cli.failures import CommandError
from sampan.cli.making import ldcache
from sampan.cli.making.collection import Collection
from sampan.cli.making.elf import BadElf
from sampan.cli.making.loader import Loader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INTERPRETERS_MAX = 5
_SHEBANG_BYTES = 256
_CERTIFICATES = "/etc/ssl/certs"
_LEADING_TO_CERTIFICATES = ("/usr/lib/ssl/certs", "/usr/lib/ssl/cert.pem", "/etc/pki/tls/certs")
_DIRECTORIES = (
    ("/dev", 0o755), ("/etc", 0o755), ("/proc", 0o555), ("/root", 0o700), ("/run", 0o755),
    ("/sys", 0o555), ("/tmp", 0o1777), ("/var", 0o755), ("/var/tmp", 0o1777),
)  # fmt: skip
_FILES = (
    ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
    ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
)  # fmt: skip


class Programs:
    """Programs being collected. `paths` are where the named ones are, in the order named; `notes`
    tell what was left out."""

    def __init__(self, search_path: str) -> None:
        self._search_path = search_path
        self._loader = Loader()
        self.collection = Collection()
        self.paths: list[str] = []
        self.notes: list[str] = []

    def add(self, names: Iterable[str]) -> None:
        """Add programs by name, or by path.

        Raises:
            CommandError: some of them are not there, all of which are named.
        """
        missing = []
        for name in names:
            path = self._find(name)
            if path is None:
                missing.append(name)
            elif path not in self.paths:
                self.paths.append(path)
        if missing:
            raise CommandError(
                f"not found in PATH: {', '.join(missing)}", hint=f"PATH is {self._search_path}"
            )
        for path in self.paths:
            self._program(path, path, 0)

    def include(self, path: str) -> None:
        """Add a file or a directory with what is below it on its file system.

        Raises:
            CommandError: it is not there or cannot be read.
        """
        path = os.path.abspath(path)
        try:
            real = self.collection.add(path)
            kind = self.collection.found[real].st_mode if real != "/" else stat.S_IFDIR
            if stat.S_ISDIR(kind):
                for file in self.collection.add_tree(path, follow=True):
                    self._needs(file)
            elif stat.S_ISREG(kind):
                self._needs(real)
            if _CERTIFICATES in self.collection:
                for link in filter(os.path.lexists, _LEADING_TO_CERTIFICATES):
                    self.collection.add(link)  # where OpenSSL looks
        except OSError as error:
            raise _unreadable(error, path) from None

    def finish(self) -> Collection:
        """Add the libraries and what every image has; the collection.

        Raises:
            CommandError: a library that a program needs is not on this machine.
        """
        needs = self._loader.needs
        self._report(needs.missing)
        for path in needs.files:
            self._take(path)
        self._root_links()
        for path, mode in _DIRECTORIES:
            self.collection.make(path, mode)
        for path, text in _FILES:
            self.collection.make(path, 0o644, text.encode())
        if needs.named and ldcache.PATH not in self.collection:
            self.collection.make(ldcache.PATH, 0o644, ldcache.encode(needs.named))
        return self.collection

    def image_path(self) -> str:
        """PATH for the image: the usual directories, and those that the programs are in."""
        folders = DEFAULT_PATH.split(":")
        folders += [os.path.dirname(path) for path in self.paths]
        return ":".join(dict.fromkeys(folders))

    # -- One program --------------------------------------------------------------------------

    def _find(self, name: str) -> str | None:
        if "/" in name:
            path = os.path.abspath(name)
            return path if os.path.isfile(path) else None
        for folder in self._search_path.split(":"):
            path = os.path.abspath(os.path.join(folder, name))
            if name and os.path.isfile(path) and os.access(path, os.X_OK):
                return path
        return None

    def _program(self, path: str, wanted_by: str, depth: int) -> None:
        real = self._take(path)
        first = self._first_line(real)
        if not first.startswith("#!"):
            self._needs(real)
            return
        if depth == 0:
            self.notes.append(f"{path} is a script: programs that it runs have to be named too")
        if depth == _INTERPRETERS_MAX:
            raise CommandError(f"{wanted_by}: too many interpreters of interpreters")
        for interpreter in self._interpreters(first[2:].split(), path):
            self._program(interpreter, path, depth + 1)

    def _interpreters(self, words: list[str], path: str) -> list[str]:
        """The programs that a script's first line needs: the interpreter, and what env looks for."""
        if not words or not words[0].startswith("/"):
            raise CommandError(f"{path}: no interpreter in its first line")
        found = [words[0]]
        if os.path.basename(words[0]) == "env":
            names = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
            program = self._find(names[0]) if names else None
            if program is None:
                raise CommandError(f"{path}: its interpreter is not in PATH: {' '.join(words)}")
            found.append(program)
        return found

    def _first_line(self, path: str) -> str:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise _unreadable(error, path) from None
        try:
            return os.fsdecode(os.read(fd, _SHEBANG_BYTES).split(b"\n", 1)[0])
        finally:
            os.close(fd)

    def _take(self, path: str) -> str:
        try:
            return self.collection.add(path)
        except OSError as error:
            raise _unreadable(error, path) from None

    def _needs(self, path: str) -> None:
        try:
            self._loader.add(path)
        except BadElf as error:
            self.notes.append(str(error))
        except OSError as error:
            raise _unreadable(error, path) from None

    # -- What comes with them -------------------------------------------------------------------

    def _report(self, missing: list[tuple[str, str]]) -> None:
        """A library that a named program cannot do without is an error, a plugin's is a note."""
        own = {os.path.realpath(path) for path in self.paths}
        for name, wanted_by in missing:
            text = f"{wanted_by} needs {name}, which is not on this machine"
            if os.path.realpath(wanted_by) in own:
                raise CommandError(text)
            self.notes.append(text)

    def _root_links(self) -> None:
        """`/bin`, `/lib`, `/lib64`, `/sbin` where they are links: scripts say `#!/bin/sh`."""
        for name in sorted(os.listdir("/")):
            path = f"/{name}"
            if not os.path.islink(path):
                continue
            target = os.readlink(path)
            if target.lstrip("/").startswith("usr/") and os.path.isdir(path):
                self._take(path)


def _unreadable(error: OSError, path: str) -> CommandError:
    reason = str(error.strerror).lower()
    hint = "Run it as root" if error.errno in (errno.EACCES, errno.EPERM) else ""
    return CommandError(f"cannot read {error.filename or path}: {reason}", hint=hint)
