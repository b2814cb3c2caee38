"""A further process for a container: what is asked for, and what it has to know of the container."""

from __future__ import annotations

from sampan.linux.cgroups.leaf import Leaf
from sampan.shim.protocol import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sampan.linux.cgroups.base import Cgroup
    from sampan.shim.protocol import Message


class ExecRequest(Value):
    """A further process for the container: `process` as in the OCI configuration's `process`.

    `seccomp_program` is the path of compiled BPF, as for the container itself. Standard input is open
    when the stream has one. After `timeout_s`, if that is not 0, it is killed with all its descendants;
    with `adopts_orphans` no process that it starts gets away from that.
    """

    __slots__ = (
        "adopts_orphans",
        "console_size",
        "id",
        "process",
        "seccomp_program",
        "terminal",
        "timeout_s",
    )

    def __init__(
        self,
        *,
        id: str,
        process: dict[str, Any],
        terminal: bool = False,
        seccomp_program: str | None = None,
        console_size: Sequence[int] | None = None,
        timeout_s: float = 0.0,
        adopts_orphans: bool = False,
    ) -> None:
        self.id = id
        self.process = process
        self.terminal = terminal
        self.seccomp_program = seccomp_program
        self.console_size = console_size
        self.timeout_s = timeout_s
        self.adopts_orphans = adopts_orphans


class ExecOrder(Value):
    """An ExecRequest on its way: with its container, and the options of its client's stream, if any.

    The pidfd of `container_pid` travels beside it, for a number alone may be another process by now.
    """

    __slots__ = ("cgroup_path", "config", "container_id", "container_pid", "request", "stream")

    def __init__(
        self,
        *,
        request: Message,
        container_id: str,
        container_pid: int,
        cgroup_path: str = "",
        config: Mapping[str, Any] | None = None,
        stream: Message | None = None,
    ) -> None:
        self.request = request
        self.container_id = container_id
        self.container_pid = container_pid
        self.cgroup_path = cgroup_path
        self.config = config or {}
        self.stream = stream

    @property
    def is_watched(self) -> bool:
        """Whether anybody may see its output; else its input and output are /dev/null."""
        return self.stream is not None or bool(self.request["terminal"])

    def leaf_of(self, cgroup: Cgroup) -> Leaf | None:
        """Where all that comes of the process is found again; None: nowhere.

        Below a container's cgroup on version 2 there would be no limits to read, which programs do (Java),
        so there only those have one that asked to be ended whole.
        """
        hybrid = len(cgroup.paths()) > 1
        if not (hybrid or self.request["adopts_orphans"]):
            return None
        return Leaf(cgroup, leaf_name(self.request["id"]))

    def what(self) -> ExecRequest:
        """The request itself."""
        return ExecRequest.from_dict(self.request)


def leaf_name(exec_id: str) -> str:
    """The cgroup below its container's that an exec may have to itself."""
    return f"exec-{exec_id[:16]}"
