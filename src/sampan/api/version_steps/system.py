"""Answers about the engine and its objects: info, version, events, networks, volumes, execs."""

from __future__ import annotations

from sampan.api.version_steps.step import AnswerSteps, Before, Document, Since, drop

# GET /info

_NUMBERS = ("Debug", "IPv4Forwarding", "MemoryLimit", "SwapLimit")
_FIRST_OF_1_19 = ("CpuCfsPeriod", "CpuCfsQuota", "OomKillDisable")


def info_without_plugins_of_nodes(document: Document) -> None:
    drop(document, "NRI")


def info_without_kernel_memory_tcp(document: Document) -> None:
    drop(document, "KernelMemoryTCP")


def info_without_bridge_netfilter(document: Document) -> None:
    drop(document, "BridgeNfIptables", "BridgeNfIp6tables")


def info_without_devices(document: Document) -> None:
    drop(document, "DiscoveredDevices")


def info_without_expected_commits(document: Document) -> None:
    for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
        drop(document.get(name), "Expected")


def info_without_nondistributable(document: Document) -> None:
    drop(
        document.get("RegistryConfig"),
        "AllowNondistributableArtifactsCIDRs",
        "AllowNondistributableArtifactsHostnames",
    )


def info_without_firewall(document: Document) -> None:
    drop(document, "FirewallBackend")


def info_without_containerd(document: Document) -> None:
    drop(document, "Containerd")


def info_without_status_of_runtimes(document: Document) -> None:
    for runtime in (document.get("Runtimes") or {}).values():
        drop(runtime, "status")


def info_without_device_specifications(document: Document) -> None:
    drop(document, "CDISpecDirs")


def info_without_kernel_memory(document: Document) -> None:
    drop(document, "KernelMemory")


def info_without_pools_and_cgroup_version(document: Document) -> None:
    drop(document, "DefaultAddressPools", "CgroupVersion")


def info_without_pids_limit(document: Document) -> None:
    drop(document, "PidsLimit")


def info_without_warnings(document: Document) -> None:
    """Clients made them out of the fields."""
    drop(document, "Warnings", "ProductLicense")


def info_with_unknown_system(document: Document) -> None:
    for name in ("KernelVersion", "OperatingSystem"):
        document[name] = document.get(name) or "<unknown>"


def info_with_names_of_security_options(document: Document) -> None:
    """`seccomp` for `name=seccomp,profile=builtin`."""
    document["SecurityOptions"] = [
        option.partition(",")[0].removeprefix("name=")
        for option in document.get("SecurityOptions") or ()
    ]
    document["ExecutionDriver"] = "<not supported>"


def info_without_security_options(document: Document) -> None:
    drop(document, "SecurityOptions")


def info_without_cgroup_driver(document: Document) -> None:
    drop(document, "CgroupDriver")


def info_without_counts_and_architecture(document: Document) -> None:
    drop(document, "ContainersRunning", "ContainersPaused", "ContainersStopped")
    drop(document, "Architecture", "OSType")


def info_without_versions(document: Document) -> None:
    drop(document, "ServerVersion", "CPUShares", "CPUSet")


def info_with_numbers_for_truths(document: Document) -> None:
    for name in _NUMBERS:
        document[name] = int(bool(document.get(name)))
    drop(document, *_FIRST_OF_1_19)


def info_without_time_and_proxies(document: Document) -> None:
    drop(document, "SystemTime", "HttpProxy", "HttpsProxy", "NoProxy")


# GET /version


def version_without_components(document: Document) -> None:
    drop(document, "Platform", "Components")


def version_without_minimum(document: Document) -> None:
    drop(document, "MinAPIVersion")


def version_without_system(document: Document) -> None:
    drop(document, "Os", "Arch", "KernelVersion")


# GET /events


def event_without_legacy_fields(document: Document) -> None:
    drop(document, "status", "id", "from")


def event_without_scope(document: Document) -> None:
    drop(document, "scope")


def event_without_actor(document: Document) -> None:
    drop(document, "Type", "Action", "Actor")


def event_without_nanoseconds(document: Document) -> None:
    drop(document, "timeNano")


# GET /networks, /networks/{id}


def network_without_status(document: Document) -> None:
    drop(document, "Status")


def network_summary_without_containers(document: Document) -> None:
    """It was empty for long."""
    drop(document, "Containers")


def network_without_ipv4_switch(document: Document) -> None:
    drop(document, "EnableIPv4")


def network_without_ingress(document: Document) -> None:
    drop(document, "Ingress")


def network_without_creation(document: Document) -> None:
    drop(document, "Created")


def network_without_kinds(document: Document) -> None:
    drop(document, "Internal", "EnableIPv6")


def network_without_names(document: Document) -> None:
    for container in (document.get("Containers") or {}).values():
        drop(container, "Name")


# GET /volumes, /volumes/{name}


def volume_without_creation(document: Document) -> None:
    drop(document, "CreatedAt")


def volume_without_options(document: Document) -> None:
    drop(document, "Options")


def volume_without_labels(document: Document) -> None:
    drop(document, "Labels", "Scope")


# GET /exec/{id}/json


def exec_without_pid(document: Document) -> None:
    drop(document, "Pid")


_NETWORK = (
    Before((1, 52), network_without_status),
    Before((1, 48), network_without_ipv4_switch),
    Before((1, 29), network_without_ingress),
    Before((1, 25), network_without_creation),
    Before((1, 23), network_without_kinds),
    Before((1, 22), network_without_names),
)

ANSWERS: AnswerSteps = {
    "info": (
        Before((1, 53), info_without_plugins_of_nodes),
        Since((1, 52), info_without_kernel_memory_tcp),
        Since((1, 50), info_without_bridge_netfilter),
        Before((1, 50), info_without_devices),
        Since((1, 49), info_without_expected_commits),
        Since((1, 49), info_without_nondistributable),
        Before((1, 49), info_without_firewall),
        Before((1, 46), info_without_containerd),
        Before((1, 44), info_without_status_of_runtimes),
        Before((1, 44), info_without_device_specifications),
        Since((1, 42), info_without_kernel_memory),
        Before((1, 41), info_without_pools_and_cgroup_version),
        Before((1, 40), info_without_pids_limit),
        Before((1, 39), info_without_warnings),
        Before((1, 39), info_with_unknown_system),
        Before((1, 25), info_with_names_of_security_options),
        Before((1, 24), info_without_security_options),
        Before((1, 23), info_without_cgroup_driver),
        Before((1, 22), info_without_counts_and_architecture),
        Before((1, 21), info_without_versions),
        Before((1, 19), info_with_numbers_for_truths),
        Before((1, 18), info_without_time_and_proxies),
    ),
    "version": (
        Before((1, 35), version_without_components),
        Before((1, 25), version_without_minimum),
        Before((1, 18), version_without_system),
    ),
    "event": (
        Since((1, 52), event_without_legacy_fields),
        Before((1, 30), event_without_scope),
        Before((1, 22), event_without_actor),
        Before((1, 21), event_without_nanoseconds),
    ),
    "network": _NETWORK,
    "network summary": (Since((1, 52), network_summary_without_containers), *_NETWORK),
    "volume": (
        Before((1, 31), volume_without_creation),
        Before((1, 25), volume_without_options),
        Before((1, 23), volume_without_labels),
    ),
    "exec": (Before((1, 25), exec_without_pid),),
}
