"""Making a container's first process: from an OCI configuration to a program about to run.

    container = create(Launch(container_id=…, bundle=…, config=…, stdio=(0, 1, 2)))
    container.start()                       # the program runs when this returns
    os.waitid(os.P_PIDFD, container.pidfd, os.WEXITED)

`create` clones init with all its namespaces at once; the machine's side of things (cgroup, veth) is
made here while init mounts, as drawn in `messages`. Everything acquired has its release; on failure
they run in reverse order and what was made is gone. Source: OCI runtime-spec 1.2, runtime.md.
"""

from __future__ import annotations

import errno
import os

from sampan.errors import RuntimeFailure
from sampan.linux import capabilities, namespaces, netlink, pidfd, process, seccomp, seqpacket
from sampan.linux import syscalls as sys
from sampan.linux.cgroups import layout as cgroup_layout
from sampan.linux.cgroups import manager as cgroups
from sampan.runtime import hooks, identity, init, messages, notify
from sampan.runtime.cgroup_mounts import CgroupView
from sampan.runtime.messages import os_failure
from sampan.runtime.plan import Plan
from sampan.runtime.rootfs import Trees, map_tree, open_source
from sampan.runtime.trace import Trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sampan.linux.cgroups.base import Cgroup, Gate
    from sampan.linux.mounts import Mount
    from sampan.linux.netlink import VethEndpoint
    from sampan.linux.seqpacket import Socket
    from sampan.runtime.notify import Agent


class Launch:
    """What to make a container from.

    `config` is config.json decoded, `bundle` the absolute directory it counts from. `stdio` are the
    file descriptors that become 0, 1, 2; None makes a terminal in the container's devpts, whose
    master comes back as `Container.console_fd`. `rootfs_mounts` are performed in the new mount
    namespace before anything else; their targets exist. `seccomp_program` is compiled BPF; without
    it `linux.seccomp` is compiled, through the cache in `seccomp_cache` if that is given.
    `preserve_fds`: how many descriptors from 3 on the program inherits. `reaper`: PID 1 is the
    runtime's own reaper and the program its child. `die_with_parent`: the kernel kills the container
    when the calling thread ends. `start_listener`: init waits there for START instead of on the
    connection that `create` keeps. Without `wait_for_start` init does not wait at all: `create` returns
    as soon as the program was found, and `Container.start` only hears whether the exec succeeded.
    """

    __slots__ = (
        "bundle",
        "config",
        "container_id",
        "die_with_parent",
        "endpoints",
        "no_new_keyring",
        "no_pivot",
        "preserve_fds",
        "reaper",
        "rootfs_mounts",
        "seccomp_cache",
        "seccomp_program",
        "start_listener",
        "stdio",
        "systemd_cgroup",
        "trace",
        "wait_for_start",
    )

    def __init__(
        self,
        *,
        container_id: str,
        bundle: str,
        config: dict[str, Any],
        stdio: tuple[int, int, int] | None,
        rootfs_mounts: Sequence[Mount] = (),
        seccomp_program: bytes | None = None,
        seccomp_cache: str | None = None,
        endpoints: Sequence[VethEndpoint] = (),
        preserve_fds: int = 0,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        systemd_cgroup: bool = False,
        trace: Trace | None = None,
        reaper: bool = False,
        die_with_parent: bool = True,
        start_listener: Socket | None = None,
        wait_for_start: bool = True,
    ) -> None:
        self.container_id = container_id
        self.bundle = bundle
        self.config = config
        self.stdio = stdio
        self.rootfs_mounts = rootfs_mounts
        self.seccomp_program = seccomp_program
        self.seccomp_cache = seccomp_cache
        self.endpoints = endpoints
        self.preserve_fds = preserve_fds
        self.no_pivot = no_pivot
        self.no_new_keyring = no_new_keyring
        self.systemd_cgroup = systemd_cgroup
        self.trace = trace
        self.reaper = reaper
        self.die_with_parent = die_with_parent
        self.start_listener = start_listener
        self.wait_for_start = wait_for_start


class Container:
    """A container that waits for `start`, or runs.

    The caller owns `pidfd` and `console_fd`, reaps the process `pid`, which is its child, and
    deletes `cgroup` after it.
    """

    __slots__ = (
        "_sock",
        "_started",
        "_undo",
        "cgroup",
        "console_fd",
        "pid",
        "pidfd",
        "trace",
        "warnings",
    )

    def __init__(
        self,
        *,
        pid: int,
        pidfd: int,
        console_fd: int | None,
        cgroup: Cgroup | None,
        warnings: list[str],
        sock: Socket,
        undo: Undo,
        trace: Trace | None,
        started: bool,
    ) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.console_fd = console_fd
        self.cgroup = cgroup
        self.warnings = warnings
        self.trace = trace
        self._sock = sock
        self._started = started
        self._undo = undo

    def start(self) -> None:
        """Let init exec the program; returns when it runs.

        Raises:
            RuntimeFailure: stage `exec` (errno ENOEXEC …), `seccomp` or `hook`; the container and
                what belongs to it are gone then.
        """
        try:
            start_over(self._sock, told=self._started)
        except RuntimeFailure:
            self._undo.run()
            raise
        finally:
            self._sock.close()
        self._undo.forget()
        if self.trace is not None:
            self.trace.mark("exec")

    def undo(self, failure: BaseException | None = None) -> None:
        """Kill the container and release all that `create` made, also `pidfd` and `console_fd`."""
        self._undo.run(failure)


def start_over(sock: Socket, *, told: bool = False) -> None:
    """Say START (unless init was `told` before) and wait until the program runs.

    Raises:
        RuntimeFailure: init said why not, or had ended before.
    """
    try:
        if not told:
            messages.send(sock, messages.START)
    except OSError as error:
        raise RuntimeFailure("start", "the container's init process has ended") from error
    messages.receive(sock)


class Undo:
    """Releases of what was acquired, run in reverse order; the first failure of one is noted."""

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def add(self, release: Callable[..., object], *arguments: Any) -> None:
        self._steps.append((release, arguments))

    def run(self, failure: BaseException | None = None) -> None:
        """Release everything; what fails on the way becomes a note on `failure`."""
        while self._steps:
            release, arguments = self._steps.pop()
            try:
                release(*arguments)
            except (OSError, RuntimeFailure) as error:
                if failure is not None:
                    failure.add_note(f"while undoing: {error}")

    def forget(self) -> None:
        """Keep everything."""
        self._steps.clear()


def warm() -> None:
    """Read once what every start needs and never changes; the zygote does it before it forks."""
    identity.available_capabilities()
    capabilities.last()
    cgroup_layout.layout()


def create(launch: Launch) -> Container:
    """Make the container up to the point where only `Container.start` is missing.

    The calling process has one thread. The namespaces exist, hooks up to createContainer have run,
    the program has been found.

    Raises:
        RuntimeFailure: names the stage (`config`, `clone`, `cgroup`, `network`, `mount`, `user`,
            `exec` …), the path and errno; everything that was made is gone.
    """
    undo = Undo()
    try:
        return _create(launch, undo)
    except OSError as error:
        failure = os_failure("create", error, _name(error))
        undo.run(failure)
        raise failure from error
    except BaseException as error:
        undo.run(error)
        raise


def _name(error: OSError) -> str | None:
    return error.filename if isinstance(error.filename, str) else None


def _create(launch: Launch, undo: Undo) -> Container:
    trace = launch.trace
    plan = Plan(launch.config, launch.bundle)
    warnings: list[str] = []
    who = identity.prepare(plan.process, warnings)
    cgroup = _open_cgroup(launch, plan)
    ours, theirs = seqpacket.pair()
    closing = Undo()  # what only init needs
    closing.add(theirs.close)
    try:
        trees = _open_trees(plan, launch)
        closing.add(trees.close)
        birth = init.Birth(
            launch,
            plan,
            who,
            theirs,
            trees,
            gate=_gate(launch, cgroup, plan, closing),
            view=_view(cgroup, plan),
            seccomp_program=_seccomp(launch, plan),
            agent=_agent(launch, plan, closing),
        )
        if trace:
            trace.mark("plan")
        if cgroup is not None:
            undo.add(cgroup.delete)
        pid, fd = _clone(plan, birth, ours, cgroup)
    except BaseException:
        ours.close()
        raise
    finally:
        closing.run()
    undo.add(os.close, fd)
    undo.add(pidfd.kill_and_reap, pid, fd)
    undo.add(ours.close)
    if trace:
        trace.mark("clone")
    return _raise_up(launch, plan, pid, fd, ours, cgroup, warnings, undo)


def _raise_up(
    launch: Launch,
    plan: Plan,
    pid: int,
    fd: int,
    sock: Socket,
    cgroup: Cgroup | None,
    warnings: list[str],
    undo: Undo,
) -> Container:
    """The machine's side: mappings, cgroup, network, hooks; until init is ready."""
    try:
        _support(launch, plan, pid, sock, cgroup, undo)
    except (OSError, RuntimeFailure) as error:
        _prefer_what_init_says(sock, error)
        raise
    kind, body, fds = messages.receive(sock)
    if kind == messages.HOOKS:
        _run_runtime_hooks(launch, plan, pid)
        messages.send(sock, messages.HOOKED)
        kind, body, fds = messages.receive(sock)
    if kind != messages.READY:
        raise RuntimeFailure("init", "the container's init process ended while it was set up")
    if launch.trace:
        launch.trace.extend(body["marks"], "init.")
        launch.trace.mark("ready")
    for console in fds:
        undo.add(os.close, console)
    return Container(
        pid=pid,
        pidfd=fd,
        console_fd=fds[0] if fds else None,
        cgroup=cgroup,
        warnings=warnings + body["warnings"],
        sock=sock,
        undo=undo,
        trace=launch.trace,
        started=not launch.wait_for_start,
    )


def _prefer_what_init_says(sock: Socket, error: BaseException) -> None:
    """A broken connection is only the echo of init's own failure: raise that one."""
    if isinstance(error, BrokenPipeError | ConnectionResetError):
        messages.receive(sock)


def _support(
    launch: Launch, plan: Plan, pid: int, sock: Socket, cgroup: Cgroup | None, undo: Undo
) -> None:
    trace = launch.trace
    if "user" in plan.new:
        _map(plan, pid)
        messages.send(sock, messages.MAPPED)
    if cgroup is not None:
        if _made_after_clone(launch, plan):
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
        raise os_failure("uid_map", error, _name(error)) from error


def _attach(endpoint: VethEndpoint, pid: int, undo: Undo) -> None:
    try:
        netlink.create_veth(endpoint, netns_pid=pid)
    except OSError as error:
        raise os_failure("network", error, endpoint.host_name) from error
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


def _run_runtime_hooks(launch: Launch, plan: Plan, pid: int) -> None:
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


def _open_cgroup(launch: Launch, plan: Plan) -> Cgroup | None:
    path = plan.linux.get("cgroupsPath")
    if not path:
        return None
    return cgroups.open_cgroup(path, systemd=launch.systemd_cgroup)


def _gate(launch: Launch, cgroup: Cgroup | None, plan: Plan, closing: Undo) -> Gate | None:
    if cgroup is None or (launch.systemd_cgroup and plan.has("user")):
        return None
    made = plan.has("user")
    if made:
        cgroup.create()  # its files are opened on this side: init will not have the right
        _delegate(cgroup, plan)
    gate = cgroup.gate(made=made)
    closing.add(gate.close)
    return gate


def _made_after_clone(launch: Launch, plan: Plan) -> bool:
    """Is the cgroup made after the clone? Not for a user namespace, whose init needs open files."""
    return launch.systemd_cgroup or not plan.has("user")


def _delegate(cgroup: Cgroup, plan: Plan) -> None:
    """Give the cgroup to the container's root; config-linux.md, "Cgroup ownership"."""
    writable = any(
        step.mount.type in ("cgroup", "cgroup2") and not step.options.flags & sys.MS_RDONLY
        for step in plan.mounts
    )
    if "cgroup" in plan.new and writable:
        for row in plan.linux.get("uidMappings") or ():
            if row["containerID"] == 0:
                cgroup.delegate(row["hostID"])


def _view(cgroup: Cgroup | None, plan: Plan) -> CgroupView | None:
    if not any(step.mount.type in ("cgroup", "cgroup2") for step in plan.mounts):
        return None
    layout = cgroup_layout.layout()
    paths = cgroup.paths() if cgroup is not None else _own_paths(layout)
    return CgroupView(layout, paths, private=plan.has("cgroup"))


def _own_paths(layout: cgroup_layout.Layout) -> dict[str, str]:
    """Where a container without a cgroup of its own is: where this process is."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        own = cgroup_layout.parse_own(file.read())
    paths = {}
    for hierarchy in layout.hierarchies:
        path = cgroup_layout.own_path(own, hierarchy.controllers, hierarchy.mount_root)
        paths.update(dict.fromkeys(hierarchy.controllers, hierarchy.root + path))
    if layout.unified:
        paths[""] = layout.unified + cgroup_layout.own_path(own, ("",), layout.unified_mount_root)
    return paths


def _seccomp(launch: Launch, plan: Plan) -> bytes | None:
    profile = plan.linux.get("seccomp")
    if launch.seccomp_program is not None:
        return launch.seccomp_program
    if not profile:
        return None
    if launch.seccomp_cache:
        return seccomp.cached_program(profile, launch.seccomp_cache)[0]
    return seccomp.compile_profile(profile)


def _agent(launch: Launch, plan: Plan, closing: Undo) -> Agent | None:
    config = launch.config
    version = config.get("ociVersion") or ""
    state = hooks.state_document(
        launch.container_id, "creating", 0, launch.bundle, config.get("annotations"), version
    )
    agent = notify.connect_agent(plan.linux.get("seccomp"), state, version)
    if agent is not None:
        closing.add(agent.sock.close)
    return agent


def _open_trees(plan: Plan, launch: Launch) -> Trees:
    """Open on this side what init could not: mapped binds, and sources behind a user namespace."""
    trees = Trees()
    foreign = plan.has("user")
    try:
        for index, step in enumerate(plan.mounts):
            mapped = bool(step.uid_mappings or step.options.idmap)
            if step.options.bind and (mapped or foreign):
                trees.sources[index] = open_source(step)
            if mapped:
                _map_source(plan, index, trees)
        if foreign and not launch.rootfs_mounts:
            trees.rootfs = sys.open_tree(
                sys.AT_FDCWD, plan.rootfs, sys.OPEN_TREE_CLONE | sys.AT_RECURSIVE
            )
    except OSError as error:
        trees.close()
        raise os_failure("mount", error, _name(error)) from error
    except RuntimeFailure:
        trees.close()
        raise
    return trees


def _map_source(plan: Plan, index: int, trees: Trees) -> None:
    step = plan.mounts[index]
    uids = step.uid_mappings or plan.linux.get("uidMappings") or ()
    gids = step.gid_mappings or plan.linux.get("gidMappings") or ()
    userns = namespaces.user_namespace(uids, gids)
    try:
        map_tree(trees.sources[index], userns, recursive=step.options.idmap == "ridmap")
    except OSError as error:
        if error.errno == errno.EINVAL:
            message = f"mount {step.mount.target}: the file system of {step.mount.source} has no idmapped mounts"
            raise RuntimeFailure(
                "mount", message, path=step.mount.source, errno=error.errno
            ) from error
        error.filename = step.mount.target
        raise
    finally:
        os.close(userns)


def _clone(plan: Plan, birth: init.Birth, ours: Socket, cgroup: Cgroup | None) -> tuple[int, int]:
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
        raise os_failure("setns", error, _name(error)) from error
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
