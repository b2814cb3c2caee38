"""`sampan images`: the images."""

from __future__ import annotations

from sampan.cli import listing, units
from sampan.cli.client import query
from sampan.cli.commands.ps import FORMAT_USAGE
from sampan.cli.failures import CommandError
from sampan.cli.flags import filters_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("all", "a", "bool", "", "Show all images (default hides intermediate images)"),
    ("digests", "", "bool", "", "Show digests"),
    ("filter", "f", "filter", "", "Filter output based on conditions provided"),
    ("format", "", "string", "", FORMAT_USAGE),
    ("no-trunc", "", "bool", "", "Don't truncate output"),
    ("quiet", "q", "bool", "", "Only show image IDs"),
    ("tree", "", "bool", "", "List multi-platform images as a tree"),
)

COLUMNS = ("Repository", "Tag", "ID", "CreatedSince", "Size")
WITH_DIGESTS = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")
NONE = "<none>"


def _identifier(row: dict[str, Any], truncate: bool) -> str:
    return units.short_id(row["Id"]) if truncate else str(row["Id"])


def _optional_size(row: dict[str, Any], field: str) -> str:
    size = row.get(field, -1)
    return "N/A" if size is None or size < 0 else units.human_size(size)


def _containers(row: dict[str, Any], truncate: bool) -> str:
    count = row.get("Containers", -1)
    return "N/A" if count is None or count < 0 else str(count)


KIND = listing.Kind(
    "imageContext",
    {
        "ID": _identifier,
        "Repository": lambda row, _: row["repository"],
        "Tag": lambda row, _: row["tag"],
        "Digest": lambda row, _: row["digest"],
        "CreatedSince": lambda row, _: units.ago(row["Created"]),
        "CreatedAt": lambda row, _: units.timestamp(row["Created"]),
        "Size": lambda row, _: units.human_size(row["Size"], 3),
        "VirtualSize": lambda row, _: units.human_size(row["Size"]),
        "Containers": _containers,
        "SharedSize": lambda row, _: _optional_size(row, "SharedSize"),
        "UniqueSize": lambda row, _: "N/A"
        if row.get("SharedSize", -1) in (-1, None)
        else units.human_size(row["Size"] - row["SharedSize"]),
    },
    {
        "ID": "IMAGE ID",
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "Digest": "DIGEST",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
        "VirtualSize": "SIZE",
        "Containers": "CONTAINERS",
        "SharedSize": "SHARED SIZE",
        "UniqueSize": "UNIQUE SIZE",
    },
    (
        ("repository", "Repository"),
        ("tag", "Tag"),
        ("image_id", "ID"),
        ("created_at", "CreatedAt"),
        ("virtual_size", "Size"),
    ),
)  # fmt: skip


def run(call: Call) -> int:
    """List images, a line for each name."""
    form = call.text("format")
    if call.on("tree"):
        return _tree(call)
    listing.warn_about_quiet(call)
    filters = call.pairs("filter")
    if call.args:
        filters.append(("reference", call.args[0]))
    path = "/images/json" + query(all=call.on("all"), filters=filters_json(filters))
    digests = call.on("digests") or ".Digest" in form
    rows = [row for image in call.client.call("GET", path) for row in _rows(image, digests)]
    listing.print_list(
        KIND,
        rows,
        WITH_DIGESTS if call.on("digests") else COLUMNS,
        form=form,
        quiet=call.on("quiet"),
        truncate=not call.on("no-trunc"),
    )
    return 0


def _tree(call: Call) -> int:
    """The images with their platforms.

    Raises:
        CommandError: a flag of the table was given, in docker's words.
    """
    for flag in ("quiet", "no-trunc", "digests", "format"):
        if call[flag]:
            shown = "show-digest" if flag == "digests" else flag  # docker's word
            raise CommandError(f"--{shown} is not yet supported with --tree")
    from sampan.cli import image_tree

    filters = call.pairs("filter")
    if call.args:
        filters.append(("reference", call.args[0]))
    path = "/images/json" + query(all=call.on("all"), filters=filters_json(filters), manifests=True)
    image_tree.show(call.client.call("GET", path), untagged=call.on("all"))
    return 0


def _rows(image: dict[str, Any], digests: bool) -> list[dict[str, Any]]:
    """The lines of one image: its tags, with digests where they are wanted."""
    tags = [_cut(name, ":") for name in image.get("RepoTags") or () if name != "<none>:<none>"]
    known: dict[str, list[str]] = {}
    for name in image.get("RepoDigests") or ():
        repository, digest = _cut(name, "@")
        if repository != NONE:
            known.setdefault(repository, []).append(digest)
    lines = []
    for repository, tag in tags:
        for digest in (known.get(repository) if digests else None) or [NONE]:
            lines.append((repository, tag, digest))
    named = {repository for repository, _ in tags}
    for repository, found in known.items():
        if repository not in named:
            lines += [(repository, NONE, digest) for digest in (found if digests else [NONE])]
    return [
        {**image, "repository": repository, "tag": tag, "digest": digest}
        for repository, tag, digest in lines or [(NONE, NONE, NONE)]
    ]


def _cut(name: str, mark: str) -> tuple[str, str]:
    head, _, tail = name.rpartition(mark)
    return head, tail
