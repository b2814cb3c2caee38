"""Which cgroup hierarchies this machine has mounted, and where.

legacy   v1 hierarchies only, one or more controllers each
hybrid   the same, and a v2 tree beside them (systemd: /sys/fs/cgroup/unified)
unified  the v2 tree only
"""

from __future__ import annotations

from sampan.errors import Unsupported
from sampan.linux.cgroups.files import read_raw


class Hierarchy:
    """A v1 hierarchy: its mount point and controllers (`name=systemd` for one without any)."""

    __slots__ = ("controllers", "mount_root", "root")

    def __init__(self, root: str, controllers: tuple[str, ...], mount_root: str = "/") -> None:
        self.root = root
        self.controllers = controllers
        self.mount_root = mount_root

    def __repr__(self) -> str:
        return f"Hierarchy({self.root!r}, {self.controllers!r}, {self.mount_root!r})"


class Layout:
    """The mounted hierarchies; `mode` is `legacy`, `hybrid` or `unified`."""

    __slots__ = ("hierarchies", "mode", "unified", "unified_mount_root")

    def __init__(
        self, hierarchies: tuple[Hierarchy, ...], unified: str | None, unified_mount_root: str = "/"
    ) -> None:
        self.hierarchies = hierarchies
        self.unified = unified
        self.unified_mount_root = unified_mount_root
        if not hierarchies:
            self.mode = "unified"
        else:
            self.mode = "hybrid" if unified else "legacy"


_NOT_CONTROLLERS = frozenset(
    ("rw", "ro", "xattr", "noprefix", "clone_children", "release_agent", "cpuset_v2_mode")
)


def parse_layout(mountinfo: str) -> Layout:
    """The layout in the text of /proc/self/mountinfo; see proc(5).

    Where a hierarchy is mounted several times, the mount under /sys/fs/cgroup counts, then the
    first one.

    Raises:
        Unsupported: nothing is mounted.
    """
    v1: dict[tuple[str, ...], Hierarchy] = {}
    v2: tuple[str, str] | None = None
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        kind, _, options = tail.partition(" ")
        if kind not in ("cgroup", "cgroup2"):
            continue
        fields = head.split(" ")
        mount_root, point = _unescape(fields[3]), _unescape(fields[4])
        standard = point.startswith("/sys/fs/cgroup")
        if kind == "cgroup2":
            if v2 is None or (standard and not v2[0].startswith("/sys/fs/cgroup")):
                v2 = (point, mount_root)
            continue
        controllers = _controllers(options.rpartition(" ")[2])
        known = v1.get(controllers)
        if known is None or (standard and not known.root.startswith("/sys/fs/cgroup")):
            v1[controllers] = Hierarchy(point, controllers, mount_root)
    if not v1 and v2 is None:
        raise Unsupported("no cgroup hierarchy is mounted", hint="mount one on /sys/fs/cgroup")
    if v2 is None:
        return Layout(tuple(v1.values()), None)
    return Layout(tuple(v1.values()), *v2)


def _controllers(options: str) -> tuple[str, ...]:
    return tuple(
        option
        for option in options.split(",")
        if option.startswith("name=") or ("=" not in option and option not in _NOT_CONTROLLERS)
    )


def _unescape(path: str) -> str:
    """Undo the octal escapes of proc(5): space, tab, newline, backslash."""
    if "\\" not in path:
        return path
    for code, character in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        path = path.replace("\\" + code, character)
    return path


_layout: Layout | None = None


def layout() -> Layout:
    """This machine's layout, read at the first call and kept.

    The mounts do not change under a running engine, and a process forked from one that has called
    this pays nothing.

    Raises:
        Unsupported: no cgroup hierarchy is mounted.
    """
    global _layout
    if _layout is None:
        _layout = parse_layout(read_raw("/proc/self/mountinfo"))
    return _layout


def parse_own(text: str) -> dict[str, str]:
    """controller → path in the text of /proc/PID/cgroup; `""` is the v2 tree; see cgroups(7)."""
    own = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            own[controller] = path
    return own


def own_path(own: dict[str, str], controllers: tuple[str, ...], mount_root: str) -> str:
    """The calling process's cgroup below the mount point: `""`, or `/a/b` without a last slash.

    A mount in a container without its own cgroup namespace shows a part of the hierarchy
    (`mount_root`), while /proc/self/cgroup counts from the top.
    """
    path = next((own[name] for name in controllers if name in own), "/")
    if mount_root != "/" and (path + "/").startswith(mount_root + "/"):
        path = path[len(mount_root) :]
    return path.rstrip("/")
