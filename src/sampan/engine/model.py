"""What a client asks for, in Docker's shape: the bodies of create, update, exec and their parts.

The engine keeps these values as they came, so that inspect shows what was asked. Names in JSON are
Docker's; attributes are the same words in snake case. Every field of API 1.55 stands here, and the
fields that older versions had; whether an option is built is decided in `engine.validation`.
Source: engine-api-v1.55.yaml, definitions ContainerConfig, HostConfig, NetworkingConfig.
"""

from __future__ import annotations

from typing import Any

import msgspec

# JSON names that are not the attribute's words with capitals.
SPELLINGS = {
    "blkio_device_read_iops": "BlkioDeviceReadIOps",
    "blkio_device_write_iops": "BlkioDeviceWriteIOps",
    "container_id_file": "ContainerIDFile",
    "endpoint_id": "EndpointID",
    "dns_names": "DNSNames",
    "global_ipv6_address": "GlobalIPv6Address",
    "global_ipv6_prefix_len": "GlobalIPv6PrefixLen",
    "host_ip": "HostIp",
    "io_maximum_bandwidth": "IOMaximumBandwidth",
    "io_maximum_iops": "IOMaximumIOps",
    "ip_address": "IPAddress",
    "ip_prefix_len": "IPPrefixLen",
    "ipam_config": "IPAMConfig",
    "ipv4_address": "IPv4Address",
    "ipv6_address": "IPv6Address",
    "ipv6_gateway": "IPv6Gateway",
    "link_local_ips": "LinkLocalIPs",
    "network_id": "NetworkID",
    "device_ids": "DeviceIDs",
    "uts_mode": "UTSMode",
}


def spelling(attribute: str) -> str:
    """Docker's JSON name of an attribute."""
    known = SPELLINGS.get(attribute)
    return known or "".join(word.capitalize() for word in attribute.split("_"))


class Model(msgspec.Struct, rename=spelling, kw_only=True, forbid_unknown_fields=True):
    """Base of all shapes: Docker's names, unknown fields refused by name."""


class HealthConfig(Model):
    """`Test` is `[]` (inherit), `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`; times in ns."""

    test: list[str] = []
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


class ContainerConfig(Model):
    """The portable half of a container: what an image may preset."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, Any]] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] = []
    cmd: list[str] | str | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class WeightDevice(Model):
    path: str = ""
    weight: int = 0


class ThrottleDevice(Model):
    path: str = ""
    rate: int = 0


class DeviceMapping(Model):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(Model):
    driver: str = ""
    count: int = 0
    device_ids: list[str] = []
    capabilities: list[list[str]] = []
    options: dict[str, str] = {}


class Ulimit(Model):
    name: str = ""
    soft: int = 0
    hard: int = 0


class LogConfig(Model):
    type: str = ""
    config: dict[str, str] = {}


class RestartPolicy(Model):
    name: str = ""
    maximum_retry_count: int = 0


class PortBinding(Model):
    host_ip: str = ""
    host_port: str = ""


class BindOptions(Model):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(Model):
    name: str = ""
    options: dict[str, str] = {}


class VolumeOptions(Model):
    no_copy: bool = False
    labels: dict[str, str] = {}
    driver_config: DriverConfig | None = None
    subpath: str = ""


class ImageOptions(Model):
    subpath: str = ""


class TmpfsOptions(Model):
    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] = []


class MountSpec(Model):
    """An entry of `HostConfig.Mounts` (`--mount`)."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    cluster_options: dict[str, Any] | None = None


class Resources(Model):
    """Limits, and what is counted among them: the part of HostConfig that an update has, too."""

    cpu_shares: int = 0
    memory: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = None
    blkio_device_write_iops: list[ThrottleDevice] | None = None
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    kernel_memory: int = 0
    kernel_memory_tcp: int = msgspec.field(default=0, name="KernelMemoryTCP")
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    nano_cpus: int = 0
    oom_kill_disable: bool | None = None
    init: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = 0
    io_maximum_bandwidth: int = 0


class HostConfig(Resources):
    """The half of a container that is about this machine."""

    binds: list[str] | None = None
    container_id_file: str = ""
    log_config: LogConfig = msgspec.field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    mounts: list[MountSpec] | None = None
    console_size: tuple[int, int] = (0, 0)
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    capabilities: list[str] | None = None  # API 1.40 only
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = ""
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None


class UpdateConfig(Resources):
    """The body of `POST /containers/{id}/update`; zero and empty mean "as it is".

    Sampan's own: `annotations`, those of `engine.terms` that can change; `publish_add` and
    `publish_remove`, by container port as `port_bindings` (no binding at all to remove: all of it).
    """

    annotations: dict[str, str] | None = None
    publish_add: dict[str, list[PortBinding] | None] | None = None
    publish_remove: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)


class EndpointIpamConfig(Model):
    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: list[str] | None = None


class EndpointConfig(Model):
    """A wish for one network. The fields that only answers carry are accepted and not used."""

    ipam_config: EndpointIpamConfig | None = None
    links: list[str] | None = None
    mac_address: str = ""
    aliases: list[str] | None = None
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = ""
    endpoint_id: str = ""
    gateway: str = ""
    ip_address: str = ""
    ip_prefix_len: int = 0
    ipv6_gateway: str = ""
    global_ipv6_address: str = ""
    global_ipv6_prefix_len: int = 0
    dns_names: list[str] | None = None


class NetworkingConfig(Model):
    endpoints_config: dict[str, EndpointConfig | None] | None = None


class CreateRequest(ContainerConfig):
    """The body of `POST /containers/create`: a ContainerConfig with the other halves inside."""

    host_config: HostConfig = msgspec.field(default_factory=HostConfig)
    networking_config: NetworkingConfig = msgspec.field(default_factory=NetworkingConfig)

    def container_config(self) -> ContainerConfig:
        """The ContainerConfig part alone."""
        return ContainerConfig(
            **{name: getattr(self, name) for name in ContainerConfig.__struct_fields__}
        )


class ExecConfig(Model):
    """The body of `POST /containers/{id}/exec`."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach: bool = False
    detach_keys: str = ""
    env: list[str] = []
    working_dir: str = ""
    cmd: list[str] | str | None = None
    container: str = ""  # sent by old clients
    timeout: int = 0  # ns; Sampan's own, 0 for none
