"""Putting a tar into a tree that somebody hostile may be changing at the same time.

Unlike a layer (`extract`) it goes into a directory somewhere in the tree, has no whiteouts, and finds
files there. Every name is looked up from the tree's root by openat2(2) with RESOLVE_IN_ROOT; what is made
is made in an open directory under a name that nothing had, and given its owner and mode through its own
descriptor: whoever exchanges names meanwhile gets nothing but what he could have made himself.

Source: moby, pkg/archive `Unpack`, whose rules and texts these are.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from sampan.errors import Forbidden, InvalidArgument, SampanError, Unavailable
from sampan.linux import syscalls
from sampan.oci import tar
from sampan.snapshots import file_data
from sampan.snapshots.directory_times import DirectoryTimes
from sampan.snapshots.extract import BadLayer, clean, set_xattrs

_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_STRICT = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
_OPEN_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_REAL_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CACHE_MAX = 128
_ATTEMPTS = 8
"""How often a name is cleared that somebody else fills again."""
_NODES = {
    tar.CHARACTER: stat.S_IFCHR,
    tar.BLOCK_DEVICE: stat.S_IFBLK,
    tar.FIFO: stat.S_IFIFO,
}
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO))
_DEPTH_MAX = 100
_REPLACED = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP))


class Rules(NamedTuple):
    """How an archive is put in.

    `owner` is whom everything is given to, None for those that the archive names; with `keep_owner`
    off it stays with who writes. With `same_kind` no directory takes the place of something else, nor
    the other way round. `renamed` is a beginning of names and what stands in its place. With `follow`
    off no link below the directory is followed, for an archive that is not to be trusted with the whole
    tree. `spool` is a directory for what does not fit into memory.
    """

    spool: str
    renamed: tuple[bytes, bytes] | None = None
    follow: bool = True
    owner: tuple[int, int] | None = None
    keep_owner: bool = True
    same_kind: bool = False


def put(read: tar.Read, root: int, directory: str, rules: Rules, check: Callable[[], None]) -> None:
    """Put a plain tar into an existing directory of the tree below `root`; reads it to its end. Blocks.

    `directory` is an absolute path in the tree, or with `follow` off what `root` itself is called; `check` is asked before each entry and at the end, and
    raises when the tree is not to be written to any more.

    Raises:
        BadArchive: it is no tar.
        InvalidArgument: an entry leads out of the directory, or cannot be laid out; it is named.
        Forbidden: the file system is read-only.
        Unavailable: the disk is full or broken.
    """
    reader = tar.TarReader(read)
    with _Tree(root, os.fsencode(directory), rules) as tree:
        for entry in reader:
            check()
            try:
                tree.put(entry, reader)
            except (OSError, OverflowError, ValueError) as error:
                raise _refused(tree.shown(entry.name), error) from error
        tree.finish()
    reader.drain()
    check()


def _refused(path: str, error: Exception) -> SampanError:
    if not isinstance(error, OSError):
        return InvalidArgument(f"{path}: {error}")
    message = f"{path}: {os.strerror(error.errno or 0).lower()}"
    if error.errno in _FULL:
        return Unavailable(message)
    return Forbidden(message) if error.errno == errno.EROFS else InvalidArgument(message)


class _Tree:
    """The tree being written to."""

    def __init__(self, root: int, directory: bytes, rules: Rules) -> None:
        self._root = root
        self._directory = directory.rstrip(b"/")
        self._rules = rules
        self._directories: dict[bytes, int] = {}
        self._times = DirectoryTimes(rules.spool)
        self._stale = False  # names lead elsewhere since something was removed

    def __enter__(self) -> _Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self._times.close()
        self._forget()

    def shown(self, name: bytes) -> str:
        """An entry's place in the tree, for messages."""
        return os.fsdecode(self._directory + b"/" + name.strip(b"/"))

    def put(self, entry: tar.Entry, reader: tar.TarReader) -> None:
        if self._stale or len(self._directories) >= _CACHE_MAX:
            self._forget()
        path = self._inside(entry.name)
        if not path:
            return  # the directory itself stays as it is
        head, _, name = path.rpartition(b"/")
        parent = self._open(head)
        if entry.kind == tar.DIRECTORY:
            self._make_directory(entry, parent, name)
            self._times.put(path, entry.mtime_ns)
            return
        make = {tar.FILE: self._file, tar.HARD_LINK: self._hard_link, tar.SYMLINK: self._symlink}
        for attempt in range(_ATTEMPTS):
            try:
                make.get(entry.kind, self._node)(entry, reader, parent, name)
                return
            except FileExistsError:
                if attempt == _ATTEMPTS - 1:
                    raise
                self._clear(entry, parent, name)

    def finish(self) -> None:
        """Set the directories' times, now that nothing is created in them any more."""
        for path, mtime_ns in self._times.all():
            if self._stale or len(self._directories) >= _CACHE_MAX:
                self._forget()
            head, _, name = path.rpartition(b"/")
            try:
                parent = self._open(head, create=False)
                os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _REPLACED:
                    raise _refused(self.shown(path), error) from error

    # -- Kinds of entries --------------------------------------------------------------------

    def _file(self, entry: tar.Entry, reader: tar.TarReader, parent: int, name: bytes) -> None:
        fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            file_data.write(fd, entry, reader.data())
            self._set(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _make_directory(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
                break
            except FileExistsError:
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    break
                if attempt == _ATTEMPTS - 1:
                    raise
                self._clear(entry, parent, name)
        fd = os.open(name, _REAL_DIRECTORY, dir_fd=parent)
        try:
            self._set(fd, entry)
        finally:
            os.close(fd)

    def _hard_link(self, entry: tar.Entry, _: tar.TarReader, parent: int, name: bytes) -> None:
        head, _slash, target = self._inside(entry.link).rpartition(b"/")
        source = self._open(head, create=False)
        os.link(target, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _symlink(self, entry: tar.Entry, _: tar.TarReader, parent: int, name: bytes) -> None:
        os.symlink(entry.link, name, dir_fd=parent)
        self._set_unopened(entry, parent, name)

    def _node(self, entry: tar.Entry, _: tar.TarReader, parent: int, name: bytes) -> None:
        device = os.makedev(entry.major, entry.minor) if entry.kind != tar.FIFO else 0
        os.mknod(name, _NODES[entry.kind] | 0o600, device, dir_fd=parent)
        self._set_unopened(entry, parent, name)

    # -- Owners, modes, attributes -------------------------------------------------------------

    def _set(self, fd: int, entry: tar.Entry) -> None:
        if self._rules.keep_owner:
            os.fchown(fd, *self._owner(entry))
        os.fchmod(fd, entry.mode)  # after chown, which clears set-user-ID
        set_xattrs(fd, entry.xattrs)

    def _set_unopened(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        """The same for what must not be opened for it: links and nodes."""
        if self._rules.keep_owner:
            os.chown(name, *self._owner(entry), dir_fd=parent, follow_symlinks=False)
        if entry.kind != tar.SYMLINK:
            self._set_mode(entry, parent, name)
        set_xattrs(b"/proc/self/fd/%d/%b" % (parent, name), entry.xattrs)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def _set_mode(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        """chmod(2) would follow a link that has taken the node's place, out of the tree."""
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            if stat.S_IFMT(os.fstat(fd).st_mode) == _NODES[entry.kind]:
                os.chmod(f"/proc/self/fd/{fd}", entry.mode)
        finally:
            os.close(fd)

    def _owner(self, entry: tar.Entry) -> tuple[int, int]:
        return self._rules.owner or (entry.uid, entry.gid)

    # -- Names ---------------------------------------------------------------------------------

    def _inside(self, name: bytes) -> bytes:
        if self._rules.renamed is not None:
            old, new = self._rules.renamed
            name = new + name[len(old) :] if name.startswith(old) else name
        try:
            return clean(name)
        except BadLayer:
            shown, top = os.fsdecode(name), os.fsdecode(self._directory or b"/")
            raise InvalidArgument(f'"{shown}" is outside of "{top}"') from None

    def _open(self, path: bytes, *, create: bool = True) -> int:
        """A descriptor of a directory below the one written to; links are followed in the tree."""
        missing: list[bytes] = []
        while (fd := self._directories.get(path)) is None:
            try:
                fd = self._directories[path] = self._look_up(path)
            except FileNotFoundError:
                if not create or not path:
                    raise
                path, _, name = path.rpartition(b"/")
                missing.append(name)
        while missing:
            name = missing.pop()
            path = path + b"/" + name if path else name
            fd = self._directories[path] = self._make_parent(fd, name)
        return fd

    def _look_up(self, path: bytes) -> int:
        if self._rules.follow:
            whole = self._directory + b"/" + path
            return syscalls.openat2(self._root, whole, _OPEN_DIRECTORY, resolve=_RESOLVE)
        return syscalls.openat2(self._root, path or b".", _OPEN_DIRECTORY, resolve=_STRICT)

    def _make_parent(self, above: int, name: bytes) -> int:
        """A directory that the archive left out."""
        os.mkdir(name, 0o755, dir_fd=above)
        if self._rules.keep_owner:
            owner = self._rules.owner or (0, 0)
            os.chown(name, *owner, dir_fd=above, follow_symlinks=False)
        return os.open(name, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)

    def _clear(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        """Make room for an entry, if the rules allow it."""
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        is_directory = stat.S_ISDIR(found.st_mode)
        if self._rules.same_kind and is_directory != (entry.kind == tar.DIRECTORY):
            old, new = ("directory", "non-directory")[:: 1 if is_directory else -1]
            raise InvalidArgument(
                f'cannot overwrite {old} "{self.shown(entry.name)}" with {new} '
                f'"{os.fsdecode(self._directory or b"/")}"'
            )
        self._stale = True
        _remove(parent, name, 0)

    def _forget(self) -> None:
        for fd in self._directories.values():
            os.close(fd)
        self._directories.clear()
        self._stale = False


def _remove(parent: int, name: bytes, depth: int) -> None:
    """Delete a name and what is in it, but nothing that is mounted there.

    The kernel would take a mount of another namespace away along with its mount point.

    Raises:
        OSError: EBUSY for a mount point.
    """
    resolve = syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS
    try:
        fd = syscalls.openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=resolve)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY)) from error
        raise
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            os.unlink(name, dir_fd=parent)
            return
        if depth == _DEPTH_MAX:
            raise OSError(errno.ELOOP, "too many directories in one another")
        with os.scandir(f"/proc/self/fd/{fd}") as entries:
            names = [os.fsencode(entry.name) for entry in entries]
        for below in names:
            _remove(fd, below, depth + 1)
        os.rmdir(name, dir_fd=parent)
    finally:
        os.close(fd)
