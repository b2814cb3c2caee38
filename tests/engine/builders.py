"""Containers for tests of the engine's pure parts."""

from __future__ import annotations

from typing import Any

from sampan.engine.container import Container, Record, State, Status
from sampan.engine.model import ContainerConfig, HostConfig, NetworkingConfig


def make_record(identity: str = "c0ffee", **changes: Any) -> Record:
    """A record with everything in it that has no default."""
    identity = f"{identity:0<64}"
    values: dict[str, Any] = {
        "id": identity,
        "name": "brisk_heron",
        "created_ns": 1_700_000_000_000_000_000,
        "config": ContainerConfig(image="busybox"),
        "host_config": HostConfig(),
        "networking": NetworkingConfig(),
        "image_id": "sha256:" + "1" * 64,
        "image_reference": "busybox",
        "path": "sh",
        "args": ["-c", "true"],
        "hostname": identity[:12],
        "cgroup_path": f"/sampan/{identity}",
        "capabilities": ["CAP_CHOWN"],
    }
    return Record(**{**values, **changes})


def make_container(
    identity: str = "c0ffee", status: Status = Status.CREATED, **changes: Any
) -> Container:
    """A container in a status."""
    return Container(make_record(identity, state=State(status=status), **changes), "/nowhere")
