"""What a container gets where its client leaves it open and the daemon's options do not.

Filled in when a container is made, so that inspect shows it, but for `ulimits` and `init`, which are
looked up at each start. The options may change while the engine runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sampan.engine.model import HostConfig
from sampan.engine.networking import normalised_mode


@dataclass(frozen=True, slots=True)
class Preset:
    """dockerd's `default-*` options and their kin; empty and 0 mean Docker's own default.

    `ulimits` are (name, soft, hard); `seccomp_profile` is a profile's JSON text, or `unconfined`.
    """

    cgroupns_mode: str = ""
    dns: Sequence[str] = ()
    dns_options: Sequence[str] = ()
    dns_search: Sequence[str] = ()
    init: bool = False
    ipc_mode: str = ""
    log_driver: str = ""
    log_options: Mapping[str, str] = field(default_factory=dict)
    no_new_privileges: bool = False
    runtime: str = ""
    seccomp_profile: str = ""
    shm_bytes: int = 0
    ulimits: Sequence[tuple[str, int, int]] = ()


class LivePreset:
    """The preset in force: called, it gives it; a reload of the daemon's file replaces it."""

    def __init__(self, current: Preset) -> None:
        self.current = current

    def __call__(self) -> Preset:
        return self.current


def apply(host: HostConfig, preset: Preset) -> None:
    """Put in what the client left open, in place."""
    log = host.log_config
    log.type = log.type or preset.log_driver
    if log.type == preset.log_driver:
        log.config = {**preset.log_options, **log.config}
    host.shm_size = host.shm_size or preset.shm_bytes
    host.ipc_mode = host.ipc_mode or preset.ipc_mode
    host.cgroupns_mode = host.cgroupns_mode or ("" if host.privileged else preset.cgroupns_mode)
    host.runtime = host.runtime or preset.runtime
    if not normalised_mode(host.network_mode).startswith("container:"):
        host.dns = host.dns or [*preset.dns] or host.dns
        host.dns_options = host.dns_options or [*preset.dns_options] or host.dns_options
        host.dns_search = host.dns_search or [*preset.dns_search] or host.dns_search
    if preset.no_new_privileges and not _says(host, "no-new-privileges"):
        host.security_opt = [*(host.security_opt or ()), "no-new-privileges"]
    if preset.seccomp_profile and not host.privileged and not _says(host, "seccomp"):
        host.security_opt = [*(host.security_opt or ()), f"seccomp={preset.seccomp_profile}"]


def _says(host: HostConfig, option: str) -> bool:
    return any(text.startswith(option) for text in host.security_opt or ())
