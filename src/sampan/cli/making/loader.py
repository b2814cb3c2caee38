"""Which files the dynamic loader would load for a program, found without running it.

The order is ld.so(8)'s: the RPATH of whoever needs the library and of its loaders, its RUNPATH, the
cache, the usual directories. LD_LIBRARY_PATH is not asked: it is not part of the program. musl's
loader is simpler, and itself the C library.
"""

from __future__ import annotations

import os

from sampan.cli.making import elf, ldcache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DLOPENED = ("libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2")
"""What glibc itself loads when a thread is cancelled or a name is looked up; taken where it is there."""

_TRIPLETS = {
    (64, 62): "x86_64-linux-gnu", (32, 62): "x86_64-linux-gnux32", (32, 3): "i386-linux-gnu",
    (64, 183): "aarch64-linux-gnu", (32, 40): "arm-linux-gnueabihf", (64, 243): "riscv64-linux-gnu",
    (64, 21): "powerpc64le-linux-gnu", (64, 22): "s390x-linux-gnu",
}  # fmt: skip
_PLATFORMS = {62: "x86_64", 3: "i686", 183: "aarch64", 21: "power8"}
_MUSL = "ld-musl-"
_MUSL_DIRECTORIES = ("/lib", "/usr/local/lib", "/usr/lib")
_MUSL_OWN = ("libc.", "libpthread.", "librt.", "libm.", "libdl.", "libutil.", "libxnet.")


class _Object:
    """A file as the loader has it mapped: where it was found, and who wanted it first."""

    __slots__ = ("elf", "loader", "origin")

    def __init__(self, found: elf.Elf, origin: str, loader: _Object | None) -> None:
        self.elf = found
        self.origin = origin
        self.loader = loader


class Needs:
    """What programs need: `files`, in the order found, `missing` (name, who needs it), and by which
    name the loader has to find a library that no RPATH leads to: `named` (name, cache kind) to path.
    """

    def __init__(self) -> None:
        self.files: dict[str, None] = {}
        self.missing: list[tuple[str, str]] = []
        self.named: dict[tuple[str, int], str] = {}


class Loader:
    """Finds the needs of one program after another."""

    def __init__(self, cache: dict[str, list[str]] | None = None) -> None:
        self._cache = ldcache.read() if cache is None else cache
        self._read: dict[str, elf.Elf | None] = {}
        self.needs = Needs()

    def look(self, path: str) -> elf.Elf | None:
        """The ELF file at `path`, None if it is none or cannot be loaded; read once."""
        if path not in self._read:
            try:
                self._read[path] = elf.read(path)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self._read[path] = None
        return self._read[path]

    def add(self, path: str) -> None:
        """Add what the file at `path` needs to run or to be loaded, if it is an ELF file.

        Raises:
            BadElf: it, or a library, is damaged.
            OSError: one of them cannot be read.
        """
        found = self.look(path)
        if found is None:
            return
        musl = os.path.basename(found.interpreter).startswith(_MUSL)
        program = _Object(found, os.path.dirname(os.path.realpath(path)), None)
        if found.interpreter:
            self._found(found.interpreter, found.interpreter, path)
        names = self._load(program, path, musl)
        if found.interpreter and not musl and names:
            for name in DLOPENED:
                if name not in names:
                    library = self._search(name, program, musl)
                    if library:
                        self._take(name, library, program)
                        self._load(_Object(self._known(library), os.path.dirname(library), program), library, musl)  # fmt: skip

    def _load(self, start: _Object, path: str, musl: bool) -> set[str]:
        """Follow DT_NEEDED breadth first, each name once, as the loader does; the names."""
        names: set[str] = set()
        waiting = [(start, path)]
        while waiting:
            current, shown = waiting.pop(0)
            for name in current.elf.needed:
                if name in names or (musl and name.startswith(_MUSL_OWN)):
                    continue
                names.add(name)
                library = self._search(name, current, musl)
                if library is None:
                    self._miss(name, shown)
                    continue
                self._take(name, library, current)
                known = self._known(library)
                waiting.append((_Object(known, os.path.dirname(library), current), library))
        return names

    def _known(self, path: str) -> elf.Elf:
        found = self.look(path)
        assert found is not None  # it was chosen for its kind
        return found

    def _found(self, name: str, path: str, shown: str) -> None:
        if self.look(path) is None:
            self._miss(name, shown)
        else:
            self.needs.files.setdefault(path)

    def _miss(self, name: str, shown: str) -> None:
        if (name, shown) not in self.needs.missing:
            self.needs.missing.append((name, shown))

    def _take(self, name: str, path: str, wanted_by: _Object) -> None:
        self.needs.files.setdefault(path)
        if "/" in name or any(path == f"{folder}/{name}" for folder in _paths(wanted_by)):
            return
        kind = ldcache.KINDS.get((wanted_by.elf.bits, wanted_by.elf.kind[2]))
        if kind is not None:
            self.needs.named.setdefault((name, kind), path)

    def _search(self, name: str, wanted_by: _Object, musl: bool) -> str | None:
        kind = wanted_by.elf.kind
        for path in self._candidates(name, wanted_by, musl):
            found = self.look(path)
            if found is not None and found.kind == kind:
                return path
        return None

    def _candidates(self, name: str, wanted_by: _Object, musl: bool) -> Iterator[str]:
        if "/" in name:
            yield from _expand(name, wanted_by)
            return
        for folder in _paths(wanted_by):
            yield f"{folder}/{name}"
        if musl:
            for folder in _musl_directories(wanted_by.elf.kind[2]):
                yield f"{folder}/{name}"
            return
        yield from self._cache.get(name, ())
        if not wanted_by.elf.no_default:
            for folder in _directories(wanted_by.elf):
                yield f"{folder}/{name}"


def _paths(wanted_by: _Object) -> Iterator[str]:
    """The directories that RPATH and RUNPATH say, for what this object needs."""
    if wanted_by.elf.runpath:
        for item in wanted_by.elf.runpath:
            yield from _expand(item, wanted_by)
        return
    current: _Object | None = wanted_by
    while current is not None:
        if not current.elf.runpath:
            for item in current.elf.rpath:
                yield from _expand(item, current)
        current = current.loader


def _expand(text: str, owner: _Object) -> Iterator[str]:
    """The paths that a text with $ORIGIN, $LIB and $PLATFORM means; none if it is relative."""
    machine = owner.elf.kind[2]
    triplet = _TRIPLETS.get((owner.elf.bits, machine), "")
    libs = (f"lib/{triplet}", f"lib{owner.elf.bits}", "lib") if "LIB" in text else ("",)
    for lib in libs:
        path = text
        for token, value in (
            ("ORIGIN", owner.origin),
            ("LIB", lib),
            ("PLATFORM", _PLATFORMS.get(machine, "")),
        ):
            path = path.replace(f"${{{token}}}", value).replace(f"${token}", value)
        if path.startswith("/"):
            yield os.path.normpath(path)


def _directories(wanted_by: elf.Elf) -> tuple[str, ...]:
    triplet = _TRIPLETS.get((wanted_by.bits, wanted_by.kind[2]))
    multiarch = (f"/lib/{triplet}", f"/usr/lib/{triplet}") if triplet else ()
    wide = f"lib{wanted_by.bits}"
    return (*multiarch, f"/{wide}", f"/usr/{wide}", "/lib", "/usr/lib")


def _musl_directories(machine: int) -> tuple[str, ...]:
    name = f"/etc/ld-musl-{_PLATFORMS.get(machine, '')}.path"
    try:
        with open(name, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(65536)
    except OSError:
        return _MUSL_DIRECTORIES
    return tuple(folder for folder in text.replace("\n", ":").split(":") if folder.startswith("/"))
