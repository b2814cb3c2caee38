"""Seccomp notifications: the filter's listener is handed to the agent that a profile names.

Source: OCI runtime-spec config-linux.md, "The Container Process State"; seccomp_unotify(2).
"""

from __future__ import annotations

import os

from sampan import jsontext
from sampan.errors import RuntimeFailure
from sampan.linux import seccomp, seqpacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sampan.linux.seqpacket import Socket


class Agent:
    """The connection to the agent, made on the machine's side before the process is cloned."""

    __slots__ = ("metadata", "sock", "state", "version")

    def __init__(self, sock: Socket, metadata: str, state: Mapping[str, Any], version: str) -> None:
        self.sock = sock
        self.metadata = metadata
        self.state = dict(state)
        self.version = version

    def hand_over(self, listener: int, pid: int) -> None:
        """Send the listener and the process's state; `pid` is as the runtime counts."""
        state = {**self.state, "pid": self.state.get("pid") or pid}
        document: dict[str, Any] = {"ociVersion": self.version, "fds": ["seccompFd"], "pid": pid}
        if self.metadata:
            document["metadata"] = self.metadata
        document["state"] = state
        seqpacket.send(self.sock, jsontext.encode(document).encode(), (listener,))
        os.close(listener)
        self.sock.close()


def connect_agent(
    profile: Mapping[str, Any] | None, state: Mapping[str, Any], version: str
) -> Agent | None:
    """Connect to the profile's agent; None for a profile that notifies nobody.

    Raises:
        RuntimeFailure: stage `seccomp`: it notifies and names no agent, or nobody listens there.
    """
    if not profile or not seccomp.uses_notify(profile):
        return None
    path = profile.get("listenerPath")
    if not path:
        raise RuntimeFailure(
            "seccomp", "linux.seccomp.listenerPath must be set when SCMP_ACT_NOTIFY is used"
        )
    try:
        sock = seqpacket.connect(path, stream=True)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise RuntimeFailure(
            "seccomp", f"failed to connect with seccomp agent {path}: {reason}",
            path=path, errno=error.errno,
        ) from error  # fmt: skip
    return Agent(sock, profile.get("listenerMetadata") or "", state, version)
