"""A further process in a running container: `exec`.

runtime                                        the process
  (PID namespace for children set) clone3 ---->  enter the cgroup, join all namespaces at once,
                                                 become the container's user, find the program
  READY [console] <----------------------------
  end of connection <--------------------------  the program runs
"""

from __future__ import annotations

import errno
import os

from sampan.errors import RuntimeFailure
from sampan.linux import namespaces, pidfd, process, seccomp, seqpacket
from sampan.linux import syscalls as sys
from sampan.runtime import console, hooks, identity, init, messages, notify, settle
from sampan.runtime.messages import Progress, os_failure
from sampan.runtime.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.linux.cgroups.base import Cgroup, Gate
    from sampan.linux.seqpacket import Socket
    from sampan.runtime.settle import Settler


_CONFINEMENT = ("apparmorProfile", "rlimits", "selinuxLabel")


class Exec:
    """A running process of a container, a child of the caller, who owns the descriptors."""

    __slots__ = ("console_fd", "pid", "pidfd", "warnings")

    def __init__(self, pid: int, pidfd: int, console_fd: int | None, warnings: list[str]) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.console_fd = console_fd
        self.warnings = warnings


class _Entry:
    """What the new process takes along."""

    __slots__ = ("flags", "gate", "settler", "sock", "target", "terminal", "user")

    def __init__(
        self,
        settler: Settler,
        sock: Socket,
        target: int,
        flags: int,
        gate: Gate | None,
        *,
        terminal: bool,
    ) -> None:
        self.settler = settler
        self.sock = sock
        self.target = target
        self.flags = flags
        self.gate = gate
        self.terminal = terminal


def execute(
    container_pid: int,
    raw: dict[str, Any],
    *,
    config: Mapping[str, Any],
    stdio: tuple[int, int, int] | None,
    container_id: str | None = None,
    seccomp_program: bytes | None = None,
    seccomp_cache: str | None = None,
    cgroup: Cgroup | None = None,
    preserve_fds: int = 0,
    die_with_parent: bool = True,
    target: int | None = None,
) -> Exec:
    """Run `raw` (`process` of the OCI runtime-spec) in the container of init `container_pid`.

    `config` is the container's configuration: it tells which namespaces are its own, its seccomp
    filter and defaults. `stdio` become 0, 1, 2; None makes a terminal. Without `seccomp_program`
    the configuration's filter is compiled. `target` is a pidfd of init, for callers whose
    `container_pid` may be another process's by now; the caller keeps it. The caller has one thread.
    Returns when the program runs.

    Raises:
        RuntimeFailure: the container's init has ended (stage `exec`, ESRCH), or a step failed; the
            process is gone then.
    """
    warnings: list[str] = []
    who = identity.prepare(_with_confinement(raw, config), warnings)
    linux = config.get("linux") or {}
    if seccomp_program is None and linux.get("seccomp"):
        seccomp_program = _compile(linux["seccomp"], seccomp_cache)
    settler = settle.Settler(
        who,
        Progress(),
        stdio=stdio,
        linux=linux,
        keyring=None if container_id is None else settle.keyring_name(container_id),
        seccomp_program=seccomp_program,
        preserve_fds=preserve_fds,
        die_with_parent=die_with_parent,
    )
    undo = Undo()
    version = config.get("ociVersion") or ""
    state = hooks.state_document(
        container_id or "", "running", container_pid, "", config.get("annotations"), version
    )
    settler.agent = notify.connect_agent(linux.get("seccomp"), state, version)
    try:
        return _execute(container_pid, settler, config, cgroup, warnings, undo, target)
    except OSError as error:
        failure = os_failure("exec", error)
        undo.run(failure)
        raise failure from error
    except BaseException as error:
        undo.run(error)
        raise
    finally:
        if settler.agent is not None:
            settler.agent.sock.close()


def _with_confinement(raw: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """`raw` under the container's limits and labels where it names none of its own, as runc has it."""
    own = config.get("process") or {}
    missing = {name: own[name] for name in _CONFINEMENT if own.get(name) and not raw.get(name)}
    return {**raw, **missing}


def _compile(profile: Mapping[str, Any], cache: str | None) -> bytes:
    if cache:
        return seccomp.cached_program(profile, cache)[0]
    return seccomp.compile_profile(profile)


def _execute(
    container_pid: int,
    settler: Settler,
    config: Mapping[str, Any],
    cgroup: Cgroup | None,
    warnings: list[str],
    undo: Undo,
    target: int | None,
) -> Exec:
    ours, theirs = seqpacket.pair()
    closing = Undo()
    closing.add(theirs.close)
    try:
        if target is None:
            target = _open_target(container_pid)
            closing.add(os.close, target)
        elif pidfd.ended(target):
            raise _ended(ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)))
        flags = _namespace_flags(container_pid, config)
        gate = None
        if cgroup is not None:
            gate = cgroup.gate()
            closing.add(gate.close)
        entry = _Entry(settler, theirs, target, flags, gate, terminal=settler.stdio is None)
        pid, fd = _clone(entry, ours, cgroup, container_pid)
    except BaseException:
        ours.close()
        raise
    finally:
        closing.run()
    undo.add(os.close, fd)
    undo.add(pidfd.kill_and_reap, pid, fd)
    try:
        _set_oom_score(settler.identity.raw, config, pid)
        kind, _, fds = messages.receive(ours)
        for console_fd in fds:
            undo.add(os.close, console_fd)
        if kind != messages.READY:
            raise RuntimeFailure("exec", "the process ended while it was set up")
        messages.receive(ours)
    finally:
        ours.close()
    return Exec(pid, fd, fds[0] if fds else None, warnings)


def _open_target(container_pid: int) -> int:
    try:
        return sys.pidfd_open(container_pid)
    except ProcessLookupError as error:
        raise _ended(error) from error


def _ended(error: OSError) -> RuntimeFailure:
    return RuntimeFailure("exec", "cannot exec in a stopped container", errno=error.errno)


def _namespace_flags(container_pid: int, config: Mapping[str, Any]) -> int:
    flags = 0
    for row in (config.get("linux") or {}).get("namespaces") or ():
        kind = row["type"]
        if kind == "user" and namespaces.same(container_pid, "self", "user"):
            continue  # setns(2) refuses the one that a process is in
        flags |= namespaces.FLAGS[kind]
    return flags


def _clone(
    entry: _Entry, ours: Socket, cgroup: Cgroup | None, container_pid: int
) -> tuple[int, int]:
    """Clone into the container's PID namespace, which this process's children alone are in then."""
    into = cgroup.clone_into() if cgroup is not None else None
    own = -1
    try:
        if entry.flags & sys.CLONE_NEWPID:
            own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            sys.setns(entry.target, sys.CLONE_NEWPID)
        pid, fd = _clone_into(into, container_pid)
        if pid == 0:
            ours.close()
            _run(entry)
        return pid, fd
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.ENOMEM) and pidfd.ended(entry.target):
            raise _ended(error) from error
        raise
    finally:
        if own >= 0:
            sys.setns(own, sys.CLONE_NEWPID)
            os.close(own)
        if into is not None:
            os.close(into)


def _clone_into(into: int | None, container_pid: int) -> tuple[int, int]:
    if into is None:
        return process.clone(0)
    try:
        return process.clone(0, cgroup_fd=into)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
    # the container (systemd) has made a tree of its cgroup, whose inner nodes hold no process
    fd = _own_cgroup(container_pid)
    try:
        return process.clone(0, cgroup_fd=fd)
    finally:
        os.close(fd)


def _own_cgroup(pid: int) -> int:
    """The version 2 cgroup that a process is in."""
    from sampan.linux.cgroups import layout

    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        path = layout.parse_own(file.read())[""]
    root = layout.layout().unified or "/sys/fs/cgroup"
    return os.open(f"{root}{path}", sys.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _run(entry: _Entry) -> None:
    """Be the new process; never returns."""
    init.forget_imports()
    progress = entry.settler.progress
    try:
        sys.prctl(sys.PR_SET_DUMPABLE, 0)
        os.setsid()
        master = _enter(entry)
        messages.send(entry.sock, messages.READY, None, *((master,) if master >= 0 else ()))
        if master >= 0:
            os.close(master)
        entry.settler.become_program(entry.sock)
    except Exception as error:  # noqa: BLE001 - all of it is told to the runtime, which raises it
        messages.send_failure(entry.sock, progress.failure(error))
    finally:
        os._exit(1)


def _enter(entry: _Entry) -> int:
    progress = entry.settler.progress
    proc_fd = os.open("/proc", sys.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    progress.at("cgroup")
    if entry.gate is not None:
        entry.gate.enter()
    progress.at("setns")
    flags = entry.flags & ~sys.CLONE_NEWPID
    if flags:
        sys.setns(entry.target, flags)
    if flags & sys.CLONE_NEWUSER:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        sys.prctl(sys.PR_SET_DUMPABLE, 0)
    os.chdir("/")
    master = -1
    if entry.terminal:
        progress.at("console")
        master = _open_terminal(entry)
    console_fds = (master,) if master >= 0 else ()
    entry.settler.settle(proc_fd, (entry.sock.fileno(), *console_fds))
    return master


def _open_terminal(entry: _Entry) -> int:
    root = os.open("/", sys.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    master, slave = console.open_console(root, entry.settler.identity.raw, bind=False)
    console.use_console(slave)
    os.close(slave)
    os.close(root)
    return master


def _set_oom_score(raw: Mapping[str, Any], config: Mapping[str, Any], pid: int) -> None:
    score = raw.get("oomScoreAdj")
    if score is None:
        score = (config.get("process") or {}).get("oomScoreAdj")
    if score is None:
        return
    path = f"/proc/{pid}/oom_score_adj"
    try:
        namespaces.write_file(path, str(score).encode())
    except ProcessLookupError:
        return  # it has failed; what it says comes next
    except OSError as error:
        raise os_failure("oom_score_adj", error, path) from error
