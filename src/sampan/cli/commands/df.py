"""`sampan system df`: what images and containers take on the disk."""

from __future__ import annotations

from sampan.cli import listing, units
from sampan.cli.client import query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("format", "", "string", "", "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates"),
    ("verbose", "v", "bool", "", "Show detailed information on space usage"),
    ("why", "", "string", "", "Say what holds an image, layer, blob, container or a path below the data root, or when it goes"),
)  # fmt: skip

COLUMNS = ("Type", "TotalCount", "Active", "Size", "Reclaimable")
KIND = listing.Kind(
    "diskUsageImagesContext",
    {
        "Type": lambda row, _: row["type"],
        "TotalCount": lambda row, _: str(row["TotalCount"]),
        "Active": lambda row, _: str(row["ActiveCount"]),
        "Size": lambda row, _: units.human_size(row["TotalSize"]),
        "Reclaimable": lambda row, _: _reclaimable(row),
    },
    {
        "Type": "TYPE",
        "TotalCount": "TOTAL",
        "Active": "ACTIVE",
        "Size": "SIZE",
        "Reclaimable": "RECLAIMABLE",
    },
)  # fmt: skip
ACTIVE_STATES = ("running", "paused", "restarting")


def run(call: Call) -> int:
    """Print sums for each type of object, details with -v, or why something is kept."""
    if call.text("why"):
        from sampan.cli import why

        return why.tell(call, call.text("why"))
    verbose = call.on("verbose")
    report = call.client.call("GET", "/system/df" + query(verbose=verbose))
    if verbose:
        from sampan.cli import usage

        usage.print_details(call, report)
        return 0
    listing.print_list(
        KIND, _rows(report), COLUMNS, form=call.text("format"), quiet=False, truncate=True
    )
    partial = report.get("PartialDownloads") or {}
    if partial.get("TotalCount") and not call.text("format"):
        call.say(
            f"\nDownloads that broke off: {partial['TotalCount']}, "
            f"{units.human_size(partial['TotalSize'])}; the next pull goes on with them"
        )
    return 0


def _rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each type, from the sums or, before API 1.52, from the lists."""
    return [
        {"type": "Images", "percent": True, **(report.get("ImageUsage") or _images(report))},
        {"type": "Containers", **(report.get("ContainerUsage") or _containers(report))},
        {"type": "Local Volumes", **(report.get("VolumeUsage") or _volumes(report))},
        {"type": "Build Cache", "plain": True, **(report.get("BuildCacheUsage") or _NOTHING)},
    ]


_NOTHING = {"TotalCount": 0, "ActiveCount": 0, "TotalSize": 0, "Reclaimable": 0}


def _images(report: dict[str, Any]) -> dict[str, int]:
    images = report.get("Images") or []
    total = report.get("LayersSize", 0)
    used = [image for image in images if image["Containers"]]
    unique = [i["Size"] - i["SharedSize"] for i in used if -1 not in (i["Size"], i["SharedSize"])]
    return {
        "TotalCount": len(images),
        "ActiveCount": len(used),
        "TotalSize": total,
        "Reclaimable": total - sum(unique),
    }


def _containers(report: dict[str, Any]) -> dict[str, int]:
    containers = report.get("Containers") or []
    sizes = [(container.get("SizeRw") or 0, container["State"]) for container in containers]
    return {
        "TotalCount": len(containers),
        "ActiveCount": sum(1 for _, state in sizes if state in ACTIVE_STATES),
        "TotalSize": sum(size for size, _ in sizes),
        "Reclaimable": sum(size for size, state in sizes if state not in ACTIVE_STATES),
    }


def _volumes(report: dict[str, Any]) -> dict[str, int]:
    volumes = [volume.get("UsageData") or {} for volume in report.get("Volumes") or ()]
    sizes = [(max(0, used.get("Size", 0)), used.get("RefCount", 0)) for used in volumes]
    return {
        "TotalCount": len(sizes),
        "ActiveCount": sum(1 for _, links in sizes if links > 0),
        "TotalSize": sum(size for size, _ in sizes),
        "Reclaimable": sum(size for size, links in sizes if not links),
    }


def _reclaimable(row: dict[str, Any]) -> str:
    size, total = row["Reclaimable"], row["TotalSize"]
    text = units.human_size(size)
    return text if row.get("plain") or not total else f"{text} ({size * 100 // total}%)"
