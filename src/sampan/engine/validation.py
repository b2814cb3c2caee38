"""What a create request may say: pure checks, and the merge with what the image presets.

An option that is not built is refused by name, so that nobody believes in an isolation, a limit or
a port that is not there.
"""

from __future__ import annotations

from collections.abc import Callable

from sampan.engine import defaults, devices, health_probes, spec
from sampan.engine.health import check_config, merged
from sampan.engine.log_options import check_log_config
from sampan.engine.model import ContainerConfig, HealthConfig, HostConfig
from sampan.engine.port_wishes import check_bindings
from sampan.engine.resources import Machine, check_limits, check_ulimits
from sampan.engine.restarts import check_policy
from sampan.engine.runtimes import OWN
from sampan.engine.security import effective_capabilities, parse_security_options
from sampan.engine.sharing import donor_name
from sampan.engine.signals import signal_number
from sampan.engine.sysctls import check_sysctls
from sampan.errors import Conflict, InvalidArgument, Unsupported
from sampan.network.files import parse_extra_host
from sampan.oci.image_config import RunDefaults

SOME_ADDRESS = "0.0.0.0"  # what host-gateway means is known at the start
MAXIMUM_HOSTNAME = 64  # HOST_NAME_MAX, sethostname(2)

# JSON name → is it asked for? Each row leaves when its issue lands.
NOT_BUILT: dict[str, Callable[[ContainerConfig, HostConfig], object]] = {
    "HostConfig.DeviceRequests": lambda _, host: host.device_requests,
    "HostConfig.Cgroup": lambda _, host: host.cgroup,
    "HostConfig.Capabilities": lambda _, host: host.capabilities,
}


def check_request(config: ContainerConfig, host: HostConfig, machine: Machine) -> list[str]:
    """Check what the client sent, before the image is merged in; return warnings.

    Raises:
        InvalidArgument: a value that cannot be meant.
        Conflict: two that contradict each other.
        Unsupported: an option that is not built.
    """
    for name, asked in NOT_BUILT.items():
        if asked(config, host):
            raise Unsupported(f"{name} is not built yet")
    _check_config(config)
    _check_modes(config, host)
    check_policy(host)
    warnings = check_limits(host, machine)
    check_ulimits(host.ulimits)
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    check_log_config(host.log_config)
    for entry in host.extra_hosts or ():
        parse_extra_host(entry, SOME_ADDRESS)
    if host.isolation not in ("", "default"):
        raise InvalidArgument(
            f"Invalid isolation: \"{host.isolation}\" - linux only supports 'default'"
        )
    effective_capabilities(host)
    parse_security_options(host.security_opt)
    check_sysctls(host)
    check_bindings(host.port_bindings or {})
    for rule in host.device_cgroup_rules or ():
        devices.parse_rule(rule)
    return warnings


def _check_config(config: ContainerConfig) -> None:
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute "
            "path"
        )
    if len(config.hostname.encode()) > MAXIMUM_HOSTNAME:
        raise InvalidArgument(
            f"invalid hostname {config.hostname}: longer than {MAXIMUM_HOSTNAME} bytes"
        )
    for entry in config.env:
        if not entry or entry.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {entry}")
    _refuse_nul(config)
    _check_health(config.healthcheck)
    if config.stop_signal:
        signal_number(config.stop_signal)
    if config.stop_timeout is not None and config.stop_timeout < -1:
        raise InvalidArgument(f"invalid stop timeout: {config.stop_timeout}")


def _refuse_nul(config: ContainerConfig) -> None:
    """The kernel takes no text with a NUL in it, neither the client's nor the image's."""
    texts = [
        *config.env,
        *as_list(config.cmd),
        *as_list(config.entrypoint),
        *(config.volumes or ()),
        config.hostname,
        config.domainname,
        config.user,
        config.working_dir,
    ]
    if any("\0" in text for text in texts):
        raise InvalidArgument("a NUL byte cannot be part of a process's arguments or environment")


def _check_modes(config: ContainerConfig, host: HostConfig) -> None:
    kind, separator, other = host.network_mode.partition(":")
    if kind == "container" and separator:
        if not other:
            raise InvalidArgument("invalid container format container:<name|id>")
        if config.hostname:
            raise InvalidArgument("conflicting options: hostname and the network mode")
        if host.port_bindings or host.publish_all_ports:
            raise InvalidArgument(
                "conflicting options: port publishing and the container type network mode"
            )
        if config.exposed_ports:
            raise InvalidArgument(
                "conflicting options: port exposing and the container type network mode"
            )
        if host.dns:
            raise InvalidArgument("conflicting options: dns and the network mode")
        if host.extra_hosts:
            raise InvalidArgument(
                "conflicting options: custom host-to-IP mapping and the network mode"
            )
        if config.mac_address:
            raise InvalidArgument("conflicting options: mac-address and the network mode")
    if host.uts_mode not in ("", "host"):
        raise InvalidArgument(f"invalid UTS mode: {host.uts_mode}")
    if host.uts_mode == "host" and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host.userns_mode not in ("", "host"):
        raise InvalidArgument(f"invalid USER mode: {host.userns_mode}")
    if host.cgroupns_mode not in ("", "private", "host"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    modes = ("", "private", "host", "none", "shareable")
    if host.ipc_mode not in modes and not donor_name(host.ipc_mode):
        raise InvalidArgument(f"invalid IPC mode: {host.ipc_mode}")
    if host.pid_mode not in ("", "host") and not donor_name(host.pid_mode):
        raise InvalidArgument(f"invalid PID mode: {host.pid_mode}")


def fill_in(host: HostConfig, cgroup_version: int) -> None:
    """Put in what the client left to the engine, so that inspect shows it, as dockerd does."""
    host.log_config.type = host.log_config.type or "json-file"
    host.shm_size = host.shm_size or defaults.SHM_BYTES
    host.ipc_mode = host.ipc_mode or "private"
    host.runtime = host.runtime or OWN
    host.restart_policy.name = host.restart_policy.name or "no"
    private = spec.cgroup_namespace_is_private(host, cgroup_version)
    host.cgroupns_mode = "private" if private else "host"
    host.pids_limit = host.pids_limit or None
    if host.memory_swappiness == -1:
        host.memory_swappiness = None
    if host.oom_kill_disable is None and cgroup_version == 1:
        host.oom_kill_disable = False
    if host.memory and not host.memory_swap:
        host.memory_swap = 2 * host.memory
    if host.privileged:
        host.masked_paths, host.readonly_paths = None, None
    else:
        if host.masked_paths is None:
            host.masked_paths = [*defaults.MASKED_PATHS]
        if host.readonly_paths is None:
            host.readonly_paths = [*defaults.READONLY_PATHS]


def as_list(value: list[str] | str | None) -> list[str]:
    """A command as a list; old clients send one word as a bare text."""
    return [value] if isinstance(value, str) else list(value or ())


def merge_image(config: ContainerConfig, image: RunDefaults) -> ContainerConfig:
    """Fill in from the image what the client left open; docker's rules.

    An entrypoint from the client drops the image's command. `[""]` as entrypoint means none.

    Raises:
        InvalidArgument: there is nothing to run, or a text has a NUL in it.
    """
    entrypoint, command = as_list(config.entrypoint), as_list(config.cmd)
    if not entrypoint and config.entrypoint is None:
        if not command:
            command = as_list(image.cmd)
        entrypoint = as_list(image.entrypoint)
    if entrypoint == [""]:
        entrypoint = []
    if not entrypoint and not command:
        raise InvalidArgument("No command specified")
    config.entrypoint, config.cmd = entrypoint or None, command or None
    config.env = merge_environment(config.env, image.env or [])
    config.labels = {**(image.labels or {}), **config.labels}
    config.exposed_ports = {**(image.exposed_ports or {}), **(config.exposed_ports or {})} or None
    config.volumes = {**(image.volumes or {}), **(config.volumes or {})} or None
    config.user = config.user or image.user
    config.working_dir = config.working_dir or image.working_dir
    config.stop_signal = config.stop_signal or image.stop_signal
    config.shell = config.shell or image.shell
    config.on_build = config.on_build or image.on_build
    config.healthcheck = merged(config.healthcheck, _preset_check(image))
    _check_health(config.healthcheck)  # an image may say anything
    _refuse_nul(config)
    return config


def _check_health(check: HealthConfig | None) -> None:
    check_config(check)
    health_probes.target(check)


def _preset_check(image: RunDefaults) -> HealthConfig | None:
    check = image.healthcheck
    if check is None:
        return None
    return HealthConfig(
        test=check.test or [],
        interval=check.interval,
        timeout=check.timeout,
        retries=check.retries,
        start_period=check.start_period,
        start_interval=check.start_interval,
    )


def merge_environment(wanted: list[str], preset: list[str]) -> list[str]:
    """The user's entries first, then those of the image that they do not name."""
    names = {entry.partition("=")[0] for entry in wanted}
    return [*wanted, *(entry for entry in preset if entry.partition("=")[0] not in names)]


def checked_rename(name: str, current: str = "") -> None:
    """Refuse a rename to nothing, or to the `current` name, with dockerd's texts."""
    if not name.removeprefix("/"):
        raise InvalidArgument("Neither old nor new names may be empty")
    if name.removeprefix("/") == current:
        raise Conflict("Renaming a container with the same name as its current name")
