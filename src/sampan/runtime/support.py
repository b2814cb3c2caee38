"""The machine's side of a container, made while its init mounts: mappings, cgroup, network, hooks."""

from __future__ import annotations

import errno

from sampan.linux import namespaces, netlink
from sampan.runtime import hooks, messages
from sampan.runtime.messages import file_name, os_failure
from sampan.runtime.preparation import made_after_clone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.linux.cgroups.base import Cgroup
    from sampan.linux.netlink import VethEndpoint
    from sampan.linux.seqpacket import Socket
    from sampan.runtime.launch import Launch
    from sampan.runtime.plan import Plan
    from sampan.runtime.undo import Undo


def support(
    launch: Launch, plan: Plan, pid: int, sock: Socket, cgroup: Cgroup | None, undo: Undo
) -> None:
    trace = launch.trace
    if "user" in plan.new:
        _map(plan, pid)
        messages.send(sock, messages.MAPPED)
    if cgroup is not None:
        if made_after_clone(launch, plan):
            cgroup.adopt(pid)
            cgroup.create()
        cgroup.apply(plan.resources)
        if launch.systemd_cgroup and plan.has("user"):
            cgroup.add(pid)
        if trace:
            trace.mark("cgroup")
    for endpoint in launch.endpoints:
        _attach(endpoint, pid, undo)
    if launch.endpoints and trace:
        trace.mark("network")
    _move_devices(plan, pid)
    _set_oom_score(plan, pid)
    messages.send(sock, messages.JOINED, {"pid": pid})


def _map(plan: Plan, pid: int) -> None:
    uids, gids = plan.linux.get("uidMappings") or (), plan.linux.get("gidMappings") or ()
    try:
        namespaces.write_mappings(pid, uids, gids)
    except OSError as error:
        raise os_failure("uid_map", error, file_name(error)) from error


def _attach(endpoint: VethEndpoint, pid: int, undo: Undo) -> None:
    try:
        netlink.create_veth(endpoint, netns_pid=pid)
    except OSError as error:
        raise os_failure("network", error, endpoint.host_name) from error
    if endpoint.host_name:  # the others go with the namespace
        undo.add(netlink.delete_link, endpoint.host_name)


def _move_devices(plan: Plan, pid: int) -> None:
    devices = plan.linux.get("netDevices")
    if devices:
        from sampan.runtime import network_devices

        network_devices.move(devices, pid)


def _set_oom_score(plan: Plan, pid: int) -> None:
    score = plan.process.get("oomScoreAdj")
    if score is None:
        return
    path = f"/proc/{pid}/oom_score_adj"
    try:
        namespaces.write_file(path, str(score).encode())
    except OSError as error:
        if error.errno == errno.EACCES and plan.has("user"):
            return  # lowering it needs a capability that a rootless parent does not have either
        raise os_failure("oom_score_adj", error, path) from error


def run_hooks(launch: Launch, plan: Plan, pid: int) -> None:
    config = launch.config
    state = hooks.state_document(
        launch.container_id,
        "creating",
        pid,
        launch.bundle,
        config.get("annotations"),
        config.get("ociVersion") or "",
    )
    for kind in ("prestart", "createRuntime"):
        if kind in plan.hooks:
            hooks.run_hooks(kind, plan.hooks[kind], state)
