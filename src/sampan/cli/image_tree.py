"""`images --tree`: images with the platforms that each name stands for."""

from __future__ import annotations

import os
import sys

from sampan.cli import tabular, units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

HEADINGS = ("IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA")
BRANCH, LAST = "├─ ", "└─ "
UNTAGGED = "<untagged>"
USED = "U"


def show(images: Sequence[dict[str, Any]], *, untagged: bool) -> None:
    """Print the tree. On a terminal what this machine does not have is dimmed; elsewhere its sizes
    are 0B."""
    lines: list[tuple[str, ...]] = [HEADINGS]
    absent: set[int] = set()
    for image in images:
        if not (untagged or image.get("RepoTags")):
            continue
        platforms = [m for m in image.get("Manifests") or () if m.get("Kind") == "image"]
        _add_image(lines, image, platforms)
        for at, manifest in enumerate(platforms):
            if not manifest["Available"]:
                absent.add(len(lines))
            lines.append(_platform(manifest, LAST if at == len(platforms) - 1 else BRANCH))
    sys.stdout.write("U: in use\n")
    text = tabular.align(lines).splitlines()
    if os.isatty(1):
        text = [f"\x1b[2m{line}\x1b[0m" if at in absent else line for at, line in enumerate(text)]
    sys.stdout.write("".join(line.rstrip() + "\n" for line in text))


def _add_image(
    lines: list[tuple[str, ...]], image: dict[str, Any], platforms: Sequence[dict[str, Any]]
) -> None:
    """A line for each name, the numbers on the last one."""
    *first, name = image.get("RepoTags") or [UNTAGGED]
    lines += [(other, "", "", "", "") for other in first]
    used = image.get("Containers", 0) > 0 or any(map(_is_used, platforms))
    content = sum(manifest["Size"]["Content"] for manifest in platforms)
    lines.append(
        (
            name,
            units.short_id(image["Id"]),
            units.human_size(image["Size"], 3),
            units.human_size(content, 3),
            USED if used else "",
        )
    )


def _platform(manifest: dict[str, Any], lead: str) -> tuple[str, ...]:
    platform = (manifest.get("ImageData") or {}).get("Platform") or {}
    parts = [platform.get(name, "") for name in ("os", "architecture", "variant")]
    return (
        lead + ("/".join(part for part in parts if part) or "unknown"),
        units.short_id(manifest["ID"]),
        units.human_size(manifest["Size"]["Total"], 3),
        units.human_size(manifest["Size"]["Content"], 3),
        USED if _is_used(manifest) else "",
    )


def _is_used(manifest: dict[str, Any]) -> bool:
    return bool((manifest.get("ImageData") or {}).get("Containers"))
