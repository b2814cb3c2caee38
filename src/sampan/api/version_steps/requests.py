"""Requests of older versions, brought up to the newest: what a version did not know yet is not meant,
what it still knew and the newest does not is put in its new place.

Steps change the decoded value in place, the oldest first, and may give back a warning for the answer.
`MOVED` comes before: names that no model knows any longer, in the plain document.
"""

from __future__ import annotations

from typing import Any

from sampan.api.version_steps.step import Before, Document, Since, Version
from sampan.engine.model import CreateRequest, ExecConfig, HostConfig, UpdateConfig
from sampan.errors import InvalidArgument

MAC_ADDRESS_WARNING = (
    "The container-wide MacAddress field is now deprecated. It should be specified in "
    "EndpointsConfig instead."
)

# POST /containers/create: in the plain document

_OF_CONFIG_BEFORE_1_19 = ("Memory", "MemorySwap", "CpuShares", "CpusetCpus", "VolumeDriver")


def create_with_limits_in_host_config(document: Document) -> None:
    """What stood beside the image's fields belongs to this machine; what HostConfig says counts more."""
    moved = {name: document.pop(name) for name in _OF_CONFIG_BEFORE_1_19 if name in document}
    if cpuset := document.pop("Cpuset", None):
        moved.setdefault("CpusetCpus", cpuset)
    document.pop("PortSpecs", None)
    if not any(moved.values()):
        return
    host = document.get("HostConfig")
    if host is None:
        host = document["HostConfig"] = {}
    if isinstance(host, dict):
        for name, value in moved.items():
            host[name] = host.get(name) or value


def create_without_lxc(document: Document) -> None:
    """Options of an execution driver that is no more."""
    host_without_lxc(document.get("HostConfig"))


def host_without_lxc(document: Any) -> None:
    if isinstance(document, dict):
        document.pop("LxcConf", None)


MOVED: dict[str, tuple[Before[Document], ...]] = {
    "create": (
        Before((1, 22), create_without_lxc),
        Before((1, 24), create_with_limits_in_host_config),
    ),
    "start": (Before((1, 22), host_without_lxc),),
}

# POST /containers/create, decoded


def create_with_whole_host_name(request: CreateRequest) -> None:
    """The host name was `Hostname.Domainname`; clients cut what they were given at the first dot."""
    if request.hostname and request.domainname:
        request.hostname = f"{request.hostname}.{request.domainname}"
        request.domainname = ""


def create_without_removal(request: CreateRequest) -> None:
    request.host_config.auto_remove = False


def create_with_old_defaults(request: CreateRequest) -> None:
    """Memory of an IPC namespace could be shared with others, unless said otherwise."""
    request.host_config.ipc_mode = request.host_config.ipc_mode or "shareable"
    request.host_config.kernel_memory_tcp = 0
    for mount in request.host_config.mounts or ():
        if mount.bind_options is not None:
            mount.bind_options.non_recursive = False


def create_in_cgroup_namespace_of_host(request: CreateRequest) -> None:
    request.host_config.cgroupns_mode = request.host_config.cgroupns_mode or "host"


def create_without_making_sources(request: CreateRequest) -> None:
    """Bind sources were not made, and options of other kinds of mount not looked at."""
    request.host_config.console_size = (0, 0)
    for mount in request.host_config.mounts or ():
        if mount.bind_options is not None:
            mount.bind_options.create_mountpoint = False
        if mount.type != "volume":
            mount.volume_options = None
        if mount.type != "tmpfs":
            mount.tmpfs_options = None
        if mount.type != "bind":
            mount.bind_options = None


def create_without_kernel_memory(request: CreateRequest) -> None:
    request.host_config.kernel_memory = 0


def create_without_annotations(request: CreateRequest) -> None:
    request.host_config.annotations = None


def create_with_one_network(request: CreateRequest) -> None:
    """One network, one MAC address for the container, no checks that begin in a hurry.

    Raises:
        InvalidArgument: dockerd's texts.
    """
    if request.healthcheck is not None:
        request.healthcheck.start_interval = 0
    for mount in request.host_config.mounts or ():
        if (options := mount.bind_options) is not None:
            options.read_only_non_recursive = False
            if options.read_only_force_recursive:
                raise InvalidArgument("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
    endpoints = request.networking_config.endpoints_config or {}
    if len(endpoints) > 1:
        raise InvalidArgument(
            f"Container cannot be created with multiple network endpoints: {', '.join(endpoints)}"
        )
    for endpoint in endpoints.values():
        if endpoint is not None:
            endpoint.mac_address = ""


def create_without_subpath(request: CreateRequest) -> None:
    for mount in request.host_config.mounts or ():
        if mount.volume_options is not None and mount.volume_options.subpath:
            raise InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")


def create_without_tmpfs_options(request: CreateRequest) -> None:
    for mount in request.host_config.mounts or ():
        if mount.tmpfs_options is not None:
            mount.tmpfs_options.options = []


def create_without_image_mounts(request: CreateRequest) -> None:
    for mount in request.host_config.mounts or ():
        if mount.type == "image":
            raise InvalidArgument('Mount type "Image" needs API v1.48 or newer')
    for endpoint in (request.networking_config.endpoints_config or {}).values():
        if endpoint is not None:
            endpoint.gw_priority = 0


def create_with_one_address(request: CreateRequest) -> str | None:
    """The container's MAC address has to be that of its network's endpoint, and is said to be of old.

    Raises:
        InvalidArgument: there are two.
    """
    wanted = request.mac_address
    if not wanted:
        return None
    endpoints = request.networking_config.endpoints_config or {}
    mode = request.host_config.network_mode or "default"
    names = (mode, "bridge") if mode == "default" else (mode,)
    for name in names:
        endpoint = endpoints.get(name)
        if endpoint is not None and endpoint.mac_address not in ("", wanted):
            raise InvalidArgument(
                "conflicting MAC addresses: the container-wide MAC address must match the "
                "endpoint-specific MAC address for the main network, or be left empty"
            )
    return MAC_ADDRESS_WARNING


def create_without_mac_address(request: CreateRequest) -> None:
    request.mac_address = ""
    request.host_config.kernel_memory_tcp = 0


# POST /containers/{id}/start


def start_with_old_defaults(host: HostConfig) -> None:
    host.ipc_mode = host.ipc_mode or "shareable"
    host.cgroupns_mode = host.cgroupns_mode or "host"


# POST /containers/{id}/update


def update_without_policy(change: UpdateConfig) -> None:
    change.restart_policy.name, change.restart_policy.maximum_retry_count = "", 0


def update_without_pids_limit(change: UpdateConfig) -> None:
    """Clients send zero for it."""
    change.pids_limit = None


def update_without_kernel_memory(change: UpdateConfig) -> None:
    change.kernel_memory = 0


def update_without_kernel_memory_tcp(change: UpdateConfig) -> None:
    change.kernel_memory_tcp = 0


# POST /containers/{id}/exec


def exec_without_environment(config: ExecConfig) -> None:
    config.env = []


def exec_without_directory(config: ExecConfig) -> None:
    config.working_dir = ""


def exec_without_size(config: ExecConfig) -> None:
    config.console_size = None


Steps = tuple[Before[Any] | Since[Any], ...]

REQUESTS: dict[str, Steps] = {
    "create": (
        Before((1, 23), create_with_whole_host_name),
        Before((1, 25), create_without_removal),
        Before((1, 40), create_with_old_defaults),
        Before((1, 41), create_in_cgroup_namespace_of_host),
        Before((1, 42), create_without_making_sources),
        Since((1, 42), create_without_kernel_memory),
        Before((1, 43), create_without_annotations),
        Before((1, 44), create_with_one_network),
        Before((1, 45), create_without_subpath),
        Before((1, 46), create_without_tmpfs_options),
        Before((1, 48), create_without_image_mounts),
        Since((1, 52), create_without_mac_address),
        Since((1, 44), create_with_one_address),
    ),
    "start": (Before((1, 24), start_with_old_defaults),),
    "update": (
        Before((1, 23), update_without_policy),
        Before((1, 40), update_without_pids_limit),
        Since((1, 42), update_without_kernel_memory),
        Since((1, 52), update_without_kernel_memory_tcp),
    ),
    "exec": (
        Before((1, 25), exec_without_environment),
        Before((1, 35), exec_without_directory),
        Before((1, 42), exec_without_size),
    ),
}


def moves(kind: str, version: Version | None) -> list[Before[Document]]:
    """The steps for the plain document; a path without a version gets all, as the oldest."""
    return [step for step in MOVED.get(kind, ()) if version is None or step.concerns(version)]
