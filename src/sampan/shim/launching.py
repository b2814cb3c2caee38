"""What the shim's helper does: the runtime's calls, in and out as plain messages."""

from __future__ import annotations

import json

from sampan.linux import mounts, netlink
from sampan.linux.cgroups.manager import open_cgroup
from sampan.runtime import launch
from sampan.runtime import process as runtime_process
from sampan.shim.programs import read_program
from sampan.shim.stdio import set_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.runtime.trace import Trace
    from sampan.shim.protocol import ExecRequest, Message, SpawnOrder


def start_container(
    order: SpawnOrder, stdio: tuple[int, int, int] | None, trace: Trace | None
) -> tuple[Message, list[int]]:
    """Make the container and let it exec: {pid, warnings, marks} and [pidfd, console].

    Raises:
        RuntimeFailure: a stage failed; all is undone.
    """
    body = json.loads(order.launch)
    container = launch.create(
        launch.Launch(
            container_id=order.id,
            bundle=order.directory,
            config=body["config"],
            stdio=stdio,
            rootfs_mounts=[mounts.Mount.from_dict(mount) for mount in body["rootfs_mounts"]],
            seccomp_program=read_program(order.seccomp_program),
            endpoints=[netlink.VethEndpoint.from_dict(each) for each in body["endpoints"]],
            reaper=order.reaper,
            trace=trace,
        )
    )
    fds = [container.pidfd]
    if container.console_fd is not None:
        fds.append(container.console_fd)
        if order.console_size:
            set_size(container.console_fd, *order.console_size)
    container.start()
    marks = trace.marks if trace is not None else []
    return {
        "type": "started",
        "pid": container.pid,
        "warnings": container.warnings,
        "marks": marks,
    }, fds


def start_exec(
    order: SpawnOrder, request: ExecRequest, container_pid: int, stdio: tuple[int, int, int] | None
) -> tuple[Message, list[int]]:
    """Start a further process: {pid, warnings} and [pidfd, console].

    Raises:
        RuntimeFailure: it did not get as far as its own program; nothing is left of it.
    """
    made = runtime_process.execute(
        container_pid,
        request.process,
        config=json.loads(order.launch)["config"],
        stdio=stdio,
        container_id=order.id,
        seccomp_program=read_program(request.seccomp_program),
        cgroup=open_cgroup(order.cgroup_path) if order.cgroup_path else None,
    )
    fds = [made.pidfd]
    if made.console_fd is not None:
        fds.append(made.console_fd)
        if request.console_size:
            set_size(made.console_fd, *request.console_size)
    return {"type": "started", "pid": made.pid, "warnings": made.warnings}, fds
