"""What nothing needs any more goes, but not what an operation under way has made or looked at: it is
about to name it, or still reads it.

What a change let go is collected after it; all that no image needs, when the register opens.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from sampan.content.store import ContentStore
from sampan.images.image import Image
from sampan.images.keeping.holds import Hold, Holds
from sampan.images.keeping.needs import Freed, Needs
from sampan.oci.digest import ChainID, Digest
from sampan.snapshots.overlay import Snapshotter

log = logging.getLogger(__name__)


class Collector:
    """Blobs and layers that were let go, deleted as soon as nothing needs them.

    `after_hold` is called when an operation that may have added something has ended.
    """

    def __init__(self, content: ContentStore, snapshots: Snapshotter) -> None:
        self.holds = Holds()
        self.needs = Needs()
        self.after_hold: Callable[[], object] = lambda: None
        self._content = content
        self._snapshots = snapshots
        self._loose_blobs: set[Digest] = set()  # let go by somebody, to be looked at
        self._loose_layers: set[ChainID] = set()
        snapshots.on_release = self._loosen_layer

    def open(self) -> None:
        """Delete every blob that nothing needs."""
        self._loose_blobs.update(self._content.digests())
        self.collect()

    @contextmanager
    def hold(
        self, what: str = "an operation", images: Iterable[Image] | None = None
    ) -> Iterator[Hold]:
        """Keep what an operation makes and looks at, or the `images` that it reads, until it ends.

        `what` is said to people who ask what holds something. What got no name in the end (an
        archive's lists, all of a load that failed) goes after it.
        """
        hold = Hold(what, None if images is None else frozenset(image.id for image in images))
        self.holds.add(hold)
        self._begin(hold)
        try:
            yield hold
        finally:
            self.holds.remove(hold)
            self._end(hold)

    def _begin(self, hold: Hold) -> None:
        if hold.image_ids is None:
            self._content.watch()
            self._snapshots.layers.watch()
            return
        for image_id in hold.image_ids:
            if (parts := self.needs.parts(image_id)) is not None:
                self.needs.put(hold.owner(image_id), parts)

    def _end(self, hold: Hold) -> None:
        if hold.image_ids is not None:
            for image_id in hold.image_ids:
                self.loosen(self.needs.drop(hold.owner(image_id)))
        elif not self.holds.unbounded:
            self._loose_blobs |= self._content.settle()
            self._loose_layers |= self._snapshots.layers.settle()
        self.collect()
        if hold.image_ids is None:
            self.after_hold()

    def loosen(self, freed: Freed) -> None:
        """Note what an image has let go, for the next `collect`."""
        self._loose_blobs.update(freed.blobs)
        if freed.chain is not None:
            self._loose_layers.add(freed.chain)

    def _loosen_layer(self, chain: ChainID) -> None:
        """A container's layer is gone from above `chain`."""
        if not self.needs.needs_chain(chain):
            self._loose_layers.add(chain)
            self.collect()

    def collect(self) -> None:
        """Delete what was let go and nothing needs, unless an operation has seen it."""
        retired = []
        for digest in list(self._loose_blobs):
            if self._content.seen(digest):
                continue  # looked at again when the operations have ended
            try:
                path = None if self.needs.needs_blob(digest) else self._content.retire(digest)
            except OSError as error:
                log.warning("images: %s could not be deleted yet: %s", digest, error)
                continue
            self._loose_blobs.discard(digest)
            if path is not None:
                retired.append(path)
        for chain in list(self._loose_layers):
            if self._snapshots.layers.seen(chain):
                continue
            try:
                self._snapshots.release(chain, self.needs.needs_chain)
            except OSError as error:  # a full disk may have no room for a name in trash/
                log.warning("images: layer %s could not be deleted yet: %s", chain, error)
            else:
                self._loose_layers.discard(chain)
        if retired:
            _unlink_soon(retired)


def _unlink_soon(paths: Sequence[str]) -> None:
    """Delete files in a thread: a big one takes milliseconds. Without a loop, at once."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        _unlink_all(paths)
    else:
        loop.run_in_executor(None, _unlink_all, paths)


def _unlink_all(paths: Sequence[str]) -> None:
    for path in paths:
        try:
            os.unlink(path)
        except OSError as error:
            # It goes with the other leftovers when the store opens next.
            log.warning("images: %s could not be deleted yet: %s", path, error)
