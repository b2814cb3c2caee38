"""What images take on the disk: layers and blobs, each counted once, and who shares them.

Known from the rows, the manifests and the layers' records; nothing here walks a tree. The size of a
layer is the sum of its regular files, as Docker counts, of a blob its length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sampan.images.image import Image
from sampan.images.needs import Needs
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
        seen: dict[ChainID, int] = {}
        for image in images:
            for layer in self.stack(image.chain_id):
                if layer.chain in seen:
                    break  # and so is all below it
                seen[layer.chain] = layer.size
        return sum(seen.values())

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
        uses = self.layer_uses()
        return {image.id: self._of_image(image, uses) for image in self._images}

    def layer_uses(self) -> Counter[ChainID]:
        """By how many images each layer is used."""
        return Counter(
            layer.chain for image in self._images for layer in self.stack(image.chain_id)
        )

    def users_of_layer(self, chain: ChainID) -> list[Image]:
        """The images that have this layer in their stack."""
        return [
            image
            for image in self._images
            if any(layer.chain == chain for layer in self.stack(image.chain_id))
        ]

    def stack(self, chain: ChainID | None) -> Iterator[Layer]:
        """The layers of a chain, top first, as far as they exist."""
        layer = self._layers.find(chain) if chain else None
        while layer is not None:
            yield layer
            layer = self._layers.find(layer.parent) if layer.parent else None

    def _of_image(self, image: Image, uses: Counter[ChainID]) -> ImageSpace:
        size = shared = 0
        for layer in self.stack(image.chain_id):
            size += layer.size
            if uses[layer.chain] > 1:
                shared += layer.size
        parts = self._needs.parts(image.id)
        for digest, length in (parts.blobs if parts is not None else {}).items():
            size += length
            if self._needs.is_shared(digest):
                shared += length
        return ImageSpace(size, shared)
