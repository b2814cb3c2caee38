"""The answer of `GET /system/df` in the shapes of all versions.

Before 1.52 it has lists of all objects; since 1.53 sums for each type, with the objects where
`verbose` is asked for; 1.52 has both. Source: engine-api-changelog.md, v1.42 and v1.52.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sampan.api.versions import Version
from sampan.engine.usage import ContainersUsage, ImagesUsage, Leftovers

Items = list[dict[str, Any]]

FIRST_WITHOUT_BUILDER_SIZE: Version = (1, 42)
FIRST_SUMS: Version = (1, 52)
FIRST_WITHOUT_LISTS: Version = (1, 53)
SUMS = ("ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage")
LISTS = ("LayersSize", "Images", "Containers", "Volumes", "BuildCache", "BuilderSize")


def report(
    types: Collection[str],
    *,
    images: ImagesUsage | None,
    image_items: Items,
    containers: ContainersUsage | None,
    container_items: Items,
    volume_items: Items,
    leftovers: Leftovers,
) -> dict[str, Any]:
    """The answer with the fields of all versions; a type that is not asked for is null."""
    document: dict[str, Any] = {
        "LayersSize": images.total_bytes if images else 0,
        "Images": image_items if images else None,
        "Containers": container_items if containers else None,
        "Volumes": volume_items if "volume" in types else None,
        "BuildCache": [] if "build-cache" in types else None,
        "BuilderSize": 0,
    }
    if images:
        document["ImageUsage"] = {
            "ActiveCount": images.active,
            "TotalCount": len(images.images),
            "Reclaimable": images.reclaimable_bytes,
            "TotalSize": images.total_bytes,
            "Items": image_items,
        }
    if containers:
        document["ContainerUsage"] = {
            "ActiveCount": containers.active,
            "TotalCount": len(containers.sizes),
            "Reclaimable": containers.reclaimable_bytes,
            "TotalSize": containers.total_bytes,
            "Items": container_items,
        }
    if "volume" in types:
        document["VolumeUsage"] = _volume_sums(volume_items)
    if "build-cache" in types:
        document["BuildCacheUsage"] = _volume_sums([])
    if images:
        document["PartialDownloads"] = {  # not in Docker's API
            "TotalCount": leftovers.partials,
            "TotalSize": leftovers.partial_bytes,
        }
    return document


def _volume_sums(items: Items) -> dict[str, Any]:
    idle = [item for item in items if not item["UsageData"]["RefCount"]]
    return {
        "ActiveCount": len(items) - len(idle),
        "TotalCount": len(items),
        "Reclaimable": sum(item["UsageData"]["Size"] for item in idle),
        "TotalSize": sum(item["UsageData"]["Size"] for item in items),
        "Items": items,
    }


def for_version(
    document: dict[str, Any], version: Version | None, *, verbose: bool
) -> dict[str, Any]:
    """The answer as a version has it; a path without one gets the newest with all legacy fields."""
    asked = version or FIRST_SUMS
    if asked >= FIRST_WITHOUT_BUILDER_SIZE and version is not None:
        document.pop("BuilderSize")
    if asked >= FIRST_WITHOUT_LISTS or (asked >= FIRST_SUMS and verbose):
        _drop(document, LISTS)
    if asked < FIRST_SUMS:
        _drop(document, SUMS)
    elif not verbose:
        for name in SUMS:
            document.get(name, {}).pop("Items", None)
    return document


def _drop(document: dict[str, Any], names: Collection[str]) -> None:
    for name in names:
        document.pop(name, None)
