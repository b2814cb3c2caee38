"""What a cgroup can do, whatever the version: the interface of v1 and v2."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.linux.cgroups.stats import CgroupStats


class Gate:
    """How a process gets into the v1 hierarchies by itself; made before the process is cloned.

    It holds directory fds, so `enter` works behind a `pivot_root` too. On v2 there is nothing to
    do: the process was cloned into its cgroup.
    """

    __slots__ = ("_entries",)

    def __init__(self, entries: list[tuple[int, str | None]]) -> None:
        """fds with the path from there to a `tasks` file; None if the fd is that file."""
        self._entries = entries

    def enter(self) -> None:
        """Move the calling process, which must have one thread, into the cgroup.

        Raises:
            RuntimeFailure: the cgroup is not there (yet), or the kernel refuses.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Give the fds back. Idempotent."""
        raise NotImplementedError


class Cgroup:
    """One container's cgroup, in every hierarchy there is. `path` is below the mount points.

    One use, the fast way: no process's ID is written to `cgroup.procs`, for that waits for an RCU
    grace period (8 to 19 ms where it was measured).

        cgroup = open_cgroup("/sampan/<id>")
        gate, fd = cgroup.gate(), cgroup.clone_into()
        clone3(…, CLONE_INTO_CGROUP if fd is not None)     # child: waits for a byte, gate.enter()
        cgroup.create()
        cgroup.apply(config["linux"]["resources"])
        …                                                   # the byte, the container's life
        cgroup.kill()
        cgroup.delete()

    Failures are `RuntimeFailure` of stage `cgroup`.
    """

    path: str

    def create(self) -> None:
        """Make the directories, missing parents included. One that exists is taken as it is."""
        raise NotImplementedError

    def apply(self, resources: Mapping[str, Any]) -> None:
        """Set OCI `linux.resources`; what is not named stays as it is (so `update` is the same).

        Raises:
            RuntimeFailure: a controller is missing, or the kernel refuses a value.
        """
        raise NotImplementedError

    def adopt(self, pid: int) -> None:
        """Have who manages the cgroups here make this one around `pid`, before `create`.

        That is systemd, for a path of its form; otherwise there is nothing to do.

        Raises:
            RuntimeFailure: systemd refuses.
        """

    def add(self, pid: int) -> None:
        """Move process `pid` with its threads here. Slow; see the class."""
        raise NotImplementedError

    def clone_into(self) -> int | None:
        """An fd for clone3's `cgroup`, owned by the caller; None where there is no v2 tree.

        Makes the v2 directory if need be.
        """
        raise NotImplementedError

    def gate(self, *, made: bool = False) -> Gate:
        """What a child takes along to enter the v1 hierarchies; missing parents are made.

        With `made`, `create` has been called, and the files are opened now, with this process's
        rights: for a child in another user namespace, which could not open them.
        """
        raise NotImplementedError

    def paths(self) -> dict[str, str]:
        """controller → directory, as in runc's state; `""` → the v2 directory."""
        raise NotImplementedError

    def exists(self) -> bool:
        """Whether the directory is there."""
        raise NotImplementedError

    def delegate(self, uid: int) -> None:
        """Let user `uid` of the machine manage the cgroups below this one; nothing on v1.

        Source: runtime-spec config-linux.md "Cgroup ownership".
        """

    def freeze(self) -> None:
        """Stop all processes; back when they are stopped."""
        raise NotImplementedError

    def thaw(self) -> None:
        """Let them go on."""
        raise NotImplementedError

    def frozen(self) -> bool:
        """Whether they are stopped. False if the cgroup is gone."""
        raise NotImplementedError

    def processes(self, *, recursive: bool = True) -> list[int]:
        """The IDs of its processes as this process sees them; empty if the cgroup is gone."""
        raise NotImplementedError

    def kill(self, signal: int = 9) -> None:
        """Send `signal` to every process, those forked meanwhile included. Does not wait."""
        raise NotImplementedError

    def delete(self) -> None:
        """Remove the directories, those below included, waiting up to 10 s for dying processes.

        Idempotent.

        Raises:
            RuntimeFailure: processes live on in it.
        """
        raise NotImplementedError

    def stats(self) -> CgroupStats:
        """What it uses and has used."""
        raise NotImplementedError

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory; 0 if unknown."""
        raise NotImplementedError
