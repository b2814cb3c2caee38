"""The disk budget: which images go when all of them together take more than they may.

The least recently used go first; an image is used when it is added or tagged and when a container
is made from it. Never one that a container (also a stopped one) was made from, that an operation
reads or that is pinned; nor the one used last, which somebody is just about to use.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from sampan.images.image import Image

log = logging.getLogger(__name__)


def last_used_ns(image: Image) -> int:
    """When an image was used last, in Unix ns, to the minute; 0 if that is not known."""
    return max(image.record.used_ns, image.record.tagged_ns)


def trim(
    images: Iterable[Image],
    *,
    budget_bytes: int,
    total: Callable[[], int],
    is_needed: Callable[[Image], bool],
    remove: Callable[[Image], object],
) -> list[Image]:
    """Remove images until all take `budget_bytes` at most, or no more may go; return the removed.

    `total` says what they take, asked anew after each removal.
    """
    if total() <= budget_bytes:
        return []
    oldest_first = sorted(images, key=last_used_ns)
    gone = []
    for image in oldest_first[:-1]:
        if image.record.pinned or is_needed(image):
            continue
        name = (image.repo_tags or [image.id])[0]
        before = total()
        remove(image)
        gone.append(image)
        log.info("disk budget: image %s is removed; %d bytes come back", name, before - total())
        if total() <= budget_bytes:
            return gone
    log.warning(
        "disk budget: images take %d bytes, %d more than allowed; all are in use, pinned or new",
        total(),
        total() - budget_bytes,
    )
    return gone
