"""Attaching clients to containers, and reading logs.

A client that attaches before the start is parked with its container and goes to the shim with the
start, so it misses nothing; one that attaches later is handed over at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from sampan.engine.container import Container, Status
from sampan.engine.detach_keys import parse_detach_keys
from sampan.errors import Conflict, Unsupported
from sampan.logs import json_file
from sampan.logs.follow import follow_log
from sampan.shim.streams import DEFAULT_DETACH_KEYS, ClientStream


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """`stream`: go on with what comes; `logs`: begin with what was. `detach_keys` as Docker spells
    them, None or empty for the default."""

    stream: bool = True
    logs: bool = False
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    detach_keys: str | None = None


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which lines: the last `tail` (None: all) of those between the times, in ns since 1970."""

    follow: bool = False
    tail: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    timestamps: bool = False
    stdout: bool = True
    stderr: bool = True
    details: bool = False


def check_attachable(container: Container) -> None:
    """Refuse to attach to a container that cannot answer; dockerd's texts.

    Raises:
        Conflict: it is paused or going away.
    """
    if container.state.status is Status.PAUSED:
        raise Conflict(f"Container {container.id} is paused, unpause the container before attach")
    if container.state.restarting:
        raise Conflict(
            f"Container {container.id} is restarting, wait until the container is running"
        )
    if container.state.status in (Status.REMOVING, Status.DEAD):
        raise Conflict(f"You cannot attach to a container that is being removed: {container.id}")


def prepare(container: Container, options: AttachOptions, stream: ClientStream) -> ClientStream:
    """Fill in what the container decides about the stream.

    Raises:
        InvalidArgument: bad detach keys.
    """
    stream.raw = container.config.tty
    stream.stdin = options.stdin and container.config.open_stdin
    stream.stdout, stream.stderr = options.stdout, options.stderr
    stream.detach_keys = (
        parse_detach_keys(options.detach_keys) if options.detach_keys else DEFAULT_DETACH_KEYS
    )
    return stream


def check_readable(container: Container) -> None:
    """Refuse to read a log that its driver does not keep.

    Raises:
        Unsupported: dockerd's text.
    """
    if container.log_driver != "json-file":
        raise Unsupported("configured logging driver does not support reading")


async def read_log(container: Container, options: LogOptions) -> AsyncIterator[bytes]:
    """The log's lines, framed with 8-byte headers unless the container has a terminal."""
    lines: dict[str, Any] = {
        "tail": options.tail,
        "since_ns": options.since_ns,
        "until_ns": options.until_ns,
        "timestamps": options.timestamps,
        "stdout": options.stdout,
        "stderr": options.stderr,
        "framed": not container.config.tty,
        "details": options.details,
    }
    if options.follow:
        async for chunk in follow_log(container.log_path, ended=container.ended, **lines):
            yield chunk
        return
    for chunk in json_file.read_log(container.log_path, **lines):
        yield chunk
