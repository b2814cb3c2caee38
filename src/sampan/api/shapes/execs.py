"""Execs as `GET /exec/{id}/json` shows them."""

from __future__ import annotations

from typing import Any

from sampan.engine.execs import Exec


def inspected(entry: Exec) -> dict[str, Any]:
    """`ExitCode` is null until the process has ended."""
    config = entry.config
    return {
        "ID": entry.id,
        "Running": entry.running,
        "ExitCode": entry.exit_code,
        "ProcessConfig": {
            "tty": config.tty,
            "entrypoint": entry.arguments[0],
            "arguments": entry.arguments[1:],
            "privileged": config.privileged,
            **({"user": config.user} if config.user else {}),
        },
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": not entry.running and entry.exit_code is not None,
        "ContainerID": entry.container.id,
        "DetachKeys": config.detach_keys,
        "Pid": entry.pid,
    }
