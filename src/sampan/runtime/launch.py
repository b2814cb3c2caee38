"""Making a container's first process: from an OCI configuration to a program about to run.

    container = create(Launch(container_id=…, bundle=…, config=…, stdio=(0, 1, 2)))
    container.start()                       # the program runs when this returns
    os.waitid(os.P_PIDFD, container.pidfd, os.WEXITED)

`create` clones init with all its namespaces at once; the machine's side of things (cgroup, veth) is
made here while init mounts, as drawn in `messages`. Everything acquired has its release; on failure
they run in reverse order and what was made is gone. Source: OCI runtime-spec 1.2, runtime.md.
"""

from __future__ import annotations

import os

from sampan.errors import RuntimeFailure
from sampan.linux import capabilities, pidfd, seqpacket, vfork
from sampan.linux import syscalls as sys
from sampan.linux.cgroups import layout as cgroup_layout
from sampan.runtime import identity, init, messages, preparation, support
from sampan.runtime.cloning import clone_init
from sampan.runtime.messages import file_name, os_failure
from sampan.runtime.plan import Plan
from sampan.runtime.trace import Trace
from sampan.runtime.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.linux.cgroups.base import Cgroup
    from sampan.linux.mounts import Mount
    from sampan.linux.netlink import VethEndpoint
    from sampan.linux.seqpacket import Socket


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
    `resolver`: sockets are made in the new network namespace by which names are served to it (see
    `linux.dns_sockets`); they come back as `Container.sockets`.
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
        "resolver",
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
        resolver: bool = False,
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
        self.resolver = resolver


class Container:
    """A container that waits for `start`, or runs.

    The caller owns `pidfd`, `console_fd` and `sockets`, reaps the process `pid`, which is its child, and
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
        "sockets",
        "trace",
        "warnings",
    )

    def __init__(
        self,
        *,
        pid: int,
        pidfd: int,
        console_fd: int | None,
        sockets: list[int],
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
        self.sockets = sockets
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
        """Kill the container and release all that `create` made, also its descriptors."""
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


def warm() -> None:
    """Read once what every start needs and never changes; the zygote does it before it forks."""
    identity.available_capabilities()
    capabilities.last()
    cgroup_layout.layout()
    vfork.available()
    _import_resolver()


def _import_resolver() -> None:
    """Have what `init` needs of it imported; nobody else pays for it."""
    from sampan.linux import dns_sockets  # noqa: F401


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
        failure = os_failure("create", error, file_name(error))
        undo.run(failure)
        raise failure from error
    except BaseException as error:
        undo.run(error)
        raise


def _create(launch: Launch, undo: Undo) -> Container:
    trace = launch.trace
    if launch.resolver:
        _import_resolver()
    plan = Plan(launch.config, launch.bundle)
    warnings: list[str] = []
    who = identity.prepare(plan.process, warnings)
    cgroup = preparation.open_cgroup(launch, plan)
    if cgroup is not None:
        undo.add(cgroup.delete)
    ours, theirs = seqpacket.pair()
    closing = Undo()  # what only init needs
    closing.add(theirs.close)
    try:
        trees = preparation.open_trees(plan, launch)
        closing.add(trees.close)
        birth = init.Birth(
            launch,
            plan,
            who,
            theirs,
            trees,
            gate=preparation.gate(launch, cgroup, plan, closing),
            view=preparation.view(cgroup, plan),
            seccomp_program=preparation.filter_program(launch, plan),
            agent=preparation.agent(launch, plan, closing),
        )
        if trace:
            trace.mark("plan")
        pid, fd = clone_init(plan, birth, ours, cgroup)
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
        support.support(launch, plan, pid, sock, cgroup, undo)
    except (OSError, RuntimeFailure):
        _prefer_what_init_says(sock)
        raise
    kind, body, fds = messages.receive(sock)
    sockets: list[int] = []
    if kind == messages.SOCKETS:
        for each in fds:
            undo.add(os.close, each)
        sockets = fds
        kind, body, fds = messages.receive(sock)
    if kind == messages.HOOKS:
        support.run_hooks(launch, plan, pid)
        messages.send(sock, messages.HOOKED)
        kind, body, fds = messages.receive(sock)
    if kind == messages.MOVED:
        pid = _follow(pid, fd, body["pid"], undo)
        messages.send(sock, messages.JOINED, {"pid": pid})
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
        sockets=sockets,
        cgroup=cgroup,
        warnings=warnings + body["warnings"],
        sock=sock,
        undo=undo,
        trace=launch.trace,
        started=not launch.wait_for_start,
    )


def _follow(former: int, fd: int, pid: int, undo: Undo) -> int:
    """Init is another child of ours now: `fd` becomes its pidfd, and the former one is reaped."""
    undo.add(pidfd.kill_and_reap, pid, fd)
    moved = sys.pidfd_open(pid)
    try:
        os.dup2(moved, fd, inheritable=False)
    finally:
        os.close(moved)
    os.waitpid(former, 0)
    return pid


def _prefer_what_init_says(sock: Socket) -> None:
    """If init has failed, what fails on this side is only the echo: raise its own words."""
    sock.setblocking(False)
    try:
        messages.receive(sock)
    except BlockingIOError:
        pass  # init is fine
