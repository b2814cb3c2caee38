"""Hooks: programs that a configuration has run at points of a container's life.

Each gets the container's state as JSON on stdin; see config.md, "POSIX-platform Hooks".
"""

from __future__ import annotations

import os
import select
from time import monotonic

from sampan import jsontext
from sampan.errors import RuntimeFailure
from sampan.linux import process
from sampan.linux import syscalls as sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_MAXIMUM_OUTPUT = 4096


def run_hooks(kind: str, hooks: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> None:
    """Run the hooks of one kind in order.

    Raises:
        RuntimeFailure: stage `hook`: the first that could not be started, failed or took too long.
    """
    document = jsontext.encode(state).encode()
    for number, hook in enumerate(hooks):
        _run(f"{kind} hook #{number}", hook, document)


def state_document(
    container_id: str,
    status: str,
    pid: int,
    bundle: str,
    annotations: Mapping[str, str] | None,
    version: str,
) -> dict[str, Any]:
    """The state of runtime.md, "State", with those members that have a value."""
    state: dict[str, Any] = {"ociVersion": version, "id": container_id, "status": status}
    if pid:
        state["pid"] = pid
    state["bundle"] = bundle
    if annotations:
        state["annotations"] = dict(annotations)
    return state


def _run(name: str, hook: Mapping[str, Any], document: bytes) -> None:
    path = hook["path"]
    reader, output = os.pipe2(os.O_CLOEXEC)
    stdin = sys.memfd_create("hook-state")
    try:
        os.write(stdin, document)
        os.lseek(stdin, 0, os.SEEK_SET)
        pid = os.fork()
        if pid == 0:
            _become(hook, stdin, output)
    finally:
        os.close(stdin)
        os.close(output)
    pidfd = sys.pidfd_open(pid)
    try:
        said = _wait(name, path, pid, pidfd, reader, hook.get("timeout"))
    finally:
        os.close(reader)
        os.close(pidfd)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        reason = f"exit status {status}" if status > 0 else f"signal {-status}"
        detail = said.decode(errors="replace").strip()
        message = f"error running {name}: {reason}, stdout: , stderr: {detail}"
        raise RuntimeFailure("hook", message, path=path)


def _become(hook: Mapping[str, Any], stdin: int, output: int) -> None:
    path = hook["path"]
    try:
        process.install_stdio((stdin, output, output))
        sys.close_range(3)
        process.default_signals()
        argv = [os.fsencode(word) for word in hook.get("args") or [path]]
        sys.execve(path, argv, [os.fsencode(entry) for entry in hook.get("env") or ()])
    except (OSError, ValueError) as error:
        os.write(2, str(error).encode())
    finally:
        os._exit(127)


def _wait(name: str, path: str, pid: int, pidfd: int, reader: int, timeout_s: int | None) -> bytes:
    """Collect what the hook says (its first 4 KiB) until it ends; kill it when its time is over."""
    deadline = monotonic() + timeout_s if timeout_s else None
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(reader, select.POLLIN)
    said = b""
    while True:
        left = None if deadline is None else max(0, deadline - monotonic()) * 1000
        ready = dict(poll.poll(left))
        if not ready:
            sys.pidfd_send_signal(pidfd, 9)
            os.waitpid(pid, 0)
            message = f"error running {name}: timed out after {timeout_s} s"
            raise RuntimeFailure("hook", message, path=path)
        if ready.get(reader, 0) & select.POLLIN:
            said = (said + os.read(reader, 65536))[:_MAXIMUM_OUTPUT]
        elif reader in ready:
            poll.unregister(reader)
        elif pidfd in ready:
            return said
