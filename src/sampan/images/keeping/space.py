"""What images take on the disk: layers and blobs, each counted once, and who shares them.

Known from the rows, the manifests and the layers' records; nothing here walks a tree. The size of a
layer is the sum of its regular files, as Docker counts, of a blob its length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from sampan.images.image import Image
from sampan.images.keeping.needs import Needs
from sampan.oci.digest import ChainID, Digest
from sampan.snapshots.layers import Layer, Layers


class ImageSpace(NamedTuple):
    """An image's bytes on the disk, and those of them that another image needs, too."""

    size: int
    shared: int


class Space:
    """The images of one engine as bytes."""

    def __init__(self, images: Iterable[Image], needs: Needs, layers: Layers) -> None:
        self._images = images
        self._needs = needs
        self._layers = layers

    def total(self) -> int:
        """The bytes of all that some image needs."""
        return self._needs.blob_bytes + self.of_layers(self._images)

    def of_layers(self, images: Iterable[Image]) -> int:
        """The bytes of these images' layers, each once."""
        seen: set[ChainID] = set()
        total = 0
        for image in images:
            for layer in self.stack(image.parent):
                if layer.chain in seen:
                    break  # and so is all below it
                seen.add(layer.chain)
                total += layer.size
        return total

    def of(self, images: Iterable[Image]) -> int:
        """The bytes that these images need, each once."""
        chosen = list(images)
        blobs: dict[Digest, int] = {}
        for image in chosen:
            if (parts := self._needs.parts(image.id)) is not None:
                blobs.update(parts.blobs)
        return sum(blobs.values()) + self.of_layers(chosen)

    def by_image(self) -> dict[str, ImageSpace]:
        """Every image's part, by its ID."""
        stacks = {image.id: self.stack(image.parent) for image in self._images}
        uses = Counter(layer.chain for stack in stacks.values() for layer in stack)
        return {
            identity: self._of_image(identity, stack, uses) for identity, stack in stacks.items()
        }

    def layer_uses(self) -> Counter[ChainID]:
        """By how many images each layer is used."""
        return Counter(layer.chain for image in self._images for layer in self.stack(image.parent))

    def users_of_layer(self, chain: ChainID) -> list[Image]:
        """The images that have this layer in their stack."""
        return [
            image
            for image in self._images
            if any(layer.chain == chain for layer in self.stack(image.parent))
        ]

    def stack(self, chain: str | None) -> list[Layer]:
        """The layers of a chain, top first, as far as they exist."""
        found: list[Layer] = []
        find = self._layers.find
        layer = find(ChainID(chain)) if chain else None
        while layer is not None:
            found.append(layer)
            layer = find(layer.parent) if layer.parent is not None else None
        return found

    def _of_image(self, identity: str, stack: list[Layer], uses: Counter[ChainID]) -> ImageSpace:
        size = shared = 0
        for layer in stack:
            size += layer.size
            if uses[layer.chain] > 1:
                shared += layer.size
        parts = self._needs.parts(identity)
        if parts is not None:
            for digest, length in parts.blobs.items():
                size += length
                if self._needs.is_shared(digest):
                    shared += length
        return ImageSpace(size, shared)
