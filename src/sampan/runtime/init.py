"""The container's first process from its birth to its exec, inside the new namespaces.

It runs in a fork of the runtime, says what happens over `messages`, and ends by exec or _exit.
What needs the machine's side (cgroup, veth) is waited for only where it is needed: file systems
are mounted meanwhile.

In a PID namespace that exists already are others, and one with CAP_SYS_PTRACE could walk through
/proc/PID/root and fd while the machine is still to be seen there. So there init is cloned a second
time, when its root is the container's, and the first one ends. A process in a user namespace cannot
join that way; it is born in the PID namespace.
"""

from __future__ import annotations

import gc
import os
import sys as python
from time import monotonic_ns

from sampan.linux import namespaces, netlink, process, rooted, seqpacket
from sampan.linux import syscalls as sys
from sampan.runtime import console, hooks, identity, messages, rootfs, settle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.linux.cgroups.base import Gate
    from sampan.linux.seqpacket import Socket
    from sampan.runtime.cgroup_mounts import CgroupView
    from sampan.runtime.identity import Identity
    from sampan.runtime.launch import Launch
    from sampan.runtime.notify import Agent
    from sampan.runtime.plan import Plan
    from sampan.runtime.rootfs import Rootfs, Trees
    from sampan.runtime.settle import Settler

_FAILED_EXIT_CODE = 1


class Birth:
    """All that init takes with it over the clone."""

    __slots__ = (
        "agent",
        "gate",
        "identity",
        "joined",
        "launch",
        "pid",
        "pid_namespace",
        "plan",
        "progress",
        "reaper_area",
        "seccomp_program",
        "settler",
        "sock",
        "trees",
        "view",
    )

    def __init__(
        self,
        launch: Launch,
        plan: Plan,
        identity: Identity,
        sock: Socket,
        trees: Trees,
        *,
        gate: Gate | None,
        view: CgroupView | None,
        seccomp_program: bytes | None,
        agent: Agent | None = None,
    ) -> None:
        self.launch = launch
        self.plan = plan
        self.identity = identity
        self.sock = sock
        self.trees = trees
        self.gate = gate
        self.view = view
        self.seccomp_program = seccomp_program
        self.agent = agent
        self.progress = messages.Progress()
        self.settler: Settler | None = None
        self.reaper_area = process.argument_area() if launch.reaper else None
        self.joined = False
        self.pid = 0
        self.pid_namespace = -1

    def mark(self, stage: str) -> None:
        self.progress.marks.append((stage, monotonic_ns()))


def run(birth: Birth) -> None:
    """Be the container's init; never returns."""
    forget_imports()
    try:
        _become_container(birth)
        _become_program(birth)
    except Exception as error:  # noqa: BLE001 - all of it is told to the runtime, which raises it
        messages.send_failure(birth.sock, birth.progress.failure(error))
    finally:
        os._exit(_FAILED_EXIT_CODE)


def forget_imports() -> None:
    """Import nothing any more, and collect no garbage.

    In the container the module search path leads into the image. And a collection would copy most
    of the memory that is shared with the parent, and run finalizers that are the parent's affair.
    """
    gc.disable()
    python.meta_path.clear()
    python.path.clear()


def _become_container(birth: Birth) -> None:
    birth.mark("clone")
    plan, progress = birth.plan, birth.progress
    sys.prctl(sys.PR_SET_DUMPABLE, 0)
    os.umask(0)
    os.setsid()
    if plan.has("user"):
        _become_mapped_root(birth)
    proc_fd = os.open("/proc", sys.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = rootfs.Rootfs(plan, birth.trees, progress)
    tree.open(birth.launch.rootfs_mounts)
    birth.mark("rootfs")
    _build(birth, tree)
    master = -1 if birth.pid_namespace >= 0 else _open_console(birth, tree)
    birth.mark("mounts")
    null = rootfs.open_null()
    if any(kind in plan.hooks for kind in ("prestart", "createRuntime", "createContainer")):
        _join(birth, tree.fd)
        _run_creation_hooks(birth)
    if birth.view is not None and not birth.view.private:
        _join(birth, tree.fd)  # what is bound are paths of the machine, gone behind the pivot
    tree.pivot(no_pivot=birth.launch.no_pivot)
    birth.mark("pivot_root")
    if birth.pid_namespace < 0:
        rootfs.restrict(tree.fd, plan, null, progress)
        birth.mark("restrict")
    _name(birth)
    _join(birth, tree.fd)
    rootfs.write_sysctls(proc_fd, plan.sysctls, progress)
    identity.set_labels(birth.identity, proc_fd, progress)
    os.close(proc_fd)
    _make_settler(birth)
    if birth.pid_namespace >= 0:
        _enter_pid_namespace(birth, tree, null)
        master = _open_console(birth, tree)  # a terminal is hung up when its session's leader ends
        for index in _of_pid_namespace(birth):
            tree.mount(index, plan.mounts[index])
        rootfs.restrict(tree.fd, plan, null, progress)
        birth.mark("restrict")
    _enter_working_directory(birth, tree.fd)
    tree.seal()
    _settle(birth, master)


def _become_mapped_root(birth: Birth) -> None:
    """Wait for the ID mappings of the new user namespace, then be its root."""
    birth.progress.at("user namespace")
    if "user" in birth.plan.new:
        _expect(birth, messages.MAPPED)
    try:
        os.setgroups([])
    except PermissionError:
        pass  # the namespace was made with setgroups denied; the groups stay as they are
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    sys.prctl(sys.PR_SET_DUMPABLE, 0)


def _build(birth: Birth, tree: Rootfs) -> None:
    """Mounts and devices."""
    later = _of_pid_namespace(birth)
    for index, step in enumerate(birth.plan.mounts):
        if index in later:
            tree.open_source(index, step)
        elif step.mount.type in ("cgroup", "cgroup2"):
            if _has_mounts_below(birth.plan, index):
                _join(birth, tree.fd)
        else:
            tree.mount(index, step)
    tree.make_devices()


def _open_console(birth: Birth, tree: Rootfs) -> int:
    """The console's master, or -1."""
    if birth.launch.stdio is not None:
        return -1
    birth.progress.at("console", "/dev/console")
    bind = birth.plan.device_setup
    master, slave = console.open_console(tree.fd, birth.plan.process, bind=bind)
    console.use_console(slave)
    os.close(slave)
    return master


def _of_pid_namespace(birth: Birth) -> list[int]:
    """Which mounts must wait for the PID namespace: every procfs and what lies on it."""
    if birth.pid_namespace < 0:
        return []
    found: list[int] = []
    tops: list[str] = []
    for index, step in enumerate(birth.plan.mounts):
        target = step.mount.target.rstrip("/") + "/"
        if step.mount.type == "proc" and not step.options.bind:
            tops.append(target)
        if target.startswith(tuple(tops)):
            found.append(index)
    return found


def _enter_pid_namespace(birth: Birth, tree: Rootfs, null: int) -> None:
    """Go on as a process that is born there; returns in that one only."""
    settler = birth.settler
    assert settler is not None
    birth.progress.at("descriptors")
    listener = (
        () if birth.launch.start_listener is None else (birth.launch.start_listener.fileno(),)
    )
    sources = birth.trees.sources.values()
    keep = (birth.sock.fileno(), birth.pid_namespace, tree.fd, null, *listener, *sources)
    settler.close_all_but(keep)
    birth.progress.at("setns")
    sys.setns(birth.pid_namespace, sys.CLONE_NEWPID)
    os.close(birth.pid_namespace)
    birth.progress.at("clone")
    pid, _ = process.clone(sys.CLONE_PARENT, exit_signal=0)
    if pid:
        messages.send(birth.sock, messages.MOVED, {"pid": pid})
        os._exit(0)
    os.setsid()
    birth.pid = _expect(birth, messages.JOINED).get("pid", 0)


def _has_mounts_below(plan: Plan, index: int) -> bool:
    top = plan.mounts[index].mount.target.rstrip("/") + "/"
    return any(step.mount.target.startswith(top) for step in plan.mounts[index + 1 :])


def _join(birth: Birth, root_fd: int) -> None:
    """Once: wait for cgroup and network of the machine's side, enter them, show the cgroup."""
    if birth.joined:
        return
    birth.joined = True
    progress, plan = birth.progress, birth.plan
    progress.at("cgroup")
    birth.mark("ready to join")
    birth.pid = _expect(birth, messages.JOINED).get("pid", 0)
    birth.mark("joined")
    if birth.gate is not None:
        birth.gate.enter()
    if "cgroup" in plan.new:
        progress.at("cgroup namespace")
        sys.unshare(sys.CLONE_NEWCGROUP)
    if birth.view is not None:
        for step in plan.mounts:
            if step.mount.type in ("cgroup", "cgroup2"):
                birth.view.mount(root_fd, step, progress)
    birth.mark("cgroup")
    if "network" in plan.new or birth.launch.endpoints:
        progress.at("network")
        netlink.configure_inside(birth.launch.endpoints)
        if birth.launch.resolver:
            _open_dns_sockets(birth)
        birth.mark("network")


def _open_dns_sockets(birth: Birth) -> None:
    """What the container asks is queued in them from its first moment on, whoever answers later."""
    # Imported already by `launch`: here the import path is given up.
    from sampan.linux import dns_sockets

    birth.progress.at("name server")
    sockets = dns_sockets.open_sockets()
    messages.send(birth.sock, messages.SOCKETS, None, *(each.fileno() for each in sockets))
    for each in sockets:
        each.close()


def _run_creation_hooks(birth: Birth) -> None:
    table = birth.plan.hooks
    if "prestart" in table or "createRuntime" in table:
        birth.progress.at("hook")
        messages.send(birth.sock, messages.HOOKS)
        _expect(birth, messages.HOOKED)
    if "createContainer" in table:
        hooks.run_hooks("createContainer", table["createContainer"], _state(birth, "creating"))


def _state(birth: Birth, status: str) -> dict[str, Any]:
    config = birth.plan.config
    return hooks.state_document(
        birth.launch.container_id,
        status,
        birth.pid,
        birth.launch.bundle,
        config.get("annotations"),
        config.get("ociVersion") or "",
    )


def _name(birth: Birth) -> None:
    config = birth.plan.config
    if hostname := config.get("hostname"):
        birth.progress.at("sethostname")
        sys.sethostname(os.fsencode(hostname))
    if domainname := config.get("domainname"):
        birth.progress.at("setdomainname")
        sys.setdomainname(os.fsencode(domainname))


def _enter_working_directory(birth: Birth, root_fd: int) -> None:
    """Make the working directory where the image has none, as runc does."""
    cwd = birth.plan.process.get("cwd") or "/"
    if cwd != "/":
        birth.progress.at("mkdir cwd", cwd)
        fd, _ = rooted.make_directory(root_fd, cwd)
        os.close(fd)


def _make_settler(birth: Birth) -> None:
    launch = birth.launch
    keyring = None if launch.no_new_keyring else settle.keyring_name(launch.container_id)
    birth.settler = settle.Settler(
        birth.identity,
        birth.progress,
        stdio=launch.stdio,
        linux=birth.plan.linux,
        keyring=keyring,
        seccomp_program=birth.seccomp_program,
        preserve_fds=launch.preserve_fds,
        die_with_parent=launch.die_with_parent,
        agent=birth.agent,
    )


def _settle(birth: Birth, master: int) -> None:
    """Become the container's user, look the program up, say READY and wait for START."""
    launch, progress = birth.launch, birth.progress
    assert birth.settler is not None
    fds = () if master < 0 else (master,)
    listener = () if launch.start_listener is None else (launch.start_listener.fileno(),)
    birth.settler.pid = birth.pid
    birth.settler.settle((birth.sock.fileno(), *fds, *listener))
    birth.mark("identity")
    body = {"marks": progress.marks, "warnings": progress.warnings}
    messages.send(birth.sock, messages.READY, body, *fds)
    if master >= 0:
        os.close(master)
    _wait_for_start(birth)


def _wait_for_start(birth: Birth) -> None:
    if not birth.launch.wait_for_start:
        return
    listener = birth.launch.start_listener
    if listener is not None:
        birth.sock.close()
        birth.sock = seqpacket.accept(listener)
    _expect(birth, messages.START)


def _become_program(birth: Birth) -> None:
    if "startContainer" in birth.plan.hooks:
        birth.progress.at("hook")
        table = birth.plan.hooks["startContainer"]
        hooks.run_hooks("startContainer", table, _state(birth, "created"))
    assert birth.settler is not None
    birth.settler.become_program(birth.sock, reaper_area=birth.reaper_area)


def _expect(birth: Birth, kind: bytes) -> dict[str, Any]:
    """Wait for one message; a runtime that has gone takes the container with it."""
    got, body, _ = messages.receive(birth.sock)
    if got != kind:
        os._exit(_FAILED_EXIT_CODE)
    return body


def join_stage(plan: Plan, fds: dict[str, int]) -> None:
    """Enter the namespaces that exist already, the user namespace last; see setns(2).

    As the machine's root all others can be entered before it, whoever owns them; behind it only
    those it owns. The mount namespace comes next to last, for /proc is gone behind it.
    """
    if offsets := plan.linux.get("timeOffsets"):
        sys.unshare(sys.CLONE_NEWTIME)
        namespaces.write_time_offsets(offsets)
    for kind in ("cgroup", "ipc", "uts", "network", "pid", "time", "mount", "user"):
        if kind in fds:
            try:
                sys.setns(fds[kind], namespaces.FLAGS[kind])
            except OSError as error:
                error.filename = plan.joined[kind]
                raise
