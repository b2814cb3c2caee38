"""Which images there are and what names them: a table in memory, filled from the rows at start.

Reads cost no I/O: `resolve` is on the path of every container start.
"""

from __future__ import annotations

from collections.abc import Iterator

from sampan.errors import NotFound
from sampan.images.host import REFERENCE as HOST_REFERENCE
from sampan.images.image import Image
from sampan.oci.digest import is_hex64, parse_digest
from sampan.oci.reference import Reference, parse_reference

_CACHE_MAX = 1024
_HEX = frozenset("0123456789abcdef")


class NoSuchImage(NotFound):
    """No image has that name or ID."""


class Catalog:
    """Images by ID and by reference."""

    def __init__(self, host: Image) -> None:
        self._host = host
        self._images: dict[str, Image] = {}
        self._references: dict[Reference, Image] = {}
        self._resolved: dict[str, Image] = {}

    def __iter__(self) -> Iterator[Image]:
        return iter(list(self._images.values()))

    def by_id(self, identity: str) -> Image | None:
        return self._images.get(identity)

    def by_reference(self, reference: Reference) -> Image | None:
        return self._references.get(_stored_form(reference))

    def tags_of(self, repository: str) -> list[tuple[Reference, Image]]:
        """The tags of one repository and their images."""
        return [
            (reference, image)
            for reference, image in self._references.items()
            if reference.repository == repository and not reference.digest
        ]

    def resolve(self, text: str) -> Image:
        """The image that a name, a name with digest, an ID or the beginning of an ID means.

        Raises:
            BadReference: it cannot be any of these.
            NoSuchImage: there is none.
        """
        image = self._resolved.get(text)
        if image is None:
            image = self._search(text)
            if len(self._resolved) >= _CACHE_MAX:
                self._resolved.clear()
            self._resolved[text] = image
        return image

    def add(self, image: Image) -> None:
        self._images[image.id] = image
        self._resolved.clear()

    def remove(self, image: Image) -> None:
        for reference in image.references:
            self._references.pop(reference, None)
        self._images.pop(image.id, None)
        self._resolved.clear()

    def refer(self, reference: Reference, image: Image) -> Image | None:
        """Point a reference at an image; return the image it pointed at before."""
        previous = self._references.get(reference)
        if previous is image:
            return None
        if previous is not None:
            previous.references.remove(reference)
        self._references[reference] = image
        image.references = sorted([*image.references, reference], key=str)
        self._resolved.clear()
        return previous

    def unrefer(self, reference: Reference) -> None:
        image = self._references.pop(reference)
        image.references.remove(reference)
        self._resolved.clear()

    def is_id_prefix(self, image: Image, text: str) -> bool:
        """Whether a text means an image by its ID and not by a reference."""
        return image.id.removeprefix("sha256:").startswith(text.removeprefix("sha256:"))

    def _search(self, text: str) -> Image:
        named = _named(text)
        if named is None:
            identity = text if ":" in text else f"sha256:{text}"
            image = self._images.get(identity)
            if image is None and identity == self._host.id:
                image = self._host
            if image is None:
                raise NoSuchImage(f"No such image: {identity}")
            return image
        reference = _stored_form(named)
        if reference == HOST_REFERENCE:
            return self._host
        image = self._references.get(reference) or self._by_prefix(text)
        if image is None:
            raise NoSuchImage(f"No such image: {named.with_default_tag().familiar}")
        return image

    def _by_prefix(self, text: str) -> Image | None:
        """The only image whose ID begins so; None also where several do."""
        prefix = text.removeprefix("sha256:")
        if not prefix or not _HEX.issuperset(prefix):
            return None
        candidates = [*self._images.values(), self._host]
        found = [image for image in candidates if image.id.startswith(prefix, 7)]
        return found[0] if len(found) == 1 else None


def _named(text: str) -> Reference | None:
    """The reference that a text is; None where it is a whole ID.

    Raises:
        BadReference: it is neither.
    """
    if is_hex64(text):
        return None
    if text.startswith("sha256:") and len(text) == 71:
        parse_digest(text)
        return None
    return parse_reference(text)


def _stored_form(reference: Reference) -> Reference:
    """With `:latest` where nothing is said; a digest says more than a tag beside it."""
    if reference.digest:
        return reference.without_tag()
    return reference.with_default_tag()
