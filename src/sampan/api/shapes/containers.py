"""Containers as `inspect` and the list show them. Source: engine-api-v1.55.yaml,
ContainerInspectResponse and ContainerSummary."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from sampan.api.shapes.durations import human_duration
from sampan.engine import bound_ports
from sampan.engine.container import Container, State, Status
from sampan.engine.defaults import MASKED_PATHS, READONLY_PATHS
from sampan.engine.health import Health, HealthStatus
from sampan.engine.model import ContainerConfig, HostConfig, Model
from sampan.oci.go_time import ZERO_TIME_NS, format_time

# Left out while they say nothing: Go's `omitempty`.
OMITTED_IN_CONFIG = frozenset(
    {
        "ArgsEscaped",
        "ExposedPorts",
        "Healthcheck",
        "MacAddress",
        "NetworkDisabled",
        "Shell",
        "StopSignal",
        "StopTimeout",
    }
)
OMITTED_IN_HOST_CONFIG = frozenset(
    {
        "Annotations",
        "Capabilities",
        "Init",
        "KernelMemoryTCP",
        "Mounts",
        "Runtime",
        "StorageOpt",
        "Sysctls",
        "Tmpfs",
    }
)
# Go's empty list, where others are null.
EMPTY_LISTS_IN_HOST_CONFIG = (
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeightDevice",
    "Devices",
    "Dns",
    "DnsOptions",
    "DnsSearch",
)


def inspected(
    container: Container,
    network_settings: dict[str, Any],
    layers: dict[str, str],
    size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """The answer of `GET /containers/{id}/json`.

    `layers` are the directories of its overlay; `size` is (writable layer, with image) in bytes.
    """
    record = container.record
    directory = container.directory
    has_files = bool(record.state.started_ns)
    document = {
        "Id": record.id,
        "Created": format_time(record.created_ns),
        "Path": record.path,
        "Args": record.args,
        "State": state(record.state),
        "Image": record.image_id,
        "ResolvConfPath": f"{directory}/resolv.conf" if has_files else "",
        "HostnamePath": f"{directory}/hostname" if has_files else "",
        "HostsPath": f"{directory}/hosts" if has_files else "",
        "LogPath": container.log_path if container.log_driver == "json-file" else "",
        "Name": f"/{record.name}",
        "RestartCount": record.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": record.apparmor_profile,
        "ExecIDs": list(container.exec_ids) or None,
        "HostConfig": host_config(record.host_config),
        "GraphDriver": {"Name": "overlay2", "Data": layers},
        "Mounts": mounts(container),
        "Config": config(record.config),
        "NetworkSettings": network_settings,
    }
    if size is not None:
        document["SizeRw"], document["SizeRootFs"] = size
    return document


def state(state: State) -> dict[str, Any]:
    """`State`. A container that is paused or waits for its restart counts as running."""
    document: dict[str, Any] = {
        "Status": state.status.value,
        "Running": state.counts_as_running,
        "Paused": state.status is Status.PAUSED,
        "Restarting": state.restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status is Status.DEAD,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": moment(state.started_ns),
        "FinishedAt": moment(state.finished_ns),
    }
    if state.health is not None:
        document["Health"] = health(state.health)
    return document


def health(health: Health) -> dict[str, Any]:
    """`State.Health`: the present status and the last checks."""
    return {
        "Status": health.status.value,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": moment(result.start_ns),
                "End": moment(result.end_ns),
                "ExitCode": result.exit_code,
                "Output": result.output,
            }
            for result in health.log
        ],
    }


def moment(unix_ns: int) -> str:
    """RFC 3339; 0 is "never", which Go spells as the year 1."""
    return format_time(unix_ns or ZERO_TIME_NS)


def config(config: ContainerConfig) -> dict[str, Any]:
    """`Config`, without what Go leaves out."""
    document = _plain(config)
    if (check := document["Healthcheck"]) is not None:
        check = {field: value for field, value in check.items() if value}
    for name in OMITTED_IN_CONFIG:
        if document[name] in (None, "", False, {}, []):
            del document[name]
    if check is not None:
        document["Healthcheck"] = check
    for name in ("Cmd", "Entrypoint"):
        if isinstance(document[name], str):
            document[name] = [document[name]]
    return document


def host_config(host: HostConfig) -> dict[str, Any]:
    """`HostConfig`, without what Go leaves out and with the paths that are masked by default."""
    document = _plain(host)
    for name in OMITTED_IN_HOST_CONFIG:
        if document[name] in (None, "", 0, {}, []) and document[name] is not False:
            del document[name]
    for name in EMPTY_LISTS_IN_HOST_CONFIG:
        document[name] = document[name] or []
    for mount in document.get("Mounts", ()):
        for name in [name for name, value in mount.items() if not value]:
            del mount[name]
    if not host.privileged:
        document["MaskedPaths"] = _default(host.masked_paths, MASKED_PATHS)
        document["ReadonlyPaths"] = _default(host.readonly_paths, READONLY_PATHS)
    return document


def mounts(container: Container) -> list[dict[str, Any]]:
    """`Mounts`: the mount points that were asked for; `--tmpfs` has its place in HostConfig."""
    short_tmpfs = container.host_config.tmpfs or {}
    return [
        {
            "Type": mount.type,
            **({"Name": mount.name} if mount.name else {}),
            "Source": mount.source,
            "Destination": mount.destination,
            **({"Driver": "local"} if mount.type == "volume" else {}),
            "Mode": mount.mode,
            "RW": mount.rw,
            "Propagation": mount.propagation,
        }
        for mount in container.record.mounts
        if not (mount.type == "tmpfs" and mount.destination in short_tmpfs)
    ]


def summary(
    container: Container,
    network_settings: dict[str, Any],
    *,
    image: str,
    links: Sequence[str] = (),
    now_ns: int | None = None,
    size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """An entry of `GET /containers/json`; `image` is the name to show for its image, `links` are what
    it is called by containers that are linked to it."""
    record = container.record
    document: dict[str, Any] = {
        "Id": record.id,
        "Names": sorted([f"/{record.name}", *links]),
        "Image": image,
        "ImageID": record.image_id,
        "Command": command(record.path, record.args),
        "Created": record.created_ns // 1_000_000_000,
        "Ports": ports(container),
        "Labels": record.config.labels,
        "State": record.state.status.value,
        "Status": status_text(record.state, now_ns if now_ns is not None else time.time_ns()),
        "HostConfig": {"NetworkMode": record.host_config.network_mode},
        "NetworkSettings": {"Networks": network_settings.get("Networks", {})},
        "Mounts": mounts(container),
        "Health": {
            "Status": record.state.health.status.value if record.state.health else "none",
            "FailingStreak": record.state.health.failing_streak if record.state.health else 0,
        },
    }
    if record.host_config.annotations:
        document["HostConfig"]["Annotations"] = record.host_config.annotations
    if size is not None:
        document["SizeRw"], document["SizeRootFs"] = size
    return document


def command(path: str, arguments: list[str]) -> str:
    """Path and arguments in one line; one with a space is quoted."""
    shown = [f"'{text}'" if " " in text else text for text in arguments]
    return " ".join([path, *shown])


def ports(container: Container) -> list[dict[str, Any]]:
    """`Ports`: published and exposed ports of a running container on a network of its own."""
    if not container.state.running or not any(
        endpoint.address or endpoint.ipv6_address
        for endpoint in container.record.endpoints.values()
    ):
        return []
    return bound_ports.listed(container)


def status_text(state: State, now_ns: int) -> str:
    """`Up 5 minutes`, `Exited (0) 3 hours ago`, as `docker ps` shows it."""
    match state.status:
        case Status.RUNNING:
            return f"Up {human_duration(now_ns - state.started_ns)}{_health_text(state.health)}"
        case Status.PAUSED:
            return f"Up {human_duration(now_ns - state.started_ns)} (Paused)"
        case Status.RESTARTING:
            ago = human_duration(now_ns - state.finished_ns)
            return f"Restarting ({state.exit_code}) {ago} ago"
        case Status.REMOVING:
            return "Removal In Progress"
        case Status.DEAD:
            return "Dead"
        case Status.CREATED:
            return "Created"
        case Status.EXITED:
            if not state.finished_ns:
                return ""
            return f"Exited ({state.exit_code}) {human_duration(now_ns - state.finished_ns)} ago"


def _health_text(health: Health | None) -> str:
    if health is None:
        return ""
    starting = health.status is HealthStatus.STARTING
    return f" ({'health: starting' if starting else health.status.value})"


def _plain(model: Model) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(model)
    return document


def _default(given: list[str] | None, paths: tuple[str, ...]) -> list[str]:
    return list(paths) if given is None else given
