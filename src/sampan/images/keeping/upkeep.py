"""Keeping the images' part of the disk small: prune, the disk budget, pins, old downloads."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence

from sampan.content.store import ContentStore
from sampan.errors import Conflict, InvalidArgument, SampanError
from sampan.images.catalog import Catalog
from sampan.images.image import Image
from sampan.images.keeping import budget
from sampan.images.keeping.prune import prunable
from sampan.images.keeping.space import Space
from sampan.images.register import Register
from sampan.images.removal import Users
from sampan.oci.digest import Digest
from sampan.snapshots.overlay import Snapshotter

log = logging.getLogger(__name__)

PARTIAL_KEPT_S = 24 * 3600
"""How long a download that broke off waits for the next pull, from its last byte on."""


class Upkeep:
    """What goes and what stays among the images of one engine. `budget_bytes` 0: no budget."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        register: Register,
        content: ContentStore,
        snapshots: Snapshotter,
        in_use: Callable[[str], Users],
    ) -> None:
        self.budget_bytes = 0
        self.register = register
        self.content = content
        self.snapshots = snapshots
        self.space = Space(catalog, register.needs, snapshots.layers)
        self._catalog = catalog
        self._in_use = in_use
        self._pruning = False
        register.collector.after_hold = self._after_hold

    def tidy(self) -> None:
        """What is due from time to time: old downloads go, the budget is kept."""
        self.drop_old_partials()
        self.trim()

    async def prune(self, filters: Mapping[str, Sequence[str]]) -> tuple[list[dict[str, str]], int]:
        """Remove the images that the filters choose and no container uses.

        Returns what was done (`{"Untagged": name}`, `{"Deleted": digest}`) and the bytes of layers
        and blobs that came back. Other requests are answered between two images.

        Raises:
            InvalidArgument: a filter is unknown, or its value.
            Conflict: another prune is under way.
        """
        if self._pruning:
            raise Conflict("a prune operation is already running")
        self._pruning = True
        done: list[dict[str, str]] = []
        freed = 0
        try:
            while chosen := prunable(self._catalog, filters, self._needed()):
                for image in chosen:
                    removed, given_back = self._remove_unneeded(image)
                    done += removed
                    freed += given_back
                    await asyncio.sleep(0)
        finally:
            self._pruning = False
            self.register.publish()
        return done, freed

    def _remove_unneeded(self, image: Image) -> tuple[list[dict[str, str]], int]:
        """Remove an image, unless it went or came into use since it was chosen."""
        if self._catalog.by_id(image.id) is not image or self._needed()(image):
            return [], 0
        before = self.register.let_go_bytes
        removed = self._remove(image)
        return removed, self.register.let_go_bytes - before

    def trim(self) -> list[Image]:
        """Remove images, least recently used first, until the budget is kept; return them."""
        if not self.budget_bytes:
            return []
        gone = budget.trim(
            self._catalog,
            budget_bytes=self.budget_bytes,
            total=self.space.total,
            is_needed=self._needed(),
            remove=self._remove,
        )
        if gone:
            self.register.publish()
        return gone

    def _after_hold(self) -> None:
        """Something was added. That it was is told, whatever becomes of older images."""
        try:
            self.trim()
        except (SampanError, OSError) as error:
            log.error("disk budget: %s", error)

    def pin(self, reference: str, pinned: bool) -> Image:
        """Say whether an image stays when the budget is exceeded.

        Raises:
            NotFound: there is no such image.
            InvalidArgument: it is the `host` image.
        """
        image = self._catalog.resolve(reference)
        if self._catalog.by_id(image.id) is None:
            raise InvalidArgument("the host image takes no space, so it cannot be pinned")
        self.register.pin(image, pinned)
        return image

    def drop_old_partials(self, now_ns: int | None = None) -> list[Digest]:
        """Delete downloads that broke off long ago and that nobody continued, or that came another
        way; return them."""
        limit_ns = (time.time_ns() if now_ns is None else now_ns) - PARTIAL_KEPT_S * 1_000_000_000
        old = [
            digest
            for digest, _, written_ns in self.content.partials()
            if (written_ns < limit_ns or os.path.exists(self.content.path(digest)))
            and not self.content.seen(digest)
        ]
        for digest in old:
            self.content.drop_partial(digest)
        return old

    def _needed(self) -> Callable[[Image], bool]:
        """Which images may not go: containers, a running operation or another image need them."""
        parents = {image.record.parent for image in self._catalog}
        return lambda image: (
            image.id in parents
            or bool(self._in_use(image.id))
            or self.register.holds.reads(image.id)
        )

    def _remove(self, image: Image) -> list[dict[str, str]]:
        done = [self.register.untag(image, reference) for reference in list(image.references)]
        return done + self.register.delete(image)
