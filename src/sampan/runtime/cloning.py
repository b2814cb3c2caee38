"""How init is born: by one clone3(2), or from a helper that has joined existing namespaces."""

from __future__ import annotations

import errno
import os

from sampan.errors import RuntimeFailure
from sampan.linux import namespaces, process, seqpacket
from sampan.linux import syscalls as sys
from sampan.runtime import init, messages
from sampan.runtime.messages import file_name, os_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.linux.cgroups.base import Cgroup
    from sampan.linux.seqpacket import Socket
    from sampan.runtime.plan import Plan


def clone_init(
    plan: Plan, birth: init.Birth, ours: Socket, cgroup: Cgroup | None
) -> tuple[int, int]:
    """(pid, pidfd) of init, which is this process's child."""
    cgroup_fd = cgroup.clone_into() if cgroup is not None else None
    try:
        if plan.joined or plan.linux.get("timeOffsets"):
            return _clone_staged(plan, birth, ours, cgroup_fd)
        try:
            pid, fd = process.clone(plan.flags, cgroup_fd=-1 if cgroup_fd is None else cgroup_fd)
        except OSError as error:
            raise _clone_failure(error) from error
        if pid == 0:
            _be_init(birth, ours)
        return pid, fd
    finally:
        if cgroup_fd is not None:
            os.close(cgroup_fd)


def _be_init(birth: init.Birth, ours: Socket) -> None:
    ours.close()
    init.run(birth)


def _clone_failure(error: OSError) -> RuntimeFailure:
    hint = None
    if error.errno in (errno.ENOSPC, errno.EUSERS):
        hint = "the machine's limit of namespaces is reached: see /proc/sys/user"
    failure = os_failure("clone", error)
    failure.hint = hint
    return failure


def _clone_staged(
    plan: Plan, birth: init.Birth, ours: Socket, cgroup_fd: int | None
) -> tuple[int, int]:
    """Clone init from a helper that has joined existing namespaces; init is still our child.

    Only a child can be put into a PID namespace that exists, and no process comes back from a user
    or mount namespace: so a helper goes in and clones init with CLONE_PARENT.
    """
    fds = _open_joined(plan)
    parent, stage_end = seqpacket.pair()
    try:
        pid, fd = process.clone(0)
        if pid == 0:
            ours.close()
            parent.close()
            _be_stage(plan, birth, stage_end, fds, cgroup_fd)
        stage_end.close()
        try:
            _, body, _ = messages.receive(parent)
        finally:
            os.waitpid(pid, 0)
            os.close(fd)
        if "pid" not in body:
            raise RuntimeFailure("clone", "the helper that joins namespaces ended early")
        return body["pid"], sys.pidfd_open(body["pid"])
    finally:
        parent.close()
        stage_end.close()
        for joined in fds.values():
            os.close(joined)


def _open_joined(plan: Plan) -> dict[str, int]:
    fds: dict[str, int] = {}
    try:
        for kind, path in plan.joined.items():
            fds[kind] = namespaces.open_namespace(path, kind)
    except OSError as error:
        for fd in fds.values():
            os.close(fd)
        raise os_failure("setns", error, file_name(error)) from error
    return fds


def _be_stage(
    plan: Plan,
    birth: init.Birth,
    sock: Socket,
    fds: dict[str, int],
    cgroup_fd: int | None,
) -> None:
    """The helper's life; never returns."""
    stage = messages.Progress()
    try:
        sys.prctl(sys.PR_SET_DUMPABLE, 0)
        stage.at("setns")
        if "pid" in fds and not plan.has("user"):
            birth.pid_namespace = fds.pop("pid")  # comes later, see there
        init.join_stage(plan, fds)
        stage.at("clone")
        flags = plan.flags | sys.CLONE_PARENT
        if plan.linux.get("timeOffsets"):
            flags &= ~sys.CLONE_NEWTIME
        into = -1 if cgroup_fd is None else cgroup_fd
        pid, _ = process.clone(flags, exit_signal=0, cgroup_fd=into)
        if pid == 0:
            sock.close()
            init.run(birth)
        messages.send(sock, messages.READY, {"pid": pid})
    except (OSError, RuntimeFailure, ValueError) as error:
        messages.send_failure(sock, stage.failure(error))
    finally:
        os._exit(0)
