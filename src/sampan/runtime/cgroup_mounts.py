"""The mount of type `cgroup`: the container's view of its own cgroups, in all three layouts.

With a cgroup namespace the file systems are mounted anew, and the namespace makes the container's
cgroup their root; without one the container's directories are bound.
"""

from __future__ import annotations

import os

from sampan.linux import mounts, rooted
from sampan.linux import syscalls as sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.linux.cgroups.layout import Layout
    from sampan.linux.mounts import Options
    from sampan.runtime.messages import Progress
    from sampan.runtime.plan import MountStep

_KEPT = sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC | sys.MS_RELATIME


class CgroupView:
    """What is to be seen: the machine's `layout`, and each hierarchy's directory.

    `paths` is controller → the container's directory (`""`: the version 2 one), `private` whether
    the container has a cgroup namespace.
    """

    __slots__ = ("layout", "paths", "private")

    def __init__(self, layout: Layout, paths: Mapping[str, str], *, private: bool) -> None:
        self.layout = layout
        self.paths = dict(paths)
        self.private = private

    def mount(self, root_fd: int, step: MountStep, progress: Progress) -> None:
        """Mount the view at the step's target; the working directory changes."""
        progress.at("mount", step.mount.target)
        target, _ = rooted.make_directory(root_fd, step.mount.target)
        try:
            if self.layout.mode == "unified":
                self._mount_unified(target, step.options)
            else:
                self._mount_hierarchies(root_fd, target, step, progress)
        finally:
            os.close(target)

    def _mount_unified(self, target: int, options: Options) -> None:
        if self.private:
            os.fchdir(target)
            sys.mount("cgroup", ".", "cgroup2", options.flags & ~sys.MS_REC)
            return
        tree = mounts.clone_tree(self.paths.get("", "/sys/fs/cgroup"), recursive=False)
        try:
            mounts.attach_tree(tree, options, target)
        finally:
            os.close(tree)

    def _mount_hierarchies(
        self, root_fd: int, target: int, step: MountStep, progress: Progress
    ) -> None:
        options = step.options
        flags = options.flags & _KEPT
        os.fchdir(target)
        sys.mount("tmpfs", ".", "tmpfs", flags, "mode=755")
        top = rooted.open_inside(root_fd, step.mount.target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name, controllers, directory in self._hierarchies():
                progress.path = f"{step.mount.target}/{name}"
                os.mkdir(name, 0o755, dir_fd=top)
                self._mount_one(top, name, controllers, directory, options)
                _link_controllers(top, name)
            if options.flags & sys.MS_RDONLY:
                sys.mount_setattr(top, set_attributes=sys.MOUNT_ATTR_RDONLY)
        finally:
            os.close(top)

    def _mount_one(
        self, top: int, name: str, controllers: str, directory: str, options: Options
    ) -> None:
        if self.private:
            os.fchdir(top)
            flags = options.flags & ~sys.MS_REC
            if controllers:
                sys.mount("cgroup", name, "cgroup", flags, controllers)
            else:
                sys.mount("cgroup", name, "cgroup2", flags)
            return
        tree = mounts.clone_tree(directory, recursive=False)
        try:
            mounts.configure_tree(tree, options)
            sys.move_mount(tree, top, name)
        finally:
            os.close(tree)

    def _hierarchies(self) -> list[tuple[str, str, str]]:
        """(name of the mount point, option for mount(2), the container's directory)."""
        found: list[tuple[str, str, str]] = []
        for hierarchy in self.layout.hierarchies:
            first = hierarchy.controllers[0]
            if first not in self.paths:
                continue
            name = os.path.basename(hierarchy.root)
            option = ",".join(hierarchy.controllers)
            if first.startswith("name="):
                option = f"none,{option}"
            found.append((name, option, self.paths[first]))
        if self.layout.unified and "" in self.paths:
            found.append((os.path.basename(self.layout.unified), "", self.paths[""]))
        return found


def _link_controllers(top: int, name: str) -> None:
    """Controllers mounted together (`cpu,cpuacct`) are found by each of their names too."""
    if "," in name:
        for alias in name.split(","):
            os.symlink(name, alias, dir_fd=top)
