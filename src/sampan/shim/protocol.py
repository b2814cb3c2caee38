"""What daemon, zygote and shim say to each other.

Every socket is a SOCK_SEQPACKET unix socket; one message is one packet: a byte that says where the
JSON object is (inline, or in a memfd that comes as first descriptor, for big ones) and descriptors
by SCM_RIGHTS. The exchange of one container:

    daemon                              zygote                     shim
      spawn(request) [control, streams] -->
                                          fork ------------------>  (owns `control` from here)
      begun  <----------------------------------------------------  nothing was done before this
      started(pid …) [pidfd, sockets] | failed(stage …)  <--------  the process has exec'd | all undone

    a new daemon                                                   <request.socket>
      connect  -------------------------------------------------->
      hello(version)  ------------------------------------------->
      process [pidfd], answer(version, started, exited …)  <------

    on every control connection, any number of them at once
      attach(stream) [client socket]  --------------------------->
      resize signal  -------------------------------------------->
      answer(seq, …) | failed(seq, stage, message …)  <-----------
      stream_end(stream, reason), log_lost(error)  <--------------  events
      exited(status)  <------------------------------------------  exit.json written, log complete
      EOF  <-----------------------------------------------------  cgroup gone, the id may start again

A further process in it, whose keeper knows nothing of the shim (`order` is an ExecOrder):

    daemon                              zygote                     keeper
      exec(order) [control, pidfd, client?] -->
                                          fork ------------------>  (owns `control` from here)
      begun, started(pid …) | failed(stage …)  <------------------  with exit_code, if it has ended
      resize signal kill_tree  ---------------------------------->
      answer(seq, …) | failed(seq, stage, message …)  <-----------
      exec_exited(exit_code), then stream_end(stream, reason)  <--
      EOF  <-----------------------------------------------------  its client has all

Requests carry a number (`seq`), their answers repeat it. Names that a peer does not know are ignored
and missing ones have defaults, so either side may be the older one; PROTOCOL_VERSION grows when that
is not enough.
"""

from __future__ import annotations

import array
import json
import os
import socket

from sampan.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Self

PROTOCOL_VERSION = 1

INLINE = b"i"
MEMFD = b"m"
INLINE_LIMIT_BYTES = 48 * 1024  # far below the default socket buffer (net.core.wmem_default)
MAX_FDS = 253  # SCM_MAX_FD, include/net/scm.h

ENDED = "ended"  # a stream's process ended and all its output was sent
DETACHED = "detached"  # the client typed the detach keys
CLOSED = "closed"  # the client closed its input, and the stream ends with it, or it vanished

Message = dict[str, "Any"]


class Value:
    """A message body: attributes to a JSON object and back, by name."""

    __slots__: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Take what is known of `data`; names of a newer peer are ignored."""
        return cls(**{name: data[name] for name in cls.__slots__ if name in data})


LAUNCH_FIELDS = ("config", "endpoints", "resolver", "rootfs_mounts")

# What `sampan.runtime.process.execute` reads of a container's configuration.
EXEC_PROCESS_FIELDS = ("apparmorProfile", "oomScoreAdj", "rlimits", "selinuxLabel")
EXEC_LINUX_FIELDS = ("namespaces", "personality", "seccomp")


class ShimRequest(Value):
    """All that a shim needs to run one container.

    `directory` is the bundle `<root>/containers/<id>` (exit.json is written there), `socket` the path
    to listen on, `config` the OCI runtime configuration with the cgroup in `linux.cgroupsPath`.
    `rootfs_mounts` and `endpoints` are `linux.mounts.Mount` and `linux.netlink.VethEndpoint` as
    dicts. `seccomp_program` is the path of compiled BPF. `log_options` holds the driver's options
    (`max-size`, `max-file`) and, as `attrs`, a JSON object of labels and variables to log.
    `console_size` is (rows, columns). With `resolver` the answer brings the sockets by which names are
    served to the container (`linux.dns_sockets`). `runtime` is the command of another OCI runtime that
    makes the container, empty for our own.
    """

    __slots__ = (
        "config",
        "console_size",
        "directory",
        "endpoints",
        "id",
        "log_driver",
        "log_options",
        "log_path",
        "open_stdin",
        "reaper",
        "resolver",
        "rootfs_mounts",
        "runtime",
        "seccomp_program",
        "socket",
        "stdin_once",
        "terminal",
        "trace",
    )

    def __init__(
        self,
        *,
        id: str,
        directory: str,
        socket: str,
        config: dict[str, Any],
        rootfs_mounts: Sequence[dict[str, Any]] = (),
        seccomp_program: str | None = None,
        endpoints: Sequence[dict[str, Any]] = (),
        terminal: bool = False,
        open_stdin: bool = False,
        stdin_once: bool = False,
        reaper: bool = False,
        log_driver: str = "json-file",
        log_path: str = "",
        log_options: Mapping[str, str] | None = None,
        console_size: Sequence[int] | None = None,
        trace: bool = False,
        resolver: bool = False,
        runtime: Sequence[str] = (),
    ) -> None:
        self.id = id
        self.directory = directory
        self.socket = socket
        self.config = config
        self.rootfs_mounts = rootfs_mounts
        self.seccomp_program = seccomp_program
        self.endpoints = endpoints
        self.terminal = terminal
        self.open_stdin = open_stdin
        self.stdin_once = stdin_once
        self.reaper = reaper
        self.log_driver = log_driver
        self.log_path = log_path
        self.log_options = dict(log_options or {})
        self.console_size = console_size
        self.trace = trace
        self.resolver = resolver
        self.runtime = runtime

    @property
    def cgroup_path(self) -> str:
        """The OCI `linux.cgroupsPath`; empty without one."""
        path: str = (self.config.get("linux") or {}).get("cgroupsPath") or ""
        return path

    def to_spawn(self) -> Message:
        """The request as a `spawn` message has it: what only the launch needs stays text inside.

        The shim passes that text on undecoded; its thousand small objects would make it bigger.
        """
        linux = self.config.get("linux") or {}
        body = self.to_dict()
        launch = {name: body.pop(name) for name in LAUNCH_FIELDS}
        own = [row["type"] for row in linux.get("namespaces") or () if not row.get("path")]
        return {
            **body,
            "launch": json.dumps(launch, separators=(",", ":")),
            "cgroup_path": self.cgroup_path,
            "exec_config": exec_config(self.config),
            "own_pid_namespace": "pid" in own,
            "joins": len(own) < len(linux.get("namespaces") or ()) or "timeOffsets" in linux,
        }


def exec_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an OCI configuration that an exec needs: some hundred bytes instead of all."""
    process, linux = config.get("process") or {}, config.get("linux") or {}
    part: dict[str, Any] = {
        "ociVersion": config.get("ociVersion") or "",
        "process": {
            name: process[name] for name in EXEC_PROCESS_FIELDS if process.get(name) is not None
        },
        "linux": {name: linux[name] for name in EXEC_LINUX_FIELDS if linux.get(name)},
    }
    if "seccomp" in part["linux"]:
        part["annotations"] = config.get("annotations") or {}  # for the agent that it may name
    return part


class SpawnOrder(Value):
    """A ShimRequest as it reaches the shim, see `ShimRequest.to_spawn`.

    `launch` is JSON with the LAUNCH_FIELDS; `exec_config` is kept for the daemon, which sends it
    along with execs; `joins`: a namespace is joined by path (or has offsets),
    which needs a process of its own for a step.
    """

    __slots__ = (
        *(name for name in ShimRequest.__slots__ if name not in LAUNCH_FIELDS),
        "cgroup_path",
        "exec_config",
        "joins",
        "launch",
        "own_pid_namespace",
    )

    id: str
    directory: str
    socket: str
    seccomp_program: str | None
    terminal: bool
    open_stdin: bool
    stdin_once: bool
    reaper: bool
    runtime: Sequence[str]
    log_driver: str
    log_path: str
    log_options: dict[str, str]
    console_size: Sequence[int] | None
    trace: bool
    launch: str
    cgroup_path: str
    exec_config: Message
    own_pid_namespace: bool
    joins: bool

    def __init__(self, **fields: Any) -> None:
        for name in self.__slots__:
            setattr(self, name, fields[name])


class StreamOptions(Value):
    """How a client's socket is served; see `shim.streams.ClientStream`. `head` is base 64, `detach_keys` hexadecimal."""

    __slots__ = ("detach_keys", "head", "number", "raw", "stderr", "stdin", "stdout")

    def __init__(
        self,
        *,
        number: int,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        raw: bool = False,
        head: str = "",
        detach_keys: str = "",
    ) -> None:
        self.number = number
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.raw = raw
        self.head = head
        self.detach_keys = detach_keys


class Started(Value):
    """The container's first process has exec'd. `trace` is (stage, CLOCK_MONOTONIC ns) in order."""

    __slots__ = (
        "cgroup_path",
        "directory",
        "exec_config",
        "id",
        "pid",
        "shim_pid",
        "started_at_ns",
        "trace",
        "warnings",
    )

    def __init__(
        self,
        *,
        id: str,
        pid: int,
        shim_pid: int,
        started_at_ns: int,
        directory: str = "",
        cgroup_path: str = "",
        exec_config: Mapping[str, Any] | None = None,
        trace: Sequence[Sequence[Any]] = (),
        warnings: Sequence[str] = (),
    ) -> None:
        self.id = id
        self.pid = pid
        self.shim_pid = shim_pid
        self.started_at_ns = started_at_ns
        self.directory = directory
        self.cgroup_path = cgroup_path
        self.exec_config: Message = dict(exec_config or {})
        self.trace = trace
        self.warnings = warnings


class ExitStatus(Value):
    """How the container ended; also the content of exit.json.

    `exit_code` is as a shell counts (128 + signal), `exited_at_ns` nanoseconds since 1970; `signal`
    is what killed it, 0 when it exited. `started_at_ns` is that of `Started` and says which run it was, 0 when
    nobody knows: times cannot, since clocks are set. `usage` has `peak_memory_bytes`, `cpu_ns`, `read_bytes`,
    `write_bytes` and `oom_kills`, as far as the kernel told. `error` is for the user, empty when the
    process ended by itself.
    """

    __slots__ = (
        "error",
        "exit_code",
        "exited_at_ns",
        "oom_killed",
        "signal",
        "started_at_ns",
        "usage",
    )

    def __init__(
        self,
        *,
        exit_code: int,
        exited_at_ns: int,
        oom_killed: bool = False,
        error: str = "",
        usage: Mapping[str, int] | None = None,
        signal: int = 0,
        started_at_ns: int = 0,
    ) -> None:
        self.signal = signal
        self.started_at_ns = started_at_ns
        self.exit_code = exit_code
        self.exited_at_ns = exited_at_ns
        self.oom_killed = oom_killed
        self.error = error
        self.usage = dict(usage or {})


def encode(message: Message) -> tuple[bytes, int | None]:
    """The packet for `message`, and the memfd to send first, when the packet needs one."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) <= INLINE_LIMIT_BYTES:
        return INLINE + body, None
    fd = os.memfd_create("sampan-message", os.MFD_CLOEXEC)
    view = memoryview(body)
    while view:
        view = view[os.write(fd, view) :]
    return MEMFD, fd


def decode(packet: bytes, fds: list[int]) -> Message:
    """The message of a packet; takes the memfd out of `fds` and closes it."""
    body = packet[1:]
    if packet[:1] == MEMFD:
        fd = fds.pop(0)
        try:
            size = os.fstat(fd).st_size
            body = b""
            while len(body) < size:
                body += os.pread(fd, size - len(body), len(body))
        finally:
            os.close(fd)
    message: Message = json.loads(body)
    return message


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message; the caller keeps its descriptors.

    Raises:
        BlockingIOError: the socket does not block and its peer does not read.
        OSError: EPIPE, ECONNRESET when the peer is gone.
    """
    packet, memfd = encode(message)
    if memfd is None:
        send_packet(sock, packet, fds)
        return
    try:
        send_packet(sock, packet, [memfd, *fds])
    finally:
        os.close(memfd)


def send_packet(sock: socket.socket, packet: bytes, fds: Sequence[int]) -> None:
    """Send an encoded message; nothing is closed."""
    rights = (
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())] if fds else []
    )
    sock.sendmsg([packet], rights, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """Take one message and its descriptors (close-on-exec, now the caller's); None at the end.

    Raises:
        BlockingIOError: nothing is there and the socket does not block.
        OSError: the connection broke; EPROTO for a message cut short.
    """
    received = receive_packet(sock)
    if received is None:
        return None
    packet, fds = received
    return decode(packet, fds), fds


def receive_packet(sock: socket.socket) -> tuple[bytes, list[int]] | None:
    """As `receive`, with the message still encoded: to pass on by `send_packet`."""
    packet, ancillary, flags, _ = sock.recvmsg(
        INLINE_LIMIT_BYTES + 1, socket.CMSG_SPACE(MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC
    )
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.extend(array.array("i", data[: len(data) - len(data) % 4]))
    if not packet:
        close_all(fds)
        return None
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(fds)
        raise OSError(71, "message cut short")  # EPROTO
    return packet, fds


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def failure_to_dict(failure: RuntimeFailure) -> Message:
    """A failure as the body of a `failed` message."""
    return {
        "stage": failure.stage,
        "message": failure.message,
        "path": failure.path,
        "errno": failure.errno,
        "hint": failure.hint,
    }


def failure_from_dict(data: Mapping[str, Any]) -> RuntimeFailure:
    return RuntimeFailure(
        data.get("stage", "shim"),
        data.get("message", "the shim failed"),
        path=data.get("path"),
        errno=data.get("errno"),
        hint=data.get("hint"),
    )
