"""The door to cgroups: picks the implementation for what this machine has mounted."""

from __future__ import annotations

from sampan.errors import RuntimeFailure
from sampan.linux.cgroups import layout as layouts
from sampan.linux.cgroups.base import Cgroup, Gate
from sampan.linux.cgroups.files import read_raw
from sampan.linux.cgroups.layout import Layout

__all__ = ["Cgroup", "Gate", "mode", "open_cgroup"]


def mode() -> str:
    """`legacy` (v1), `hybrid` (v1 with a v2 tree beside it) or `unified` (v2)."""
    return layouts.layout().mode


def open_cgroup(path: str, *, systemd: bool = False, layout: Layout | None = None) -> Cgroup:
    """The cgroup that OCI's `linux.cgroupsPath` names; makes nothing.

    An absolute path counts from the mount points, a relative one from this process's own cgroup
    (on v2 from that cgroup's parent, for a cgroup with processes cannot pass controllers on).
    With `systemd` the path is `slice:prefix:name`, and systemd makes the scope.

    Raises:
        RuntimeFailure: the path is malformed.
    """
    layout = layout or layouts.layout()
    if systemd:
        from sampan.linux.cgroups.scope import open_scope

        return open_scope(path, layout)
    relative = check_path(path)
    own = {} if path.startswith("/") else layouts.parse_own(read_raw("/proc/self/cgroup"))
    return pick(layout, relative, own)


def pick(layout: Layout, path: str, own: dict[str, str]) -> Cgroup:
    """The implementation for `layout`; `own` is where a relative path counts from, else empty."""
    if layout.mode == "unified":
        from sampan.linux.cgroups.v2 import CgroupV2

        assert layout.unified is not None
        if own:
            path = layouts.own_path(own, ("",), layout.unified_mount_root).rpartition("/")[0] + path
        return CgroupV2(layout.unified, path)
    from sampan.linux.cgroups.v1 import CgroupV1

    return CgroupV1(layout, path, own)


def check_path(path: str) -> str:
    """`path` with one leading slash and no empty parts.

    Raises:
        RuntimeFailure: it is empty, or could lead out of the hierarchy.
    """
    parts = [part for part in path.split("/") if part]
    if not parts or "." in parts or ".." in parts or "\0" in path or "\n" in path:
        raise RuntimeFailure("cgroup", f"invalid cgroup path {path!r}", path=path)
    return "/" + "/".join(parts)
