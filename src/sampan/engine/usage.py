"""`docker system df`: what images and containers take, from what is known of them.

An image's size here is what it takes on the disk: its layers, and the blobs that push and save send
(`docker images` shows the layers alone). So the sums are those of the disk, and what `image prune`
says that it gave back.
"""

from __future__ import annotations

from dataclasses import dataclass

from sampan.engine.containers import Containers
from sampan.images.image import Image
from sampan.images.keeping.space import ImageSpace
from sampan.images.service import Images


@dataclass(frozen=True, slots=True)
class ImagesUsage:
    """Images by ID with their bytes; `total_bytes` counts what is shared once."""

    images: list[Image]
    spaces: dict[str, ImageSpace]
    containers: dict[str, int]
    total_bytes: int
    reclaimable_bytes: int

    @property
    def active(self) -> int:
        """How many images some container was made from."""
        return sum(1 for image in self.images if self.containers.get(image.id))


@dataclass(frozen=True, slots=True)
class ContainersUsage:
    """Bytes of each container by ID: (its writable layer, that and its image)."""

    sizes: dict[str, tuple[int, int]]
    active: int
    total_bytes: int
    reclaimable_bytes: int


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Downloads that broke off and wait for the next pull: how many, and their bytes."""

    partials: int
    partial_bytes: int


class Usage:
    """What the parts of one engine take on the disk."""

    def __init__(self, images: Images, containers: Containers) -> None:
        self._images = images
        self._containers = containers

    def images(self) -> ImagesUsage:
        """Of the images; walks nothing."""
        space = self._images.upkeep.space
        images = self._images.list(all=True, filters={})
        using: dict[str, int] = {}
        for container in self._containers.list():
            using[container.image[0]] = using.get(container.image[0], 0) + 1
        total = space.total()
        return ImagesUsage(
            images=images,
            spaces=space.by_image(),
            containers=using,
            total_bytes=total,
            reclaimable_bytes=total - space.of(image for image in images if using.get(image.id)),
        )

    async def containers(self) -> ContainersUsage:
        """Of the containers; walks the writable layers of those that ran since the last look."""
        sizes = await self._containers.sizes()
        running = {c.id for c in self._containers.list() if c.state.running}
        return ContainersUsage(
            sizes=sizes,
            active=len(running & sizes.keys()),
            total_bytes=sum(written for written, _ in sizes.values()),
            reclaimable_bytes=sum(
                written for identity, (written, _) in sizes.items() if identity not in running
            ),
        )

    def leftovers(self) -> Leftovers:
        """Of what belongs to no image yet."""
        partials = self._images.upkeep.content.partials()
        return Leftovers(len(partials), sum(size for _, size, _ in partials))
