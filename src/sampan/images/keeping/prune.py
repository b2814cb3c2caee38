"""Which images `image prune` takes: pure functions from filters to a choice.

Source: engine-api-v1.55.yaml, ImagePrune; dockerd for the texts. Unlike dockerd, which takes names
away from an image in use as long as it has another, an image in use is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from sampan.errors import InvalidArgument
from sampan.images.filters import has_labels, truth
from sampan.images.image import Image
from sampan.oci.go_time import parse_duration

Filters = Mapping[str, Sequence[str]]
ACCEPTED = frozenset(("dangling", "label", "label!", "until"))


def prunable(
    images: Iterable[Image], filters: Filters, is_used: Callable[[Image], bool]
) -> list[Image]:
    """The images to remove, oldest first: those without a tag, with `dangling=false` those that no
    container uses, too.

    Raises:
        InvalidArgument: a filter or its value is unknown.
    """
    for name in filters:
        if name not in ACCEPTED:
            raise InvalidArgument(f"Invalid filter '{name}'")
    dangling = truth(filters.get("dangling", ()), "Invalid filter 'dangling") is not False
    until_ns = _until(filters.get("until", ()))
    wanted, unwanted = filters.get("label", ()), filters.get("label!", ())
    chosen = [
        image
        for image in images
        if not (dangling and image.repo_tags)
        and (until_ns is None or image.created_ns <= until_ns)
        and has_labels(image, wanted)
        and not (unwanted and has_labels(image, unwanted))
        and not is_used(image)
    ]
    return sorted(chosen, key=lambda image: image.created_ns)


def _until(values: Sequence[str]) -> int | None:
    """Unix ns of a time stamp, of Unix seconds, or of a duration before now."""
    if not values:
        return None
    if len(values) > 1:
        raise InvalidArgument("more than one until filter specified")
    text = values[0]
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text) * 1_000_000_000
    try:  # without a zone: this machine's
        return int(datetime.fromisoformat(text).timestamp()) * 1_000_000_000
    except (OverflowError, ValueError):
        pass
    try:
        return time.time_ns() - parse_duration(text)
    except InvalidArgument:
        raise InvalidArgument(f'failed to parse value as time or duration: "{text}"') from None
