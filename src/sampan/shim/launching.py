"""What the shim's helper does: the runtime's calls, in and out as plain messages."""

from __future__ import annotations

import json
import os

from sampan.linux import mounts, netlink
from sampan.linux.cgroups.manager import open_cgroup
from sampan.runtime import launch
from sampan.runtime import process as runtime_process
from sampan.runtime.trace import Trace
from sampan.shim import protocol
from sampan.shim.exec_order import ExecOrder
from sampan.shim.pipes import open_null, open_pipes
from sampan.shim.protocol import SpawnOrder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.shim.pipes import Ends
    from sampan.shim.protocol import Message

    Answer = tuple[Message, list[int]]

JOINS = "joins"  # the answer of a helper to a container that it cannot make


def work(message: Message, fds: list[int]) -> Answer:
    """Start the process that a `spawn` or `exec` message asks for.

    `fds` are those of the message, taken over; only the container's pidfd, the second of the latter, is
    of use here.

    The answer has its `pid`, `warnings` and `marks`; the descriptors are its pidfd, as many `sockets`
    as it says (see `linux.dns_sockets`) and those that `Stdio.start` takes. A container that joins namespaces is left to the shim itself (JOINS): the
    runtime needs a helper of its own for that, which it has to reap.

    Raises:
        RuntimeFailure: a stage failed; all is undone.
    """
    if message["type"] == "exec":
        target = fds.pop(1)
        protocol.close_all(fds)
        return start_exec(ExecOrder.from_dict(message["order"]), target)
    protocol.close_all(fds)
    order = SpawnOrder.from_dict(message["request"])
    if order.runtime:
        return start_by_other(order)
    if order.joins:
        return {"type": JOINS}, []
    return start_container(order, message.get("sent_at_ns"))


def start_container(order: SpawnOrder, sent_at_ns: int | None = None) -> Answer:
    """As `work`, in this process."""
    trace = None
    if sent_at_ns is not None:
        trace = Trace()
        trace.marks.append(("sent", sent_at_ns))
        trace.mark("helper")
    body = json.loads(order.launch)
    config = body["config"]
    set_size(config["process"], order.console_size)
    stdio, ours = make_stdio(terminal=order.terminal, watched=True, stdin=order.open_stdin)
    try:
        container = launch.create(
            launch.Launch(
                container_id=order.id,
                bundle=order.directory,
                config=config,
                stdio=stdio,
                rootfs_mounts=[mounts.Mount.from_dict(mount) for mount in body["rootfs_mounts"]],
                seccomp_program=read_program(order.seccomp_program),
                endpoints=[netlink.VethEndpoint.from_dict(each) for each in body["endpoints"]],
                reaper=order.reaper,
                trace=trace,
                wait_for_start=False,
                resolver=body.get("resolver") or False,
            )
        )
        container.start()
    except BaseException:
        protocol.close_all(ours)
        raise
    finally:
        protocol.close_all(set(stdio or ()))
    if container.console_fd is not None:
        ours = [container.console_fd]
    marks = trace.marks if trace is not None else ()
    answer = started(container.pid, container.warnings, marks)
    answer["sockets"] = len(container.sockets)
    return answer, [container.pidfd, *container.sockets, *ours]


def start_by_other(order: SpawnOrder) -> Answer:
    """As `start_container`, by another OCI runtime."""
    from sampan.runtime import foreign

    body = json.loads(order.launch)
    stdio, ours = make_stdio(terminal=order.terminal, watched=True, stdin=order.open_stdin)
    try:
        made = foreign.create(
            order.runtime,
            container_id=order.id,
            bundle=order.directory,
            rootfs_mounts=[mounts.Mount.from_dict(mount) for mount in body["rootfs_mounts"]],
            endpoints=[netlink.VethEndpoint.from_dict(each) for each in body["endpoints"]],
            stdio=stdio,
            console_path=f"{os.path.dirname(order.socket)}/{order.id[:12]}.tty",
            console_size=order.console_size,
            cgroup_path=order.cgroup_path,
            resolver=body.get("resolver") or False,
        )
    except BaseException:
        protocol.close_all(ours)
        raise
    finally:
        protocol.close_all(set(stdio or ()))
    if made.console_fd is not None:
        ours = [made.console_fd]
    answer = started(made.pid, [])
    answer["sockets"] = len(made.sockets)
    return answer, [made.pidfd, *made.sockets, *ours]


def start_exec(order: ExecOrder, target: int) -> Answer:
    """As `work`, a further process for the container whose first process `target` is."""
    request = order.what()
    set_size(request.process, request.console_size)
    stdin = order.stream is not None and bool(order.stream["stdin"])
    stdio, ours = make_stdio(terminal=request.terminal, watched=order.is_watched, stdin=stdin)
    cgroup = open_cgroup(order.cgroup_path) if order.cgroup_path else None
    made = runtime_process.execute(
        order.container_pid,
        request.process,
        config=order.config,
        stdio=stdio,
        container_id=order.container_id,
        seccomp_program=read_program(request.seccomp_program),
        cgroup=cgroup,
        target=target,
        adopts_orphans=request.adopts_orphans,
        leaf=None if cgroup is None else order.leaf_of(cgroup),
        ends_soon=True,
    )
    if made.console_fd is not None:
        ours = [made.console_fd]
    return started(made.pid, made.warnings), [made.pidfd, *ours]


def make_stdio(*, terminal: bool, watched: bool, stdin: bool) -> tuple[Ends | None, list[int]]:
    if terminal:
        return None, []
    return open_pipes(stdin) if watched else open_null()


def set_size(process: dict[str, Any], size: Sequence[int] | None) -> None:
    """The terminal's first size (rows, columns), in the words of the OCI runtime-spec."""
    if size:
        process["consoleSize"] = {"height": size[0], "width": size[1]}


def started(pid: int, warnings: list[str], marks: Sequence[tuple[str, int]] = ()) -> Message:
    return {"type": "started", "pid": pid, "warnings": warnings, "marks": marks}


def read_program(path: str | None) -> bytes | None:
    """The compiled seccomp program in the file `path`.

    Raises:
        OSError: the file cannot be read.
    """
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()
