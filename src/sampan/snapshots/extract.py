"""Applying a layer's tar to a directory, whiteouts turned into overlayfs's form.

The archive is hostile. Every name is resolved by openat2(2) with RESOLVE_IN_ROOT from the
directory's own file descriptor, the last component is never followed, and what stands in the way
is removed first; so nothing outside the directory is read, linked or written. Directory file
descriptors are kept for reuse: a descriptor stays inside the tree whatever the archive does to
the names that led to it.

Sources: OCI image-spec, layer.md; kernel Documentation/filesystems/overlayfs.rst, "whiteouts and
opaque directories".
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from sampan.errors import InvalidArgument
from sampan.linux import syscalls
from sampan.oci import tar
from sampan.snapshots import file_data
from sampan.snapshots.directory_times import DirectoryTimes
from sampan.snapshots.trees import remove_tree

OPAQUE = b"trusted.overlay.opaque"
_WHITEOUT = b".wh."
_OPAQUE_MARK = b".wh..wh..opq"
_RESERVED = b".wh..wh."
_OVERLAY_XATTRS = (b"trusted.overlay.", b"user.overlay.")
_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_OPEN_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CACHE_MAX = 128
_SLASH = ord("/")
_SPECIAL_BITS = 0o7000
_REPLACED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What a directory's name gives that a later entry has replaced."""


class BadLayer(InvalidArgument):
    """The archive holds something that no layer may, or that this file system refuses."""


def extract(read: tar.Read, directory: str) -> int:
    """Apply the plain tar that `read` gives to an existing, private directory.

    Returns the sum of the sizes of its regular files in bytes, which is the size Docker gives a
    layer. Reads up to the archive's end mark, not beyond.

    Raises:
        BadArchive: it is no tar.
        BadLayer: it reaches outside, or cannot be laid out; the entry is named.
    """
    reader = tar.TarReader(read)
    with _Tree(directory) as tree:
        for entry in reader:
            try:
                tree.apply(entry, reader)
            except (OSError, OverflowError, ValueError) as error:
                raise _refused(entry.name, error) from error
        tree.finish()
        return tree.size


def _refused(name: bytes, error: Exception) -> Exception:
    """What a failure to lay out an entry is: the disk's, or that of who wrote the entry."""
    reason: object = error  # numbers and NULs that no call takes
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
            return error
        reason = error.strerror
    return BadLayer(f'layer entry "{os.fsdecode(name)}": {reason}')


class _Tree:
    """The directory being filled."""

    def __init__(self, directory: str) -> None:
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._directories: dict[bytes, int] = {}
        self._times = DirectoryTimes(os.path.dirname(directory))
        self._umask = _umask()
        # What is made in a set-group-ID directory gets its group, directories the bit as well.
        self._inherits = bool(os.fstat(self._root).st_mode & stat.S_ISGID)
        self.size = 0
        self._makers: dict[bytes, Callable[[tar.Entry, int, bytes], None]] = {
            tar.HARD_LINK: self._hard_link,
            tar.SYMLINK: self._symlink,
            tar.CHARACTER: self._node,
            tar.BLOCK_DEVICE: self._node,
            tar.FIFO: self._node,
        }

    def __enter__(self) -> _Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self._times.close()
        self._forget()
        os.close(self._root)

    def apply(self, entry: tar.Entry, reader: tar.TarReader) -> None:
        if len(self._directories) >= _CACHE_MAX:
            self._forget()
        path = clean(entry.name)
        if not path:
            if entry.kind == tar.DIRECTORY:
                self._root_attributes(entry)
            return
        head, _, base = path.rpartition(b"/")
        if base.startswith(_WHITEOUT):
            self._whiteout(head, base)
            return
        parent = self._directory(head)
        kind = entry.kind
        if kind == tar.FILE:
            self._file(entry, reader, parent, base)
        elif kind == tar.DIRECTORY:
            self._make_directory(entry, parent, base)
            self._times.put(path, entry.mtime_ns)
        else:
            self._replacing(self._makers[kind], entry, parent, base)

    def finish(self) -> None:
        """Set the directories' times, now that nothing is created in them any more."""
        for path, mtime_ns in self._times.all():
            if len(self._directories) >= _CACHE_MAX:
                self._forget()
            head, _, base = path.rpartition(b"/")
            try:
                parent = self._directory(head, create=False) if path else self._root
                name = base or b"."
                os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _REPLACED:
                    raise _refused(path, error) from error

    # -- Kinds of entries --------------------------------------------------------------------

    def _file(self, entry: tar.Entry, reader: tar.TarReader, parent: int, base: bytes) -> None:
        mode = entry.mode
        try:
            fd = os.open(base, _CREATE, mode & 0o777, dir_fd=parent)
        except FileExistsError:
            self._remove(parent, base)
            fd = os.open(base, _CREATE, mode & 0o777, dir_fd=parent)
        try:
            file_data.write(fd, entry, reader.data())
            self._attributes(fd, entry)
        finally:
            os.close(fd)
        self.size += entry.size

    def _make_directory(self, entry: tar.Entry, parent: int, base: bytes) -> None:
        mode = entry.mode & 0o777
        try:
            os.mkdir(base, mode, dir_fd=parent)
        except FileExistsError:
            found = os.stat(base, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                self._open_and_set(entry, parent, base)
                return
            self._remove(parent, base)
            os.mkdir(base, mode, dir_fd=parent)
            if _is_whiteout(found):
                # Removed and made anew in one layer: what lower layers have in it stays hidden.
                os.setxattr(_proc_path(parent, base), OPAQUE, b"y", follow_symlinks=False)
        if self._needs_attributes(entry):
            self._open_and_set(entry, parent, base)

    def _hard_link(self, entry: tar.Entry, parent: int, base: bytes) -> None:
        target = clean(entry.link)
        head, _, name = target.rpartition(b"/")
        source = self._directory(head, create=False)
        os.link(name, base, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _symlink(self, entry: tar.Entry, parent: int, base: bytes) -> None:
        os.symlink(entry.link, base, dir_fd=parent)
        self._attributes_without_open(entry, parent, base)

    def _node(self, entry: tar.Entry, parent: int, base: bytes) -> None:
        kind = {
            tar.CHARACTER: stat.S_IFCHR,
            tar.BLOCK_DEVICE: stat.S_IFBLK,
            tar.FIFO: stat.S_IFIFO,
        }[entry.kind]
        device = os.makedev(entry.major, entry.minor) if entry.kind != tar.FIFO else 0
        os.mknod(base, kind | (entry.mode & 0o777), device, dir_fd=parent)
        self._attributes_without_open(entry, parent, base)
        if entry.mode & (self._umask | _SPECIAL_BITS):
            os.chmod(base, entry.mode, dir_fd=parent)

    def _whiteout(self, head: bytes, base: bytes) -> None:
        """Hide what lower layers have: one name, or with the opaque mark all of a directory."""
        if base == _OPAQUE_MARK:
            parent = self._directory(head)
            target = f"/proc/self/fd/{parent}" if parent != self._root else parent
            os.setxattr(target, OPAQUE, b"y")
            return
        if base.startswith(_RESERVED):
            return  # aufs's own bookkeeping, as Docker skips it
        name = base[len(_WHITEOUT) :]
        if name in (b"", b".", b".."):
            raise BadLayer(f'layer entry "{os.fsdecode(base)}": invalid whiteout')
        parent = self._directory(head)
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            # The layer has the name itself: a file covers the lower one anyway, a directory must
            # not let the lower one shine through.
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                os.setxattr(_proc_path(parent, name), OPAQUE, b"y", follow_symlinks=False)

    def _replacing(
        self,
        make: Callable[[tar.Entry, int, bytes], None],
        entry: tar.Entry,
        parent: int,
        base: bytes,
    ) -> None:
        try:
            make(entry, parent, base)
        except FileExistsError:
            self._remove(parent, base)
            make(entry, parent, base)

    # -- Owners, modes, times, attributes -----------------------------------------------------

    def _needs_attributes(self, entry: tar.Entry) -> bool:
        return bool(
            self._inherits
            or entry.uid
            or entry.gid
            or entry.mode & (self._umask | _SPECIAL_BITS)
            or entry.xattrs
        )

    def _attributes(self, fd: int, entry: tar.Entry) -> None:
        if entry.uid or entry.gid or self._inherits:
            os.fchown(fd, entry.uid, entry.gid)
        if entry.mode & (self._umask | _SPECIAL_BITS):
            os.fchmod(fd, entry.mode)  # after chown, which clears set-user-ID
        if entry.xattrs:
            set_xattrs(fd, entry.xattrs)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def _attributes_without_open(self, entry: tar.Entry, parent: int, base: bytes) -> None:
        if entry.uid or entry.gid or self._inherits:
            os.chown(base, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.xattrs:
            set_xattrs(_proc_path(parent, base), entry.xattrs)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(base, ns=times, dir_fd=parent, follow_symlinks=False)

    def _open_and_set(self, entry: tar.Entry, parent: int, base: bytes) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._inherits |= bool(entry.mode & stat.S_ISGID)
        fd = os.open(base, flags, dir_fd=parent)
        try:
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            set_xattrs(fd, entry.xattrs)
        finally:
            os.close(fd)

    def _root_attributes(self, entry: tar.Entry) -> None:
        self._inherits |= bool(entry.mode & stat.S_ISGID)
        os.fchown(self._root, entry.uid, entry.gid)
        os.fchmod(self._root, entry.mode)
        set_xattrs(self._root, entry.xattrs)
        self._times.put(b"", entry.mtime_ns)

    # -- Names ---------------------------------------------------------------------------------

    def _directory(self, path: bytes, *, create: bool = True) -> int:
        """A descriptor of a directory in the tree; links are followed inside the tree."""
        if not path:
            return self._root
        found = self._directories.get(path)
        if found is not None:
            return found
        try:
            fd = syscalls.openat2(self._root, path, _OPEN_DIRECTORY, resolve=_RESOLVE)
        except FileNotFoundError:
            if not create:
                raise
            fd = self._make_parents(path)
        self._directories[path] = fd
        return fd

    def _make_parents(self, path: bytes) -> int:
        """Open a directory, making it and those above it where an archive left them out.

        A path may lead through forty links of a thousand names each, so it is not resolved for each
        of its parts: how far it exists is searched for by halves, the rest made one in the other.
        """
        ends = [at for at, byte in enumerate(path) if byte == _SLASH] + [len(path)]
        fd = syscalls.openat2(self._root, b".", _OPEN_DIRECTORY, resolve=_RESOLVE)
        low, high = 0, len(ends)
        try:
            while low < high:
                middle = (low + high) // 2
                try:
                    found = syscalls.openat2(
                        self._root, path[: ends[middle]], _OPEN_DIRECTORY, resolve=_RESOLVE
                    )
                except FileNotFoundError:
                    high = middle
                    continue
                os.close(fd)
                fd, low = found, middle + 1
            for number in range(low, len(ends)):
                base = path[ends[number - 1] + 1 if number else 0 : ends[number]]
                os.mkdir(base, 0o755, dir_fd=fd)
                if self._inherits:
                    os.chown(base, 0, 0, dir_fd=fd, follow_symlinks=False)
                    os.chmod(base, 0o755, dir_fd=fd)
                below = os.open(base, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _forget(self) -> None:
        for fd in self._directories.values():
            os.close(fd)
        self._directories.clear()

    def _remove(self, parent: int, base: bytes) -> None:
        """Clear a name for an entry that takes its place."""
        try:
            os.unlink(base, dir_fd=parent)
        except IsADirectoryError:
            remove_tree(os.fsdecode(_proc_path(parent, base)))
        # Names that led through what was removed lead elsewhere now. The parent's descriptor is
        # in use by the caller, so it stays open.
        keep = {path: fd for path, fd in self._directories.items() if fd == parent}
        for path in keep:
            del self._directories[path]
        self._forget()
        self._directories.update(keep)


def clean(name: bytes) -> bytes:
    """An entry's path relative to the root, without `.`, `..` and empty parts; b"" is the root.

    Raises:
        BadLayer: it leads out of the root, or holds a NUL.
    """
    if name.startswith(b"./"):
        name = name[2:]
    name = name.strip(b"/")
    if b"//" not in name and b"/." not in name and not name.startswith(b".") and b"\0" not in name:
        return name
    if b"\0" in name:
        raise BadLayer("layer entry with a NUL in its name")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part != b"..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            raise BadLayer(f'layer entry "{os.fsdecode(name)}" is outside of the root')
    return b"/".join(parts)


def is_opaque(path: str) -> bool:
    """Whether a directory hides the lower layers' content of it."""
    try:
        return os.getxattr(path, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _proc_path(parent: int, base: bytes) -> bytes:
    """A path for calls that take no directory descriptor; its last component is not followed."""
    return b"/proc/self/fd/%d/%b" % (parent, base)


def set_xattrs(target: int | bytes, xattrs: dict[bytes, bytes]) -> None:
    """Set extended attributes, leaving out overlayfs's own and those not supported here.

    An image that could set overlayfs's attributes could redirect its directories.
    """
    for name, value in xattrs.items():
        if name.startswith(_OVERLAY_XATTRS):
            continue
        try:
            if isinstance(target, int):
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOTSUP, errno.EPERM):
                continue
            if error.errno == errno.ENOSPC and _has_room(target):  # ext4: not in the inode's block
                text = f'no room for extended attribute "{os.fsdecode(name)}" of {len(value)} bytes'
                raise ValueError(text) from error
            raise


def _has_room(target: int | bytes) -> bool:
    where = target if isinstance(target, int) else os.path.dirname(target)
    return os.statvfs(where).f_bavail > 0


def _umask() -> int:
    """This process's umask, read without setting it (other threads create files meanwhile)."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o777
