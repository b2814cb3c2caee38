"""`rmi`: names taken away, images deleted with their last one, and the nameless parents with them."""

from __future__ import annotations

from sampan.errors import Conflict
from sampan.images.catalog import Catalog
from sampan.images.image import Image
from sampan.images.register import Register
from sampan.images.removal import InUse, Users, check_delete, check_untag, is_single_reference
from sampan.oci.reference import parse_reference

Removed = list[dict[str, str]]
"""What was done: `{"Untagged": name}`, `{"Deleted": digest}`."""


class Remover:
    """Removes images of one engine."""

    def __init__(self, catalog: Catalog, register: Register, in_use: InUse) -> None:
        self._catalog = catalog
        self._register = register
        self._in_use = in_use

    def remove(self, image: Image, text: str, *, force: bool, prune: bool) -> Removed:
        """Remove what `text` means, which is `image` or a name of it.

        With `prune` the images that it was committed on go, too, as far as they have no name and
        nothing needs them.

        Raises:
            Conflict: dockerd's texts.
        """
        users = self._in_use(image.id)
        if self._catalog.is_id_prefix(image, text):
            removed = self._by_id(image, users, force=force)
        else:
            removed = self._by_name(image, text, users, force=force)
        if prune and self._catalog.by_id(image.id) is not image:
            removed += self._parents_of(image)
        self._register.publish()
        return removed

    def _by_name(self, image: Image, text: str, users: Users, *, force: bool) -> Removed:
        if not force:
            check_untag(image, text, users)
        parsed = parse_reference(text)
        named = parsed.without_tag() if parsed.digest else parsed.with_default_tag()
        gone = [named]
        same_repository = [r for r in image.references if r.repository == named.repository]
        if not named.digest and not any(not r.digest and r != named for r in same_repository):
            gone += [r for r in same_repository if r.digest]
        removed = [self._register.untag(image, item) for item in gone]
        if image.references:
            return removed
        try:
            self._check(image, users, force=force, referenced=False)
        except Conflict:
            return removed  # the name is gone, the image stays without one: what dockerd does
        return removed + self._register.delete(image)

    def _by_id(self, image: Image, users: Users, *, force: bool) -> Removed:
        single = is_single_reference(image.references)
        self._check(image, users, force=force, referenced=bool(image.references) and not single)
        removed = [self._register.untag(image, reference) for reference in list(image.references)]
        return removed + self._register.delete(image)

    def _check(self, image: Image, users: Users, *, force: bool, referenced: bool) -> None:
        children = any(other.record.parent == image.id for other in self._catalog)
        check_delete(image, users, force=force, referenced=referenced, children=children)

    def _parents_of(self, image: Image) -> Removed:
        """Delete the nameless images that this one was committed on, up to one that is needed."""
        removed: Removed = []
        parent = self._catalog.by_id(image.record.parent)
        while parent is not None and not parent.references:
            try:
                self._check(parent, self._in_use(parent.id), force=False, referenced=False)
            except Conflict:
                break
            removed += self._register.delete(parent)
            parent = self._catalog.by_id(parent.record.parent)
        return removed
