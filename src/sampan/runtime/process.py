"""A further process in a running container: `exec`.

runtime            stage                         the process
  clone3 ---------> the label of the program,
                    enter the cgroup (version 1),
                    join all namespaces,
                    become the container's user,
                    find the program,
                    clone3(CLONE_PARENT) --------> seccomp filter, execve (`linux.vfork`)
  READY [console] <
  end of connection

Where that process may not share the stage's memory (`_can_share_memory`) it is a copy of it:

                    clone3(CLONE_PARENT) --------> become the container's user, find the program
  READY [console] <-----------------------------
  end of connection <---------------------------  seccomp filter, execve

The stage joins the PID namespace for its children only: nobody in the container ever sees it. What is
seen there is born with the container's root and working directory, and holds no directory of the
machine, for a container with CAP_SYS_PTRACE could walk through /proc/PID/root, cwd and fd of what it
sees. A process that ends after this work (`linux.process.clone_for_parent`) is the stage itself.
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.errors import RuntimeFailure
from sampan.linux import capabilities, namespaces, pidfd, process, seccomp, seqpacket, vfork
from sampan.linux import syscalls as sys
from sampan.runtime import console, hooks, identity, init, messages, notify, settle
from sampan.runtime.messages import Progress, os_failure
from sampan.runtime.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.linux.cgroups.base import Cgroup, Gate
    from sampan.linux.cgroups.leaf import Leaf
    from sampan.linux.seqpacket import Socket
    from sampan.runtime.settle import Settler

    # A cgroup, one in it to be born in, and whether descriptors of it may stay open.
    Place = tuple[Cgroup | None, Leaf | None, bool]


_CONFINEMENT = ("apparmorProfile", "rlimits", "selinuxLabel")
_ENOUGH_FILES = 256


class Exec:
    """A running process of a container, a child of the caller, who owns the descriptors."""

    __slots__ = ("console_fd", "pid", "pidfd", "warnings")

    def __init__(self, pid: int, pidfd: int, console_fd: int | None, warnings: list[str]) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.console_fd = console_fd
        self.warnings = warnings


class _Entry:
    """What the stage and the new process take along.

    `into` is the version 2 cgroup to clone into, `late` the namespaces that the process itself joins;
    `shares`: it may share our memory (`linux.vfork`). `cgroup_namespace` is the container's, where such
    a process joins it.
    """

    __slots__ = (
        "cgroup_namespace",
        "flags",
        "gate",
        "into",
        "late",
        "oom_score",
        "settler",
        "shares",
        "sock",
        "target",
    )

    def __init__(
        self,
        settler: Settler,
        sock: Socket,
        target: int,
        flags: int,
        gate: Gate | None,
        into: int | None,
        oom_score: int | None,
    ) -> None:
        self.settler = settler
        self.sock = sock
        self.target = target
        # A process may neither write to a cgroup of the machine's from another user namespace nor be
        # cloned into one that its cgroup namespace does not show: these two come behind the clone.
        self.late = flags & (sys.CLONE_NEWUSER | (0 if into is None else sys.CLONE_NEWCGROUP))
        self.flags = flags & ~self.late
        self.gate = gate
        self.into = into
        self.oom_score = oom_score
        self.shares = _can_share_memory(settler, flags)
        self.cgroup_namespace = -1


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
    adopts_orphans: bool = False,
    leaf: Leaf | None = None,
    ends_soon: bool = False,
) -> Exec:
    """Run `raw` (`process` of the OCI runtime-spec) in the container of init `container_pid`.

    `config` is the container's configuration: it tells which namespaces are its own, its seccomp
    filter and defaults. `stdio` become 0, 1, 2; None makes a terminal. Without `seccomp_program`
    the configuration's filter is compiled. `target` is a pidfd of init, for callers whose
    `container_pid` may be another process's by now; the caller keeps it. The caller has one thread.
    Returns when the program runs. With `adopts_orphans` all that the process starts stays its
    descendant as long as it lives (PR_SET_CHILD_SUBREAPER).
    It is born in the `leaf` of the cgroup, if there is to be one. `ends_soon`: what takes the kernel half
    a millisecond to close (a mount that ends, and with it an RCU grace period) is left to the caller's end.

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
        adopts_orphans=adopts_orphans,
    )
    undo = Undo()
    version = config.get("ociVersion") or ""
    state = hooks.state_document(
        container_id or "", "running", container_pid, "", config.get("annotations"), version
    )
    settler.agent = notify.connect_agent(linux.get("seccomp"), state, version)
    try:
        place = cgroup, leaf, ends_soon
        return _execute(container_pid, settler, config, place, warnings, undo, target)
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
    place: Place,
    warnings: list[str],
    undo: Undo,
    target: int | None,
) -> Exec:
    ours, theirs = seqpacket.pair()
    try:
        pid, fd = _begin(container_pid, settler, config, place, target, theirs)
        undo.add(os.close, fd)
        undo.add(pidfd.kill_and_reap, pid, fd)
        theirs.close()
        if settler.agent is not None:
            messages.send(ours, messages.JOINED, {"pid": pid})
        console_fd = _await_program(ours)
    finally:
        ours.close()
        theirs.close()
    return Exec(pid, fd, console_fd, warnings)


def _await_program(sock: Socket) -> int | None:
    """Wait until the program runs; its terminal's master, if it has one."""
    kind, _, fds = messages.receive(sock)
    try:
        if kind != messages.READY:
            raise RuntimeFailure("exec", "the process ended while it was set up")
        messages.receive(sock)
    except BaseException:
        for console_fd in fds:
            os.close(console_fd)
        raise
    return fds[0] if fds else None


def _begin(
    container_pid: int,
    settler: Settler,
    config: Mapping[str, Any],
    place: Place,
    target: int | None,
    sock: Socket,
) -> tuple[int, int]:
    """(pid, pidfd) of the process, which reports on `sock` from here."""
    closing = Undo()
    try:
        if target is None:
            target = _open_target(container_pid)
            closing.add(os.close, target)
        elif pidfd.ended(target):
            raise _ended()
        flags = _namespace_flags(container_pid, config)
        gate = into = None
        cgroup, leaf, ends_soon = place
        if cgroup is not None:
            gate = _open_gate(cgroup, target)
            closing.add(gate.close)
            into = _open_cgroup(cgroup, leaf, container_pid)
        if into is not None and not ends_soon:
            closing.add(os.close, into)
        score = _oom_score(settler.identity.raw, config)
        entry = _Entry(settler, sock, target, flags, gate, into, score)
        if entry.shares and entry.late:
            entry.cgroup_namespace = _open_cgroup_namespace(container_pid, target)
            closing.add(os.close, entry.cgroup_namespace)
        return _clone(entry)
    finally:
        closing.run()


def _open_gate(cgroup: Cgroup, target: int) -> Gate:
    try:
        return cgroup.gate(made=True)
    except RuntimeFailure as error:
        if pidfd.ended(target):
            raise _ended() from error
        raise


def _open_target(container_pid: int) -> int:
    try:
        return sys.pidfd_open(container_pid)
    except ProcessLookupError as error:
        raise _ended() from error


def _ended() -> RuntimeFailure:
    return RuntimeFailure("exec", "cannot exec in a stopped container", errno=errno.ESRCH)


def _namespace_flags(container_pid: int, config: Mapping[str, Any]) -> int:
    flags = 0
    for row in (config.get("linux") or {}).get("namespaces") or ():
        kind = row["type"]
        if kind == "user" and namespaces.same(container_pid, "self", "user"):
            continue  # setns(2) refuses the one that a process is in
        flags |= namespaces.FLAGS[kind]
    return flags


def _open_cgroup(cgroup: Cgroup, leaf: Leaf | None, container_pid: int) -> int | None:
    """The version 2 cgroup to clone into, in a mount of its own; None where there is no such tree.

    The new process inherits the descriptor. So it leads to the files of this one cgroup, for reading:
    the mount is attached nowhere, and `..` ends at its root.
    """
    fd = cgroup.clone_into()
    if fd is None:
        return None
    try:
        if _has_controllers_below(fd):
            # The container (systemd) has made a tree of it, whose inner nodes hold no process.
            own = _own_cgroup(container_pid)
            os.close(fd)
            fd = own
        elif leaf is not None:
            fd = leaf.make(fd)
        tree = sys.open_tree(fd, b"", sys.OPEN_TREE_CLONE)
    finally:
        os.close(fd)
    try:
        sys.mount_setattr(tree, set_attributes=sys.MOUNT_ATTR_RDONLY)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _open_cgroup_namespace(container_pid: int, target: int) -> int:
    """For a process without rights over the container's, which setns(2) with a pidfd asks for."""
    try:
        fd = namespaces.open_namespace(f"/proc/{container_pid}/ns/cgroup", "cgroup")
    except FileNotFoundError as error:
        raise _ended() from error
    if pidfd.ended(target):
        os.close(fd)
        raise _ended()
    return fd


def _has_controllers_below(cgroup_fd: int) -> bool:
    fd = os.open("cgroup.subtree_control", os.O_RDONLY | os.O_CLOEXEC, dir_fd=cgroup_fd)
    try:
        return bool(os.read(fd, 1024).strip())
    finally:
        os.close(fd)


def _own_cgroup(pid: int) -> int:
    """The version 2 cgroup that a process is in."""
    from sampan.linux.cgroups import layout

    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        path = layout.parse_own(file.read())[""]
    root = layout.layout().unified or "/sys/fs/cgroup"
    return os.open(f"{root}{path}", sys.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _clone(entry: _Entry) -> tuple[int, int]:
    """(pid, pidfd) of the new process, which is this process's child, or its parent's."""
    if process.clones_for_parent():
        return _join_and_clone(entry)
    ours, theirs = seqpacket.pair()
    try:
        pid, fd = process.clone(0)
        if pid == 0:
            _be_stage(entry, theirs)
        os.close(fd)
        theirs.close()
        try:
            _, body, _ = messages.receive(ours)
        finally:
            os.waitpid(pid, 0)
        if "pid" not in body:
            raise RuntimeFailure("exec", "the helper that joins the container ended early")
        return body["pid"], sys.pidfd_open(body["pid"])
    finally:
        ours.close()
        theirs.close()


def _be_stage(entry: _Entry, sock: Socket) -> None:
    """Clone the process as a sibling and tell its number; never returns."""
    try:
        process.clone_for_parent()
        pid, _ = _join_and_clone(entry, sock)
        messages.send(sock, messages.READY, {"pid": pid})
    except Exception as error:  # noqa: BLE001 - all of it is told to the runtime, which raises it
        messages.send_failure(sock, entry.settler.progress.failure(error))
    finally:
        os._exit(1)


def _join_and_clone(entry: _Entry, sock: Socket | None = None) -> tuple[int, int]:
    """Be the stage: go into the container, for good, and clone the process there.

    With `sock`, this process needs no descriptor but that one afterwards.
    """
    init.forget_imports()
    progress = entry.settler.progress
    try:
        _join(entry, sock)
        if entry.shares:
            return _start_sharing(entry)
        progress.at("clone")
        pid, fd = process.clone(0, cgroup_fd=-1 if entry.into is None else entry.into)
    except (OSError, RuntimeFailure) as error:
        if pidfd.ended(entry.target):
            raise _ended() from error
        raise progress.failure(error) from error
    if pid == 0:
        _run(entry)
    return pid, fd


def _can_share_memory(settler: Settler, flags: int) -> bool:
    """May the process be a child that shares our memory until the program runs (`linux.vfork`)?

    Not where processes of the container may trace it meanwhile, for it would be us whom they hold; nor
    where it is we who would be kept from our work by its limits or a seccomp agent; nor where it has
    to look itself up in the container's /proc, for we are not there.
    """
    who = settler.identity
    names = who.raw.get("cwd") or "/", who.args[0], identity.search_path(who.environment)
    return (
        vfork.available()
        and settler.agent is None
        and not flags & (sys.CLONE_NEWUSER | sys.CLONE_NEWTIME)
        and not who.sets.bounding & capabilities.CAP_SYS_PTRACE
        and all(_is_harmless(limit) for limit in who.raw.get("rlimits") or ())
        and not who.raw.get("scheduler")
        and not any("/proc" in name for name in names)
    )


def _is_harmless(limit: Mapping[str, Any]) -> bool:
    kind, soft = limit["type"], limit["soft"]
    return kind == "RLIMIT_CORE" or (kind == "RLIMIT_NOFILE" and not 0 <= soft < _ENOUGH_FILES)


def _start_sharing(entry: _Entry) -> tuple[int, int]:
    """Be what the program shall be, but in our own PID namespace; then start it."""
    settler = entry.settler
    master = -1
    if settler.stdio is None:
        settler.progress.at("console")
        master = _open_terminal(entry, controlling=False)
    settler.settle(None, admin=entry.cgroup_namespace >= 0)
    sys.prctl(sys.PR_SET_DUMPABLE, 0)
    entering = []
    if entry.cgroup_namespace >= 0:
        entering.append(("setns", sys.SYS_setns, entry.cgroup_namespace, entry.late))
    into = -1 if entry.into is None else entry.into
    pid, fd, failure = settler.start_program(entering, cgroup_fd=into)
    if failure is None:
        messages.send(entry.sock, messages.READY, None, *((master,) if master >= 0 else ()))
    else:
        messages.send_failure(entry.sock, failure)
    return pid, fd


def _join(entry: _Entry, sock: Socket | None) -> None:
    """All that the new process inherits; what needs the machine's files comes first."""
    progress = entry.settler.progress
    if entry.oom_score is not None:
        progress.at("oom_score_adj")
        namespaces.write_file("/proc/self/oom_score_adj", str(entry.oom_score).encode())
    proc_fd = os.open("/proc", sys.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        identity.set_labels(entry.settler.identity, proc_fd, progress)
    finally:
        os.close(proc_fd)
    if entry.gate is not None:
        progress.at("cgroup")
        entry.gate.enter()
        entry.gate.close()
    progress.at("descriptors")
    if sock is None:
        _close_directories(entry)
    else:
        into = () if entry.into is None else (entry.into,)
        keep = (sock.fileno(), entry.sock.fileno(), entry.target, *into)
        if entry.cgroup_namespace >= 0:
            keep += (entry.cgroup_namespace,)
        entry.settler.close_all_but(keep)
    progress.at("setns")
    sys.prctl(sys.PR_SET_DUMPABLE, 0)
    if entry.flags:
        sys.setns(entry.target, entry.flags)
    os.chdir("/")


def _close_directories(entry: _Entry) -> None:
    """None of them may be the process's, not even for the moment until it closes them."""
    stays = {entry.into, *(entry.settler.stdio or ())}
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd < 3 + entry.settler.preserve_fds or fd in stays:
            continue
        try:
            is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        except OSError:
            continue  # it was the one that the list was read from
        if is_directory:
            os.close(fd)


def _run(entry: _Entry) -> None:
    """Be the new process; never returns."""
    settler = entry.settler
    try:
        settler.close_all_but((entry.sock.fileno(), entry.target))
        os.setsid()
        master = _enter(entry)
        messages.send(entry.sock, messages.READY, None, *((master,) if master >= 0 else ()))
        if master >= 0:
            os.close(master)
        settler.become_program(entry.sock)
    except Exception as error:  # noqa: BLE001 - all of it is told to the runtime, which raises it
        messages.send_failure(entry.sock, settler.progress.failure(error))
    finally:
        os._exit(1)


def _enter(entry: _Entry) -> int:
    settler = entry.settler
    settler.progress.at("setns")
    if entry.late:
        sys.setns(entry.target, entry.late)
    if entry.late & sys.CLONE_NEWUSER:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        sys.prctl(sys.PR_SET_DUMPABLE, 0)
    master = -1
    if settler.stdio is None:
        settler.progress.at("console")
        master = _open_terminal(entry)
    if settler.agent is not None:
        _, body, _ = messages.receive(entry.sock)
        settler.pid = body.get("pid", 0)
    console_fds = (master,) if master >= 0 else ()
    settler.settle((entry.sock.fileno(), *console_fds))
    return master


def _open_terminal(entry: _Entry, *, controlling: bool = True) -> int:
    root = os.open("/", sys.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    master, slave = console.open_console(root, entry.settler.identity.raw, bind=False)
    console.use_console(slave, controlling=controlling)
    os.close(slave)
    os.close(root)
    return master


def _oom_score(raw: Mapping[str, Any], config: Mapping[str, Any]) -> int | None:
    score: int | None = raw.get("oomScoreAdj")
    if score is None:
        score = (config.get("process") or {}).get("oomScoreAdj")
    return score
