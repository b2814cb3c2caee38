"""`sampan system df -v`: every image and container with its size, as docker prints them."""

from __future__ import annotations

import sys

from sampan.cli import jsontext, tabular, units
from sampan.cli.commands import images, ps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.cli.call import Call
    from sampan.cli.listing import Kind

IMAGES = ("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers")  # fmt: skip
CONTAINERS = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
VOLUMES = ("VOLUME NAME", "LINKS", "SIZE")
BUILDS = ("CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED")


def print_details(call: Call, report: dict[str, Any]) -> None:
    """Print the tables, or with `--format` one document of all."""
    image_rows = [_image_row(image) for image in _items(report, "ImageUsage", "Images")]
    containers = [
        {**container, "SizeRootFs": 0}  # docker leaves the image's part out here
        for container in _items(report, "ContainerUsage", "Containers")
    ]
    volumes = _items(report, "VolumeUsage", "Volumes")
    form = call.text("format")
    if form not in ("", "table"):
        _print_formatted(form, image_rows, containers, volumes)
        return
    sections = (
        ("Images space usage:", _table(images.KIND, IMAGES, image_rows)),
        ("Containers space usage:", _table(ps.KIND, CONTAINERS, containers)),
        ("Local Volumes space usage:", tabular.align([VOLUMES, *map(_volume_row, volumes)])),
        ("Build cache usage: 0B", tabular.align([BUILDS])),
    )
    sys.stdout.write("\n".join(f"{title}\n\n{table}" for title, table in sections))


def _items(report: dict[str, Any], sums: str, lists: str) -> list[dict[str, Any]]:
    """The objects, where the asked version has them."""
    return (report.get(sums) or {}).get("Items") or report.get(lists) or []


def _image_row(image: dict[str, Any]) -> dict[str, Any]:
    """An image by its first tag alone, as docker shows it here."""
    repository, tag = images.NONE, images.NONE
    if image.get("RepoTags"):
        repository, _, tag = image["RepoTags"][0].rpartition(":")
    return {**image, "repository": repository, "tag": tag, "digest": ""}


def _volume_fields(volume: dict[str, Any]) -> dict[str, str]:
    """A volume as docker's formatter names its fields."""
    used = volume.get("UsageData") or {"RefCount": -1, "Size": -1}
    labels = volume.get("Labels") or {}
    return {
        "Availability": "N/A",
        "Driver": volume["Driver"],
        "Group": "N/A",
        "Labels": ",".join(f"{name}={labels[name]}" for name in sorted(labels)),
        "Links": "N/A" if used["RefCount"] < 0 else str(used["RefCount"]),
        "Mountpoint": volume["Mountpoint"],
        "Name": volume["Name"],
        "Scope": volume["Scope"],
        "Size": "N/A" if used["Size"] < 0 else units.human_size(used["Size"]),
        "Status": "N/A",
    }


def _volume_row(volume: dict[str, Any]) -> tuple[str, str, str]:
    fields = _volume_fields(volume)
    return fields["Name"], fields["Links"], fields["Size"]


def _table(kind: Kind, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    headings = [kind.headings[name] for name in columns]
    return tabular.align([headings, *([kind.fields[name](row, True) for name in columns] for row in rows)])  # fmt: skip


def _print_formatted(
    form: str,
    image_rows: list[dict[str, Any]],
    containers: list[dict[str, Any]],
    volumes: list[dict[str, Any]],
) -> None:
    document = {
        "Images": [_all_fields(images.KIND, row) for row in image_rows],
        "Containers": [_all_fields(ps.KIND, container) for container in containers],
        "Volumes": [_volume_fields(volume) for volume in volumes],
        "BuildCache": [],
    }
    if form == "json":
        sys.stdout.write(jsontext.encode(document) + "\n")
        return
    from sampan.cli import template

    program = template.parse(form.replace("\\t", "\t").replace("\\n", "\n"))
    sys.stdout.write(program.run(document) + "\n")


def _all_fields(kind: Kind, row: dict[str, Any]) -> dict[str, Any]:
    return {name: kind.fields[name](row, False) for name in sorted(kind.fields)}
