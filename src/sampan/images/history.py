"""`history`: how an image came about, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampan.errors import InvalidArgument
from sampan.images.image import Image
from sampan.oci.digest import ChainID, chain_id
from sampan.oci.go_time import parse_time

MISSING = "<missing>"
_ZERO_TIME = "0001-01-01T00:00:00Z"

LayerSize = Callable[[ChainID], int]


def history(
    image: Image, parent: Callable[[str], Image | None], layer_size: LayerSize
) -> list[dict[str, Any]]:
    """Docker's `HistoryResponseItem`s, newest first.

    The image and those it was committed on stand at their lines with ID and tags; other lines came
    with the image from elsewhere, and are `<missing>`.

    Raises:
        InvalidArgument: the config has more lines with layers than layers.
    """
    lines: list[dict[str, Any]] = []
    layers = iter(image.layers)
    chain: ChainID | None = None
    for line in image.document.history:
        size = 0
        if not line.empty_layer:
            diff_id = next(layers, None)
            if diff_id is None:
                raise InvalidArgument("too many non-empty layers in History section")
            chain = chain_id(chain, diff_id)
            size = layer_size(chain)
        lines.append(
            {
                "Comment": line.comment,
                "Created": _seconds(line.created),
                "CreatedBy": line.created_by,
                "Id": MISSING,
                "Size": size,
                "Tags": None,
            }
        )
    lines.reverse()
    named: Image | None = image
    for entry in lines:
        if named is None:
            break
        entry["Id"] = named.id
        entry["Tags"] = named.repo_tags or None
        named = parent(named.record.parent) if named.record.parent else None
    return lines


def _seconds(text: str) -> int:
    try:
        return parse_time(text or _ZERO_TIME) // 1_000_000_000
    except ValueError:
        return parse_time(_ZERO_TIME) // 1_000_000_000
