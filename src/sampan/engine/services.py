"""What the parts of the engine share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.engine.apparmor import AppArmor
    from sampan.engine.events import EventBus
    from sampan.engine.leases import Leases
    from sampan.engine.networking import Networking
    from sampan.engine.options import EngineOptions
    from sampan.engine.post_mortem import History
    from sampan.engine.preset import LivePreset
    from sampan.engine.registry import Registry
    from sampan.engine.runtimes import Runtimes
    from sampan.engine.seccomp import Profiles
    from sampan.engine.volumes import Volumes
    from sampan.shim.client import Zygote
    from sampan.snapshots.overlay import Snapshotter


@dataclass(frozen=True, slots=True)
class Services:
    """The stores and helpers that every part works with; made once, by `engine.Engine`."""

    options: EngineOptions
    registry: Registry
    events: EventBus
    networking: Networking
    snapshots: Snapshotter
    volumes: Volumes
    profiles: Profiles
    zygote: Zygote
    cgroup_version: int
    apparmor: AppArmor
    history: History
    preset: LivePreset
    runtimes: Runtimes
    leases: Leases

    def socket_path(self, container_id: str) -> str:
        """Where the shim of a container listens."""
        return f"{self.options.shims_directory}/{container_id}.sock"
