"""The container's file tree, put together by its init inside the new mount namespace.

Every target is looked up inside the root file system by openat2(2) and mounted on through the
file descriptor that came back: file systems by mount(2) on `.`, binds by move_mount(2). No path of
the image or of a volume is ever joined to a path of the machine.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.errors import RuntimeFailure
from sampan.linux import mounts, rooted
from sampan.linux import syscalls as sys
from sampan.runtime import devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sampan.linux.mounts import Mount, Options
    from sampan.runtime.messages import Progress
    from sampan.runtime.plan import MountStep, Plan

# mounts over these parts of /proc are what lxcfs and the spec's own masks do
_PROC_TARGETS = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo",
        "diskstats",
        "loadavg",
        "meminfo",
        "net/dev",
        "slabinfo",
        "stat",
        "swaps",
        "sys/kernel/ns_last_pid",
        "uptime",
    )
)


class Trees:
    """Detached mounts that the runtime opened on the machine's side before init was cloned.

    `sources`: index of a mount in the plan → its tree, already mapped; `rootfs`: the root file
    system's own tree, or -1.
    """

    __slots__ = ("rootfs", "sources")

    def __init__(self) -> None:
        self.sources: dict[int, int] = {}
        self.rootfs = -1

    def close(self) -> None:
        for fd in (*self.sources.values(), self.rootfs):
            if fd >= 0:
                os.close(fd)
        self.sources = {}
        self.rootfs = -1


class Rootfs:
    """The root file system while it is put together; `fd` is an O_PATH descriptor of its root."""

    __slots__ = ("fd", "path", "plan", "progress", "trees")

    def __init__(self, plan: Plan, trees: Trees, progress: Progress) -> None:
        self.plan = plan
        self.path = plan.rootfs
        self.trees = trees
        self.progress = progress
        self.fd = -1

    def open(self, rootfs_mounts: Sequence[Mount]) -> None:
        """Cut the mount namespace off from the machine's and mount the root file system."""
        propagation = self.plan.propagation or sys.MS_SLAVE | sys.MS_REC
        self.progress.at("propagation", "/")
        sys.mount(None, "/", None, propagation)
        if propagation & sys.MS_SHARED:
            _make_parent_private(self.path)
        if rootfs_mounts:
            for mount in rootfs_mounts:
                self.progress.at("mount rootfs", self.path)
                mounts.perform(mount)
        else:
            self.progress.at("bind rootfs", self.path)
            tree = self.trees.rootfs
            if tree < 0:
                tree = mounts.clone_tree(self.path, recursive=True)
            sys.move_mount(tree, sys.AT_FDCWD, self.path)
            if tree != self.trees.rootfs:
                os.close(tree)
        self.fd = os.open(self.path, sys.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def mount(self, index: int, step: MountStep) -> None:
        """Perform one of the configuration's mounts (but cgroup, see `cgroup_mounts`)."""
        target = step.mount.target
        self.progress.at("mount", target)
        _check_target(step)
        if step.options.bind:
            self._bind(index, step)
        else:
            self._file_system(step)

    def _bind(self, index: int, step: MountStep) -> None:
        options = step.options
        tree = self.trees.sources.get(index, -1)
        if options.flags & sys.MS_REMOUNT:
            self._remount(step)
            return
        if tree < 0:
            tree = open_source(step)
        try:
            is_directory = stat.S_ISDIR(os.fstat(tree).st_mode)
            make = rooted.make_directory if is_directory else rooted.make_file
            target, _ = make(self.fd, step.mount.target)
            try:
                _check_covered(step, target, tree)
                mounts.attach_tree(tree, options, target)
            finally:
                os.close(target)
        finally:
            if index not in self.trees.sources:
                os.close(tree)

    def open_source(self, index: int, step: MountStep) -> None:
        """Open a bind's source, whose path is the machine's, for a `mount` behind the pivot."""
        bind = step.options.bind and not step.options.flags & sys.MS_REMOUNT
        if bind and index not in self.trees.sources:
            self.progress.at("mount", step.mount.target)
            self.trees.sources[index] = open_source(step)

    def _remount(self, step: MountStep) -> None:
        target = rooted.open_inside(self.fd, step.mount.target)
        try:
            wanted, cleared = step.options.attributes()
            sys.mount_setattr(target, set_attributes=wanted, clear_attributes=cleared)
        finally:
            os.close(target)

    def _file_system(self, step: MountStep) -> None:
        mount, options = step.mount, step.options
        strict = mount.type in ("proc", "sysfs")
        target, made = rooted.make_directory(self.fd, mount.target)
        try:
            _check_covered(step, target)
            if strict:
                _check_ordinary(self.fd, mount.target, mount.type)
            if mount.type == "tmpfs" and not made:
                _keep_mode(target, options)
            copied = _open_for_copy(self.fd, mount.target) if options.copy_up else -1
            mount_on(target, mount, options, self.plan.linux.get("mountLabel") or "")
        finally:
            os.close(target)
        if options.propagation or options.recursive_set or options.recursive_clear or copied >= 0:
            self._adjust(step, copied)

    def _adjust(self, step: MountStep, copied: int) -> None:
        """What can be done to a file system only once it is mounted."""
        options = step.options
        top = rooted.open_inside(self.fd, step.mount.target)
        try:
            if copied >= 0:
                _copy_tree(copied, top)
                os.close(copied)
            if options.recursive_set or options.recursive_clear:
                sys.mount_setattr(
                    top,
                    set_attributes=options.recursive_set,
                    clear_attributes=options.recursive_clear,
                    recursive=True,
                )
            for propagation in options.propagation:
                recursive = bool(propagation & sys.MS_REC)
                sys.mount_setattr(top, propagation=propagation & ~sys.MS_REC, recursive=recursive)
        finally:
            os.close(top)

    def make_devices(self) -> None:
        """Make device nodes and the links that every /dev has, unless /dev is the machine's."""
        if self.plan.device_setup:
            self.progress.at("device", "/dev")
            devices.make_devices(self.fd, self.plan.linux.get("devices") or (), self.progress)
            devices.make_links(self.fd)

    def pivot(self, *, no_pivot: bool) -> None:
        """Make the root file system this process's root, and let go of the machine's.

        Raises:
            OSError: of pivot_root(2); on a ramfs root `no_pivot` is the way.
        """
        if no_pivot:
            self._move_root()
        else:
            self._pivot_root()
        os.close(self.fd)
        self.fd = os.open("/", sys.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if self.plan.propagation:
            self.progress.at("propagation", "/")
            sys.mount(None, "/", None, self.plan.propagation)

    def _pivot_root(self) -> None:
        self.progress.at("pivot_root", self.path)
        old = os.open("/", sys.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fchdir(self.fd)
        sys.pivot_root(".", ".")
        # the old root lies over the new one: nothing that happens to it may reach the machine
        os.fchdir(old)
        os.close(old)
        sys.mount(None, ".", None, sys.MS_SLAVE | sys.MS_REC)
        sys.umount2(".", sys.MNT_DETACH)
        os.chdir("/")

    def _move_root(self) -> None:
        """chroot(2) after hiding what else is mounted, as for a root that is a ramfs."""
        self.progress.at("mount --move", self.path)
        for point in _mount_points():
            if point in ("/proc", "/sys") or point.startswith(("/proc/", "/sys/")):
                try:
                    sys.umount2(point, sys.MNT_DETACH)
                except OSError as error:
                    if error.errno not in (errno.EINVAL, errno.EPERM):
                        raise
        os.fchdir(self.fd)
        sys.mount(self.path, "/", None, sys.MS_MOVE)
        os.chroot(".")
        os.chdir("/")

    def seal(self) -> None:
        """Last of all: make the root read-only, if it is to be."""
        if (self.plan.config.get("root") or {}).get("readonly"):
            self.progress.at("readonly rootfs", "/")
            sys.mount_setattr(self.fd, set_attributes=sys.MOUNT_ATTR_RDONLY)


def mount_on(target: int, mount: Mount, options: Options, label: str = "") -> None:
    """Mount a file system over the directory of a file descriptor; the working directory changes."""
    data = ",".join(options.data)
    if label and mount.type not in ("proc", "sysfs", "mqueue", "cgroup", "cgroup2"):
        data = f'{data},context="{label}"' if data else f'context="{label}"'
    flags = options.flags & ~sys.MS_REC
    os.fchdir(target)
    sys.mount(mount.source, ".", mount.type, flags, data or None)


def open_source(step: MountStep) -> int:
    """A detached tree of a bind's source, with its ID mapping; source paths are the machine's.

    Raises:
        OSError: ENOENT for a missing source; of mount_setattr(2) where a file system has no idmap.
    """
    recursive = bool(step.options.flags & sys.MS_REC)
    try:
        return mounts.clone_tree(step.mount.source, recursive=recursive)
    except OSError as error:
        error.filename = step.mount.source
        raise


def map_tree(tree: int, userns_fd: int, *, recursive: bool) -> None:
    """Give a detached tree the ID mapping of a user namespace (an idmapped mount)."""
    sys.mount_setattr(
        tree, set_attributes=sys.MOUNT_ATTR_IDMAP, userns_fd=userns_fd, recursive=recursive
    )


def _check_target(step: MountStep) -> None:
    target = step.mount.target
    if target.startswith("/proc/") and target not in _PROC_TARGETS:
        # over /proc's own files only things that belong there: anything else could be a forged one
        if step.mount.type == "proc":
            return
        if step.options.bind and step.mount.source.startswith("/proc/"):
            return
        raise _inside_proc(target)
    if target == "/proc" and not step.options.bind and step.mount.type != "proc":
        raise _no_proc(target)


def _check_covered(step: MountStep, covered: int, tree: int = -1) -> None:
    """`_check_target` for what the name led to, perhaps by a link of the image's (CVE-2023-27561).

    `tree` is what a bind puts there: over /proc only another procfs.
    """
    target = step.mount.target
    if target == "/proc" and tree >= 0 and not _is_proc(tree):
        raise _no_proc(target)
    own = target == "/proc" or target.startswith("/proc/") or step.mount.type == "proc"
    if not own and _is_proc(covered):
        raise _inside_proc(target)


def _is_proc(fd: int) -> bool:
    return sys.file_system_type(fd) == sys.PROC_SUPER_MAGIC


def _inside_proc(target: str) -> RuntimeFailure:
    message = f'"{target}" cannot be mounted because it is inside /proc'
    return RuntimeFailure("mount", message, path=target)


def _no_proc(target: str) -> RuntimeFailure:
    message = f'"{target}" cannot be mounted because it is not of type proc'
    return RuntimeFailure("mount", message, path=target)


def _check_ordinary(root_fd: int, target: str, kind: str) -> None:
    """Refuse /proc and /sys that are links, as in CVE-2019-19921."""
    fd = sys.openat2(
        root_fd,
        target,
        sys.O_PATH | os.O_NOFOLLOW,
        resolve=sys.RESOLVE_IN_ROOT | sys.RESOLVE_NO_MAGICLINKS,
    )
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise RuntimeFailure(
                "mount",
                f'filesystem "{kind}" must be mounted on ordinary directory',
                path=target,
            )
    finally:
        os.close(fd)


def _keep_mode(target: int, options: Options) -> None:
    """A tmpfs without a mode takes that of the directory it covers."""
    if not any(word.startswith("mode=") for word in options.data):
        mode = stat.S_IMODE(os.fstat(target).st_mode)
        options.data.append(f"mode={mode:o}")


def _open_for_copy(root_fd: int, target: str) -> int:
    return rooted.open_inside(root_fd, target, os.O_RDONLY | os.O_DIRECTORY)


def _copy_tree(source: int, target: int) -> None:
    """Copy what a tmpfs with `tmpcopyup` covers into it: files, links, modes, owners."""
    writable = os.open(f"/proc/self/fd/{target}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.listdir(source):
            _copy_entry(source, writable, name)
    finally:
        os.close(writable)


def _copy_entry(source: int, target: int, name: str) -> None:
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        os.mkdir(name, 0o700, dir_fd=target)
        inner, made = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
        try:
            for entry in os.listdir(inner):
                _copy_entry(inner, made, entry)
            os.fchown(made, status.st_uid, status.st_gid)
            os.fchmod(made, stat.S_IMODE(status.st_mode))
        finally:
            os.close(inner)
            os.close(made)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    elif stat.S_ISREG(status.st_mode):
        _copy_file(source, target, name, status)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: str, status: os.stat_result) -> None:
    reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    writer = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target
    )
    try:
        while os.sendfile(writer, reader, None, 1 << 20):
            pass
        os.fchown(writer, status.st_uid, status.st_gid)
        os.fchmod(writer, stat.S_IMODE(status.st_mode))
    finally:
        os.close(reader)
        os.close(writer)


def _mount_points() -> list[str]:
    """The mount points of this namespace, innermost last mounted first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split(" ", 5)[4] for line in file]
    points.reverse()
    return [_unescape(point) for point in points]


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, character)
    return text


def _make_parent_private(path: str) -> None:
    """pivot_root(2) refuses a root whose parent mount is shared; find that mount, cut it off."""
    real = os.path.realpath(path)
    points = {point for point in _mount_points() if _is_under(real, point)}
    if points:
        sys.mount(None, max(points, key=len), None, sys.MS_PRIVATE)


def _is_under(path: str, point: str) -> bool:
    return point == "/" or path == point or path.startswith(f"{point}/")


class _Cover:
    """One detached mount that covers any number of paths: attached at first, then copied.

    Kernels before 6.15 copy only what is attached.
    """

    __slots__ = ("_attached", "_tree")

    def __init__(self, tree: int) -> None:
        self._tree = tree
        self._attached = False

    def over(self, target: int) -> None:
        if not self._attached:
            sys.move_mount(self._tree, target)
            self._attached = True
            return
        tree = sys.open_tree(self._tree, b"", sys.OPEN_TREE_CLONE)
        try:
            sys.move_mount(tree, target)
        finally:
            os.close(tree)

    def close(self) -> None:
        os.close(self._tree)


def open_null() -> int:
    """A detached, read-only mount of the machine's /dev/null: nobody may chmod(2) it through that."""
    tree = mounts.clone_tree("/dev/null", recursive=False)
    sys.mount_setattr(tree, set_attributes=sys.MOUNT_ATTR_RDONLY | sys.MOUNT_ATTR_NOSUID)
    return tree


def restrict(root_fd: int, plan: Plan, null_tree: int, progress: Progress) -> None:
    """Make `readonlyPaths` read-only and hide `maskedPaths`; missing paths need neither.

    `null_tree` is a detached mount of the machine's /dev/null, which is closed here: what covers a
    masked file comes from there and not from the container's /dev (CVE-2025-31133).
    """
    progress.at("readonlyPaths")
    for path in plan.linux.get("readonlyPaths") or ():
        progress.path = path
        _make_readonly(root_fd, path)
    progress.at("maskedPaths")
    null, empty = _Cover(null_tree), None
    for path in plan.linux.get("maskedPaths") or ():
        progress.path = path
        target = _open_restricted(root_fd, path)
        if target < 0:
            continue
        try:
            if not stat.S_ISDIR(os.fstat(target).st_mode):
                null.over(target)
            else:
                empty = empty or _Cover(_empty_directory())
                empty.over(target)
        finally:
            os.close(target)
    null.close()
    if empty is not None:
        empty.close()


def _open_restricted(root_fd: int, path: str) -> int:
    try:
        return rooted.open_inside(root_fd, path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return -1
        raise


def _make_readonly(root_fd: int, path: str) -> None:
    target = _open_restricted(root_fd, path)
    if target < 0:
        return
    try:
        tree = sys.open_tree(target, b"", sys.OPEN_TREE_CLONE | sys.AT_RECURSIVE)
        try:
            sys.mount_setattr(tree, set_attributes=sys.MOUNT_ATTR_RDONLY)
            sys.move_mount(tree, target)
        finally:
            os.close(tree)
    finally:
        os.close(target)


def _empty_directory() -> int:
    context = sys.fsopen("tmpfs")
    try:
        sys.fsconfig(context, sys.FSCONFIG_SET_STRING, "source", "tmpfs")
        sys.fsconfig(context, sys.FSCONFIG_SET_STRING, "nr_blocks", "1")
        sys.fsconfig(context, sys.FSCONFIG_SET_STRING, "nr_inodes", "1")
        sys.fsconfig(context, sys.FSCONFIG_CMD_CREATE)
        return sys.fsmount(context, sys.MOUNT_ATTR_RDONLY)
    finally:
        os.close(context)


def write_sysctls(proc_fd: int, sysctls: Mapping[str, str], progress: Progress) -> None:
    """Set kernel parameters of the container's namespaces through a trusted procfs."""
    for name, value in sysctls.items():
        progress.at("sysctl", name)
        fd = sys.openat2(
            proc_fd,
            f"sys/{name}",
            os.O_WRONLY,
            resolve=sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS,
        )
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
