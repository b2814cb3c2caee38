"""Answers about containers: inspect, list, stats, wait."""

from __future__ import annotations

from typing import Any

from sampan.api.version_steps.step import (
    AnswerSteps,
    Before,
    Document,
    Since,
    drop,
    drop_empty,
)

LEGACY_NETWORK_FIELDS = (
    "Bridge",
    "HairpinMode",
    "LinkLocalIPv6Address",
    "LinkLocalIPv6PrefixLen",
    "SecondaryIPAddresses",
    "SecondaryIPv6Addresses",
    "EndpointID",
    "Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
    "MacAddress",
)

# Networks that give no names: aliases are those of the others.
_WITHOUT_NAMES = frozenset({"bridge", "host", "none", "default"})


# GET /containers/{id}/json


def without_legacy_network(document: Document) -> None:
    drop(document["NetworkSettings"], *LEGACY_NETWORK_FIELDS)


def without_kernel_memory_tcp(document: Document) -> None:
    drop(document["HostConfig"], "KernelMemoryTCP")


def without_empty_on_build(document: Document) -> None:
    drop_empty(document["Config"], "OnBuild")


def without_mac_address(document: Document) -> None:
    """A container has none, its endpoints have."""
    drop(document["Config"], "MacAddress")


def without_storage(document: Document) -> None:
    drop(document, "Storage")


def without_manifest_descriptor(document: Document) -> None:
    drop(document, "ImageManifestDescriptor")


def without_gateway_priority(document: Document) -> None:
    for endpoint in _endpoints(document).values():
        drop(endpoint, "GwPriority")


def with_short_id_among_aliases(document: Document) -> None:
    for name, endpoint in _endpoints(document).items():
        if name not in _WITHOUT_NAMES:
            short = document["Id"][:12]
            aliases = endpoint.get("Aliases") or []
            endpoint["Aliases"] = aliases if short in aliases else [*aliases, short]


def without_dns_names(document: Document) -> None:
    for endpoint in _endpoints(document).values():
        drop(endpoint, "DNSNames")


def without_start_interval(document: Document) -> None:
    drop(document["Config"].get("Healthcheck"), "StartInterval")


def without_read_only_depth(document: Document) -> None:
    for mount in document["HostConfig"].get("Mounts") or ():
        drop(mount.get("BindOptions"), "ReadOnlyNonRecursive", "ReadOnlyForceRecursive")


def without_annotations(document: Document) -> None:
    drop(document["HostConfig"], "Annotations")


def without_kernel_memory(document: Document) -> None:
    """Since 1.42 it is left out where it is not set."""
    drop_empty(document["HostConfig"], "KernelMemory")


def with_exited_for_removing(document: Document) -> None:
    """That a container is being removed was no status."""
    if document["State"]["Status"] == "removing":
        document["State"]["Status"] = "exited"


def with_flat_network(document: Document) -> None:
    """Settings of one network only, and in `Config` what became the host's business."""
    drop(document["NetworkSettings"], "Networks")
    config = document["Config"]
    config.setdefault("MacAddress", "")
    config.setdefault("NetworkDisabled", False)
    config.setdefault("ExposedPorts", None)
    config["VolumeDriver"] = document["HostConfig"].get("VolumeDriver", "")


def with_volumes_for_mounts(document: Document) -> None:
    """Sources by target, and limits that were part of `Config`."""
    mounts = document.pop("Mounts")
    document["Volumes"] = {mount["Destination"]: mount["Source"] for mount in mounts}
    document["VolumesRW"] = {mount["Destination"]: mount["RW"] for mount in mounts}
    config, host = document["Config"], document["HostConfig"]
    config["Memory"], config["MemorySwap"] = host["Memory"], host["MemorySwap"]
    config["CpuShares"], config["Cpuset"] = host["CpuShares"], host["CpusetCpus"]


def _endpoints(document: Document) -> dict[str, dict[str, Any]]:
    endpoints: dict[str, dict[str, Any]] = document["NetworkSettings"].get("Networks") or {}
    return endpoints


# GET /containers/json


def summary_without_health(document: Document) -> None:
    drop(document, "Health")


def summary_without_annotations(document: Document) -> None:
    drop(document["HostConfig"], "Annotations")


def summary_without_status_of_removal(document: Document) -> None:
    if document["State"] == "removing":
        document["State"] = "exited"


def summary_without_state_and_mounts(document: Document) -> None:
    drop(document, "State", "Mounts")


def summary_without_networks(document: Document) -> None:
    drop(document, "NetworkSettings")


def summary_without_image_id(document: Document) -> None:
    drop(document, "ImageID")


def summary_without_labels(document: Document) -> None:
    drop(document, "Labels")


# GET /containers/{id}/stats

_COUNTERS = ("bytes", "packets", "errors", "dropped")


def stats_without_system(document: Document) -> None:
    drop(document, "os_type")


def stats_without_online_cpus(document: Document) -> None:
    drop(document["cpu_stats"], "online_cpus")
    drop(document["precpu_stats"], "online_cpus")


def stats_without_pids(document: Document) -> None:
    drop(document, "pids_stats")


def stats_with_one_network(document: Document) -> None:
    """The sum of all, and no word of whose they are."""
    networks = (document.pop("networks", None) or {}).values()
    document["network"] = {
        f"{way}_{counter}": sum(network.get(f"{way}_{counter}", 0) for network in networks)
        for way in ("rx", "tx")
        for counter in _COUNTERS
    }
    drop(document, "name", "id")


# POST /containers/{id}/wait


def wait_without_empty_error(document: Document) -> None:
    if document.get("Error") is None:
        drop(document, "Error")


def wait_without_error(document: Document) -> None:
    drop(document, "Error")


# POST /containers/create, /containers/{id}/update


def warnings_as_null(document: Document) -> None:
    document["Warnings"] = document.get("Warnings") or None


ANSWERS: AnswerSteps = {
    "container": (
        Since((1, 52), without_legacy_network),
        Since((1, 52), without_kernel_memory_tcp),
        Since((1, 52), without_empty_on_build),
        Since((1, 52), without_mac_address),
        Before((1, 52), without_storage),
        Before((1, 48), without_manifest_descriptor),
        Before((1, 48), without_gateway_priority),
        Before((1, 45), with_short_id_among_aliases),
        Before((1, 44), without_dns_names),
        Before((1, 44), without_start_interval),
        Before((1, 44), without_read_only_depth),
        Before((1, 43), without_annotations),
        Since((1, 42), without_kernel_memory),
        Before((1, 25), with_exited_for_removing),
        Before((1, 21), with_flat_network),
        Before((1, 20), with_volumes_for_mounts),
    ),
    "container summary": (
        Before((1, 52), summary_without_health),
        Before((1, 48), without_manifest_descriptor),
        Before((1, 48), without_gateway_priority),
        Before((1, 46), summary_without_annotations),
        Before((1, 44), without_dns_names),
        Before((1, 25), summary_without_status_of_removal),
        Before((1, 23), summary_without_state_and_mounts),
        Before((1, 22), summary_without_networks),
        Before((1, 21), summary_without_image_id),
        Before((1, 17), summary_without_labels),
    ),
    "stats": (
        Before((1, 52), stats_without_system),
        Before((1, 27), stats_without_online_cpus),
        Before((1, 23), stats_without_pids),
        Before((1, 21), stats_with_one_network),
    ),
    "wait": (
        Since((1, 42), wait_without_empty_error),
        Before((1, 34), wait_without_error),
    ),
}
