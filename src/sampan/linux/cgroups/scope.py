"""Cgroups that systemd makes: `slice:prefix:name` → a transient scope unit.

Source: systemd.resource-control(5), org.freedesktop.systemd1(5) "StartTransientUnit"; the path's
form is runc's `--systemd-cgroup`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sampan.errors import RuntimeFailure

if TYPE_CHECKING:
    from sampan.linux.cgroups.base import Cgroup
    from sampan.linux.cgroups.layout import Layout

DEFAULT_SLICE = "system.slice"


def unit_path(path: str) -> tuple[str, str]:
    """The unit's name and its cgroup path for `slice:prefix:name`.

    An empty slice is system.slice; a name that ends in `.slice` is that slice itself.

    Raises:
        RuntimeFailure: it has not three parts, or one is not a name.
    """
    parts = path.split(":")
    if len(parts) != 3 or not parts[2] or "/" in path or "\0" in path or "\n" in path:
        raise RuntimeFailure(
            "cgroup",
            f"expected cgroupsPath to be of format slice:prefix:name for systemd cgroups, "
            f"got {path!r} instead",
            path=path,
        )
    parent, prefix, name = parts
    if name.endswith(".slice"):
        return name, expand_slice(name)
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    return unit, f"{expand_slice(parent or DEFAULT_SLICE)}/{unit}"


def expand_slice(name: str) -> str:
    """A slice's cgroup path: `a-b.slice` → `/a.slice/a-b.slice`; `-.slice` is the top.

    Source: systemd.slice(5).

    Raises:
        RuntimeFailure: it is no slice's name.
    """
    stem = name.removesuffix(".slice")
    if name == "-.slice":
        return ""
    if stem == name or not all(stem.split("-")):
        raise RuntimeFailure("cgroup", f"invalid slice name {name!r}")
    path, prefix = "", ""
    for word in stem.split("-"):
        prefix = f"{prefix}-{word}" if prefix else word
        path += f"/{prefix}.slice"
    return path


def open_scope(path: str, layout: Layout) -> Cgroup:
    """The cgroup of the scope that `path` names.

    Raises:
        RuntimeFailure: the path is malformed, or systemd does not run here.
    """
    unit_path(path)
    if not os.path.isdir("/run/systemd/system"):
        raise RuntimeFailure(
            "cgroup", "systemd cgroups were asked for, but systemd does not run here"
        )
    raise RuntimeFailure("cgroup", f"{layout.mode}: systemd cgroups are not there")
