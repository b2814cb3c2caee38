"""API versions: which are served, and what an answer to an older one looks like.

Handlers speak the newest shape with all legacy fields kept, which is what a path without a version
gets. For a path with one, the steps below take away what that version no longer had, one small
function a change. Source: engine-api-changelog.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sampan.errors import InvalidArgument

Version = tuple[int, int]
Document = dict[str, Any]

OLDEST: Version = (1, 12)
NEWEST: Version = (1, 55)

# Answers to versions below this are the bare message: they know no JSON errors.
FIRST_JSON_ERRORS: Version = (1, 24)

# Before, a limit on processes in an update was not one: clients send zero for it.
FIRST_PIDS_UPDATE: Version = (1, 40)

_PREFIX = re.compile(r"/v([0-9]+(?:\.[0-9]+)*)(/.*)", re.DOTALL)

# A number with more digits is no version, and would only fill answers and logs.
_LONGEST = 32


def spelled(version: Version) -> str:
    """`1.55`."""
    return f"{version[0]}.{version[1]}"


def split_version(path: str) -> tuple[Version | None, str]:
    """The version a path asks for, None for the newest, and the path without it.

    Raises:
        InvalidArgument: dockerd's texts for a version that is too old or too new.
    """
    match = _PREFIX.fullmatch(path)
    if match is None:
        return None, path
    if len(match[1]) > _LONGEST:
        raise InvalidArgument(f"invalid version format: {match[1][:_LONGEST]}…")
    version = parse_version(match[1])
    if version < OLDEST:
        raise InvalidArgument(
            f"client version {match[1]} is too old. Minimum supported API version is "
            f"{spelled(OLDEST)}, please upgrade your client to a newer version"
        )
    if version > NEWEST:
        raise InvalidArgument(
            f"client version {match[1]} is too new. Maximum supported API version is "
            f"{spelled(NEWEST)}"
        )
    return version, match[2]


def parse_version(text: str) -> Version:
    """`1.41` as a pair that compares; more parts than two say nothing."""
    major, minor, *_ = [*(int(part) for part in text.split(".")[:2]), 0, 0]
    return major, minor


def answer(kind: str, document: Document, version: Version | None) -> Document:
    """`document` as `version` had it, changed in place; untouched for a path without version."""
    if version is not None:
        for since, change in REMOVALS.get(kind, ()):
            if version >= since:
                change(document)
        for since, change in NEW.get(kind, ()):
            if version < since:
                change(document)
    return document


# GET /containers/{id}/json

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


def container_without_kernel_memory(document: Document) -> None:
    document["HostConfig"].pop("KernelMemory", None)


def container_without_legacy_network(document: Document) -> None:
    for name in LEGACY_NETWORK_FIELDS:
        document["NetworkSettings"].pop(name, None)


def container_without_kernel_memory_tcp(document: Document) -> None:
    document["HostConfig"].pop("KernelMemoryTCP", None)


def container_summary_without_health(document: Document) -> None:
    document.pop("Health", None)


def container_without_empty_on_build(document: Document) -> None:
    if not document["Config"].get("OnBuild"):
        document["Config"].pop("OnBuild", None)


# GET /images/{name}/json and GET /images/json

NOT_OF_AN_IMAGE = (
    "Hostname",
    "Domainname",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "Image",
    "NetworkDisabled",
    "MacAddress",
    "StopTimeout",
)
OMITTED_WHEN_UNSET = (
    "Cmd",
    "Entrypoint",
    "Env",
    "Labels",
    "OnBuild",
    "User",
    "Volumes",
    "WorkingDir",
)


def image_without_virtual_size(document: Document) -> None:
    document.pop("VirtualSize", None)


def image_without_container(document: Document) -> None:
    document.pop("Container", None)
    document.pop("ContainerConfig", None)


def image_config_without_container_fields(document: Document) -> None:
    for name in NOT_OF_AN_IMAGE:
        document["Config"].pop(name, None)


def image_without_empty_fields(document: Document) -> None:
    for name in OMITTED_WHEN_UNSET:
        if not document["Config"].get(name):
            document["Config"].pop(name, None)
    for name in ("Parent", "Comment", "DockerVersion", "Author"):
        if not document.get(name):
            document.pop(name, None)


def image_without_descriptor(document: Document) -> None:
    document.pop("Descriptor", None)
    document.pop("Manifests", None)


def summary_without_manifests(document: Document) -> None:
    document.pop("Manifests", None)


def summary_with_placeholders(document: Document) -> None:
    """Clients of old leave out an image that has neither names nor these."""
    if not document["RepoTags"] and not document["RepoDigests"]:
        document["RepoTags"] = ["<none>:<none>"]
        document["RepoDigests"] = ["<none>@<none>"]


# GET /events, POST /containers/{id}/wait


def event_without_legacy_fields(document: Document) -> None:
    for name in ("status", "id", "from"):
        document.pop(name, None)


def stats_with_one_network(document: Document) -> None:
    """Of one network only, without its name."""
    networks = document.pop("networks", None)
    if networks:
        document["network"] = next(iter(networks.values()))


def stats_without_system(document: Document) -> None:
    document.pop("os_type", None)


def wait_without_empty_error(document: Document) -> None:
    if document.get("Error") is None:
        document.pop("Error", None)


# GET /info


def info_without_kernel_memory(document: Document) -> None:
    document.pop("KernelMemory", None)


def info_without_expected_commits(document: Document) -> None:
    for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
        if isinstance(document.get(name), dict):
            document[name].pop("Expected", None)


def info_without_bridge_netfilter(document: Document) -> None:
    document.pop("BridgeNfIptables", None)
    document.pop("BridgeNfIp6tables", None)


def info_without_kernel_memory_tcp(document: Document) -> None:
    document.pop("KernelMemoryTCP", None)


REMOVALS: dict[str, list[tuple[Version, Callable[[Document], None]]]] = {
    "container": [
        ((1, 42), container_without_kernel_memory),
        ((1, 52), container_without_legacy_network),
        ((1, 52), container_without_kernel_memory_tcp),
        ((1, 52), container_without_empty_on_build),
    ],
    "container summary": [((1, 52), container_summary_without_health)],
    "image": [
        ((1, 44), image_without_virtual_size),
        ((1, 45), image_without_container),
        ((1, 50), image_config_without_container_fields),
        ((1, 52), image_without_empty_fields),
    ],
    "image summary": [((1, 44), image_without_virtual_size)],
    "event": [((1, 52), event_without_legacy_fields)],
    "wait": [((1, 42), wait_without_empty_error)],
    "info": [
        ((1, 42), info_without_kernel_memory),
        ((1, 49), info_without_expected_commits),
        ((1, 50), info_without_bridge_netfilter),
        ((1, 52), info_without_kernel_memory_tcp),
    ],
}

# What a version did not have yet, where it must not be in the answer.
NEW: dict[str, list[tuple[Version, Callable[[Document], None]]]] = {
    "image": [((1, 48), image_without_descriptor)],
    "stats": [((1, 21), stats_with_one_network), ((1, 52), stats_without_system)],
    "image summary": [
        ((1, 43), summary_with_placeholders),
        ((1, 47), summary_without_manifests),
    ],
}
