"""What the engine is told once, when it opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sampan.engine.preset import Preset
from sampan.images.distribution.settings import RegistrySettings
from sampan.network.bridge_wishes import BridgeWishes
from sampan.network.pools import Pool
from sampan.state.events import Limits

HISTORY_BYTES = 16 << 20
HISTORY_LINES = 20


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Where the engine keeps things, and dockerd's options that are the engine's business.

    `preset` is what containers get where nobody says otherwise, `runtimes` the commands of other OCI
    runtimes by name. `default_bridge` is what is asked of the default network's bridge. `firewall_table` names the engine's own
    nftables table, empty for one named after the bridge. `address_pools` are where networks get subnets
    from, empty for the engine's own; `network_defaults` the options, by driver, of those that are made
    without. `host_gateway` is what `host-gateway` means in extra hosts, empty for the default bridge's
    address. Ports are published at `publish_address` where
    none is named (empty for all), behind the host's own rules for incoming packets or, not
    `respect_host_firewall`, past them. What a container writes is limited to `container_size_bytes`, 0 for no
    limit, unless it names a size of its own. `registries` and `preset` can change while
    the engine runs (`Engine.registry_settings`, `Engine.preset`). `event_limits` and `history_limits` say how much is kept of
    events and of how containers ended, with how many last lines of output (`history_lines`).
    """

    data_root: str = "/var/lib/sampan"
    exec_root: str = "/run/sampan"
    bridge: str = "sampan0"
    default_bridge: BridgeWishes = field(default_factory=BridgeWishes)
    firewall_table: str = ""
    address_pools: Sequence[Pool] = ()
    network_defaults: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    host_gateway: str = ""
    publish_address: str = ""
    respect_host_firewall: bool = True
    cgroup_parent: str = "/sampan"
    debug: bool = False
    trace_start: bool = False
    disk_budget_bytes: int = 0
    container_size_bytes: int = 0
    labels: Sequence[str] = ()
    preset: Preset = field(default_factory=Preset)
    runtimes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    registries: RegistrySettings = field(default_factory=RegistrySettings)
    event_limits: Limits = field(default_factory=Limits)
    history_limits: Limits = field(default_factory=lambda: Limits(size_bytes=HISTORY_BYTES))
    history_lines: int = HISTORY_LINES

    @property
    def containers_directory(self) -> str:
        return f"{self.data_root}/containers"

    @property
    def volumes_directory(self) -> str:
        return f"{self.data_root}/volumes"

    @property
    def events_directory(self) -> str:
        return f"{self.data_root}/events"

    @property
    def shims_directory(self) -> str:
        """Where shims listen: `<container id>.sock`. On a file system that a reboot empties."""
        return f"{self.exec_root}/shims"

    @property
    def seccomp_directory(self) -> str:
        """Compiled seccomp programs by profile digest."""
        return f"{self.data_root}/seccomp"
