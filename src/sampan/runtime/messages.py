"""What the runtime and a container's init say to each other while the container is made.

One SOCK_SEQPACKET pair, one letter and perhaps JSON a message; both ends are close-on-exec, so
that the end of the connection says that the program runs:

    runtime                                     init
      clone3 --------------------------------->   (new namespaces)
      write uid_map, gid_map
      MAPPED --------------------------------->   become root of the user namespace
      make cgroup, host's end of the veth         mounts, devices (beside each other)
      JOINED(pid) ---------------------------->   enter cgroup, cgroup namespace, network
      SOCKETS [udp, tcp] <---------------------   (only where names are served, see `dns_sockets`)
      HOOKS <----------------------------------   (only with prestart or createRuntime hooks)
      run them
      HOOKED --------------------------------->   createContainer hooks, pivot_root
      MOVED(pid) <-----------------------------   (only into a PID namespace that exists, see `init`)
      JOINED(pid) ---------------------------->   from here on it is the process just named
                                                  identity
      READY(marks, warnings) [console] <-------
      START ---------------------------------->   startContainer hooks, seccomp, exec
      end of connection <----------------------

At any point init may say FAILED(stage, message, path, errno) instead, and ends. With a start
socket (the command `sampan-oci`, whose `create` does not stay) START and what follows go over a
connection to that socket instead.
"""

from __future__ import annotations

from sampan import jsontext
from sampan.errors import RuntimeFailure
from sampan.linux import seqpacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.linux.seqpacket import Socket

MAPPED = b"M"
JOINED = b"J"
HOOKS = b"H"
HOOKED = b"h"
SOCKETS = b"N"
MOVED = b"P"
READY = b"R"
START = b"S"
FAILED = b"F"
GONE = b""

_MAXIMUM_TEXT = 8192


def send(sock: Socket, kind: bytes, body: dict[str, Any] | None = None, *fds: int) -> None:
    """Send one message.

    Raises:
        OSError: EPIPE if the other side has ended.
    """
    seqpacket.send(sock, kind + (jsontext.encode(body).encode() if body else b""), fds)


def receive(sock: Socket) -> tuple[bytes, dict[str, Any], list[int]]:
    """(kind, body, file descriptors); the kind is GONE when the other side has ended.

    Raises:
        RuntimeFailure: the other side said FAILED.
    """
    message, fds = seqpacket.receive(sock)
    kind = message[:1]
    body = jsontext.decode(message[1:]) if len(message) > 1 else {}
    if kind == FAILED:
        raise RuntimeFailure(
            body["stage"], body["message"], path=body.get("path"), errno=body.get("errno")
        )
    return kind, body, fds


def send_failure(sock: Socket, failure: RuntimeFailure) -> None:
    """Tell why init cannot go on; a runtime that has gone is no further failure."""
    body = {
        "stage": failure.stage,
        "message": failure.message[:_MAXIMUM_TEXT],
        "path": failure.path,
        "errno": failure.errno,
    }
    try:
        send(sock, FAILED, body)
    except OSError:
        pass


class Progress:
    """Where init is: what a failure without a better name is named after."""

    __slots__ = ("marks", "path", "stage", "warnings")

    def __init__(self) -> None:
        self.stage = "init"
        self.path: str | None = None
        self.marks: list[tuple[str, int]] = []
        self.warnings: list[str] = []

    def at(self, stage: str, path: str | None = None) -> None:
        """Note the step that begins, and the file it is about."""
        self.stage = stage
        self.path = path

    def failure(self, error: Exception) -> RuntimeFailure:
        """An exception as a failure of the step under way."""
        if isinstance(error, RuntimeFailure):
            return error
        if isinstance(error, OSError):
            path = self.path or _text(error.filename)
            return os_failure(self.stage, error, path)
        return RuntimeFailure(self.stage, f"{type(error).__name__}: {error}", path=self.path)


def os_failure(stage: str, error: OSError, path: str | None = None) -> RuntimeFailure:
    """A kernel's refusal as a failure: `mount /proc: Operation not permitted`."""
    reason = error.strerror or str(error)
    call, _, text = reason.partition(": ")
    if text and call != stage:
        stage_text = f"{stage} {path}: {call}" if path else f"{stage}: {call}"
    else:
        stage_text = f"{stage} {path}" if path else stage
    message = f"{stage_text}: {(text or reason).lower()}"
    return RuntimeFailure(stage, message, path=path, errno=error.errno)


def file_name(error: OSError) -> str | None:
    """The path that an error of the kernel is about, if it names one."""
    return _text(error.filename)


def _text(name: object) -> str | None:
    if isinstance(name, bytes):
        return name.decode(errors="replace")
    return name if isinstance(name, str) else None
