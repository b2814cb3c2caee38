"""`sampan ps`: the containers."""

from __future__ import annotations

from sampan.cli import listing, units
from sampan.cli.client import query
from sampan.cli.flags import filters_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FORMAT_USAGE = (
    "Format output using a custom template:\n"
    "'table':            Print output in table format with column headers (default)\n"
    "'table TEMPLATE':   Print output in table format using the given Go template\n"
    "'json':             Print in JSON format\n"
    "'TEMPLATE':         Print output using the given Go template.\n"
    "Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates"
)

FLAGS = (
    ("all", "a", "bool", "", "Show all containers (default shows just running)"),
    ("filter", "f", "filter", "", "Filter output based on conditions provided"),
    ("format", "", "string", "", FORMAT_USAGE),
    ("last", "n", "int", "-1", "Show n last created containers (includes all states)"),
    ("latest", "l", "bool", "", "Show the latest created container (includes all states)"),
    ("no-trunc", "", "bool", "", "Don't truncate output"),
    ("quiet", "q", "bool", "", "Only display container IDs"),
    ("size", "s", "bool", "", "Display total file sizes"),
)

COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")


def _identifier(container: dict[str, Any], truncate: bool) -> str:
    identifier = str(container["Id"])
    return identifier[:12] if truncate else identifier


def _image(container: dict[str, Any], truncate: bool) -> str:
    image = str(container["Image"])
    if not image:
        return "<no image>"
    if not truncate:
        return image
    short = units.short_id(str(container.get("ImageID", "")))
    if short == units.short_id(image):
        return short
    name, mark, _ = image.partition("@")
    return name if mark and ":" in name.rpartition("/")[2] else image


def _command(container: dict[str, Any], truncate: bool) -> str:
    command = str(container["Command"])
    return units.quote(units.ellipsis(command, 20) if truncate else command)


def _names(container: dict[str, Any], truncate: bool) -> str:
    names = [str(name).removeprefix("/") for name in container["Names"]]
    return ",".join(name for name in names if "/" not in name or not truncate)


def _size(container: dict[str, Any], truncate: bool) -> str:
    written = units.human_size(container.get("SizeRw") or 0, 3)
    whole = container.get("SizeRootFs") or 0
    return f"{written} (virtual {units.human_size(whole, 3)})" if whole > 0 else written


def _labels(container: dict[str, Any], truncate: bool) -> str:
    labels = container.get("Labels") or {}
    return ",".join(f"{name}={labels[name]}" for name in sorted(labels))


def _mounts(container: dict[str, Any], truncate: bool) -> str:
    names = [
        mount.get("Name") or mount.get("Source", "") for mount in container.get("Mounts") or ()
    ]
    return ",".join(units.ellipsis(name, 15) if truncate else name for name in names)


def _local_volumes(container: dict[str, Any], truncate: bool) -> str:
    mounts = container.get("Mounts") or ()
    return str(sum(1 for mount in mounts if mount.get("Driver") == "local"))


def _networks(container: dict[str, Any], truncate: bool) -> str:
    settings = container.get("NetworkSettings") or {}
    return ",".join(settings.get("Networks") or {})


def _ports(container: dict[str, Any], truncate: bool) -> str:
    ports = container.get("Ports")
    if not ports:
        return ""
    from sampan.cli import ports as listed

    return listed.displayed(ports)


KIND = listing.Kind(
    "ContainerContext",
    {
        "ID": _identifier,
        "Image": _image,
        "Command": _command,
        "CreatedAt": lambda container, _: units.timestamp(container["Created"]),
        "RunningFor": lambda container, _: units.ago(container["Created"]),
        "Ports": _ports,
        "State": lambda container, _: container["State"],
        "Status": lambda container, _: container["Status"],
        "Size": _size,
        "Names": _names,
        "Labels": _labels,
        "Mounts": _mounts,
        "Networks": _networks,
        "LocalVolumes": _local_volumes,
        "Platform": lambda container, _: (container.get("ImageManifestDescriptor") or {}).get("platform"),
    },
    {
        "ID": "CONTAINER ID",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "CreatedAt": "CREATED AT",
        "RunningFor": "CREATED",
        "Ports": "PORTS",
        "State": "STATE",
        "Status": "STATUS",
        "Size": "SIZE",
        "Names": "NAMES",
        "Labels": "LABELS",
        "Mounts": "MOUNTS",
        "Networks": "NETWORKS",
        "LocalVolumes": "LOCAL VOLUMES",
        "Platform": "PLATFORM",
    },
    (
        ("container_id", "ID"),
        ("image", "Image"),
        ("command", "Command"),
        ("created_at", "CreatedAt"),
        ("state", "State"),
        ("status", "Status"),
        ("names", "Names"),
        ("labels", "Labels"),
        ("ports", "Ports"),
    ),
)  # fmt: skip


def run(call: Call) -> int:
    """List containers."""
    form = call.text("format")
    listing.warn_about_quiet(call)
    shows_size = ".Size" in form or "json ." in form
    size = call.on("size") or (shows_size and not call.on("quiet"))
    limit = 1 if call.on("latest") else call.number("last")
    path = "/containers/json" + query(
        all=call.on("all"),
        limit=limit if limit > 0 else None,
        size=size,
        filters=filters_json(call.pairs("filter")),
    )
    containers = call.client.call("GET", path)
    columns = (*COLUMNS, "Size") if call.on("size") else COLUMNS
    listing.print_list(
        KIND,
        containers,
        columns,
        form=form,
        quiet=call.on("quiet"),
        truncate=not call.on("no-trunc"),
    )
    return 0
