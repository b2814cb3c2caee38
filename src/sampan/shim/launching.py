"""What the shim's helper does: the runtime's calls, in and out as plain messages."""

from __future__ import annotations

import json

from sampan.linux import mounts, netlink
from sampan.linux.cgroups.manager import open_cgroup
from sampan.runtime import launch
from sampan.runtime import process as runtime_process
from sampan.runtime.trace import Trace
from sampan.shim.protocol import ExecRequest, SpawnOrder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.shim.protocol import Message


def container_work(order: SpawnOrder, marks: list[tuple[str, int]]) -> Message:
    return {"type": "container", "order": order.to_dict(), "marks": marks}


def exec_work(order: SpawnOrder, request: ExecRequest, container_pid: int) -> Message:
    return {
        "type": "exec",
        "order": order.to_dict(),
        "exec": request.to_dict(),
        "container": container_pid,
    }


def work(message: Message, fds: list[int]) -> tuple[Message, list[int]]:
    """Start a process; `fds` are its standard streams, none for a terminal of its own.

    The answer has its `pid`, `warnings` and `marks`, the descriptors are [pidfd, console].

    Raises:
        RuntimeFailure: a stage failed; all is undone.
    """
    stdio = (fds[0], fds[1], fds[2]) if fds else None
    order = SpawnOrder.from_dict(message["order"])
    if message["type"] == "container":
        return start_container(order, stdio, message["marks"])
    return start_exec(order, ExecRequest.from_dict(message["exec"]), message["container"], stdio)


def start_container(
    order: SpawnOrder, stdio: tuple[int, int, int] | None, marks: list[tuple[str, int]]
) -> tuple[Message, list[int]]:
    body = json.loads(order.launch)
    trace = None
    if order.trace:
        trace = Trace()
        trace.marks += marks
        trace.mark("helper")
    set_size(body["config"]["process"], order.console_size)
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
            wait_for_start=False,
        )
    )
    container.start()
    return started(
        container.pid,
        container.pidfd,
        container.console_fd,
        container.warnings,
        trace.marks if trace is not None else (),
    )


def start_exec(
    order: SpawnOrder,
    request: ExecRequest,
    container_pid: int,
    stdio: tuple[int, int, int] | None,
) -> tuple[Message, list[int]]:
    set_size(request.process, request.console_size)
    made = runtime_process.execute(
        container_pid,
        request.process,
        config=json.loads(order.launch)["config"],
        stdio=stdio,
        container_id=order.id,
        seccomp_program=read_program(request.seccomp_program),
        cgroup=open_cgroup(order.cgroup_path) if order.cgroup_path else None,
    )
    return started(made.pid, made.pidfd, made.console_fd, made.warnings)


def set_size(process: dict[str, Any], size: Sequence[int] | None) -> None:
    """The terminal's first size (rows, columns), in the words of the OCI runtime-spec."""
    if size:
        process["consoleSize"] = {"height": size[0], "width": size[1]}


def started(
    pid: int,
    pidfd: int,
    console: int | None,
    warnings: list[str],
    marks: Sequence[tuple[str, int]] = (),
) -> tuple[Message, list[int]]:
    fds = [pidfd] if console is None else [pidfd, console]
    return {"type": "started", "pid": pid, "warnings": warnings, "marks": marks}, fds


def read_program(path: str | None) -> bytes | None:
    """The compiled seccomp program in the file `path`.

    Raises:
        OSError: the file cannot be read.
    """
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()
