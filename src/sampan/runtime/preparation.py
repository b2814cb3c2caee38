"""What init takes along: the cgroup's gate and view, the filter, mounts opened on this side."""

from __future__ import annotations

import errno
import os

from sampan.errors import RuntimeFailure
from sampan.linux import namespaces, seccomp
from sampan.linux import syscalls as sys
from sampan.linux.cgroups import layout as cgroup_layout
from sampan.linux.cgroups import manager as cgroups
from sampan.runtime import hooks, notify
from sampan.runtime.cgroup_mounts import CgroupView
from sampan.runtime.messages import file_name, os_failure
from sampan.runtime.rootfs import Trees, map_tree, open_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.linux.cgroups.base import Cgroup, Gate
    from sampan.runtime.launch import Launch
    from sampan.runtime.notify import Agent
    from sampan.runtime.plan import Plan
    from sampan.runtime.undo import Undo


def open_cgroup(launch: Launch, plan: Plan) -> Cgroup | None:
    path = plan.linux.get("cgroupsPath")
    if not path:
        return None
    return cgroups.open_cgroup(path, systemd=launch.systemd_cgroup)


def gate(launch: Launch, cgroup: Cgroup | None, plan: Plan, closing: Undo) -> Gate | None:
    if cgroup is None or (launch.systemd_cgroup and plan.has("user")):
        return None
    made = plan.has("user")
    if made:
        cgroup.create()  # its files are opened on this side: init will not have the right
        _delegate(cgroup, plan)
    gate = cgroup.gate(made=made)
    closing.add(gate.close)
    return gate


def made_after_clone(launch: Launch, plan: Plan) -> bool:
    """Is the cgroup made after the clone? Not for a user namespace, whose init needs open files."""
    return launch.systemd_cgroup or not plan.has("user")


def _delegate(cgroup: Cgroup, plan: Plan) -> None:
    """Give the cgroup to the container's root; config-linux.md, "Cgroup ownership"."""
    writable = any(
        step.mount.type in ("cgroup", "cgroup2") and not step.options.flags & sys.MS_RDONLY
        for step in plan.mounts
    )
    if "cgroup" in plan.new and writable:
        for row in plan.linux.get("uidMappings") or ():
            if row["containerID"] == 0:
                cgroup.delegate(row["hostID"])


def view(cgroup: Cgroup | None, plan: Plan) -> CgroupView | None:
    if not any(step.mount.type in ("cgroup", "cgroup2") for step in plan.mounts):
        return None
    layout = cgroup_layout.layout()
    paths = cgroup.paths() if cgroup is not None else _own_paths(layout)
    return CgroupView(layout, paths, private=plan.has("cgroup"))


def _own_paths(layout: cgroup_layout.Layout) -> dict[str, str]:
    """Where a container without a cgroup of its own is: where this process is."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        own = cgroup_layout.parse_own(file.read())
    paths = {}
    for hierarchy in layout.hierarchies:
        path = cgroup_layout.own_path(own, hierarchy.controllers, hierarchy.mount_root)
        paths.update(dict.fromkeys(hierarchy.controllers, hierarchy.root + path))
    if layout.unified:
        paths[""] = layout.unified + cgroup_layout.own_path(own, ("",), layout.unified_mount_root)
    return paths


def filter_program(launch: Launch, plan: Plan) -> bytes | None:
    profile = plan.linux.get("seccomp")
    if launch.seccomp_program is not None:
        return launch.seccomp_program
    if not profile:
        return None
    if launch.seccomp_cache:
        return seccomp.cached_program(profile, launch.seccomp_cache)[0]
    return seccomp.compile_profile(profile)


def agent(launch: Launch, plan: Plan, closing: Undo) -> Agent | None:
    config = launch.config
    version = config.get("ociVersion") or ""
    state = hooks.state_document(
        launch.container_id, "creating", 0, launch.bundle, config.get("annotations"), version
    )
    agent = notify.connect_agent(plan.linux.get("seccomp"), state, version)
    if agent is not None:
        closing.add(agent.sock.close)
    return agent


def open_trees(plan: Plan, launch: Launch) -> Trees:
    """Open on this side what init could not: mapped binds, and sources behind a user namespace."""
    trees = Trees()
    foreign = plan.has("user")
    try:
        for index, step in enumerate(plan.mounts):
            mapped = bool(step.uid_mappings or step.options.idmap)
            if step.options.bind and (mapped or foreign):
                trees.sources[index] = open_source(step)
            if mapped:
                _map_source(plan, index, trees)
        if foreign and not launch.rootfs_mounts:
            trees.rootfs = sys.open_tree(
                sys.AT_FDCWD, plan.rootfs, sys.OPEN_TREE_CLONE | sys.AT_RECURSIVE
            )
    except OSError as error:
        trees.close()
        raise os_failure("mount", error, file_name(error)) from error
    except RuntimeFailure:
        trees.close()
        raise
    return trees


def _map_source(plan: Plan, index: int, trees: Trees) -> None:
    step = plan.mounts[index]
    uids = step.uid_mappings or plan.linux.get("uidMappings") or ()
    gids = step.gid_mappings or plan.linux.get("gidMappings") or ()
    userns = namespaces.user_namespace(uids, gids)
    try:
        map_tree(trees.sources[index], userns, recursive=step.options.idmap == "ridmap")
    except OSError as error:
        if error.errno == errno.EINVAL:
            message = f"mount {step.mount.target}: the file system of {step.mount.source} has no idmapped mounts"
            raise RuntimeFailure(
                "mount", message, path=step.mount.source, errno=error.errno
            ) from error
        error.filename = step.mount.target
        raise
    finally:
        os.close(userns)
