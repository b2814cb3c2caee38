"""`sampan system df --why`: what holds an object, or when it goes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from sampan.engine.container import Container
from sampan.engine.containers import Containers
from sampan.engine.disk import Kind, Owner
from sampan.engine.volumes import Volumes
from sampan.errors import InvalidArgument, NotFound, SampanError
from sampan.images.image import Image
from sampan.images.keeping.upkeep import PARTIAL_KEPT_S
from sampan.images.service import Images
from sampan.oci.digest import ChainID, Digest
from sampan.oci.go_time import format_time
from sampan.snapshots.layers import Layer
from sampan.snapshots.overlay import tree_size

Answer = dict[str, Any]

_ENGINE_TEXTS = {
    "l": "short names of the layers, for overlayfs",
    "index.json": "the images' entry points for other tools that read the OCI layout",
    "oci-layout": "says that the data root is an OCI image layout",
}


class Holders:
    """Looks through images, containers and operations for who needs something."""

    def __init__(self, images: Images, containers: Containers, volumes: Volumes) -> None:
        self._images = images
        self._upkeep = images.upkeep
        self._containers = containers
        self._volumes = volumes

    # -- By what the user wrote -------------------------------------------------------------------

    async def of_name(self, wanted: str) -> list[Answer]:
        """Everything that a name, an ID or the beginning of one means.

        Raises:
            NotFound: nothing.
        """
        found: list[Answer] = []
        for container in self._containers_named(wanted):
            found.append(await self._of_container(container))
        if self._volumes.holds(wanted):
            found.append(await self._of_volume(wanted))
        image = self._image_named(wanted)
        if image is not None:
            found.append(self._of_image(image))
        prefix = wanted.removeprefix("sha256:")
        if len(prefix) >= 4 and set(prefix) <= set("0123456789abcdef"):
            found += [self._of_layer(layer) for layer in self._layers_named(prefix)]
            found += self._blobs_named(prefix, image)
        if not found:
            raise NotFound(
                f"nothing that takes space here is called {wanted}",
                hint="name an image, a container, a volume, a digest, a layer's chain or diff ID, or a path "
                "below the data root",
            )
        return found

    async def of_owner(self, owner: Owner, path: str) -> Answer:
        """Of the owner of a path."""
        match owner.kind:
            case Kind.CONTAINER:
                try:
                    return await self._of_container(self._containers.get(owner.key))
                except NotFound:
                    return _answer(owner.kind, owner.key, 0, goes="nothing holds it; it is removed when the engine starts next")  # fmt: skip
            case Kind.VOLUME if self._volumes.holds(owner.key):
                return await self._of_volume(owner.key)
            case Kind.BLOB:
                return self._of_blob(Digest(owner.key))
            case Kind.LAYER:
                layer = self._upkeep.snapshots.layers.find(ChainID(owner.key))
                if layer is not None:
                    return self._of_layer(layer)
            case Kind.DOWNLOAD:
                if (download := self._of_download(Digest(owner.key))) is not None:
                    return download
            case Kind.OPERATION:
                return _answer(owner.kind, owner.key, 0, held_by=self._operations(), goes="it goes when the operation ends")  # fmt: skip
            case _:
                return _answer(owner.kind, owner.key, 0, goes=_other_text(owner))
        raise NotFound(f"{path}: there is no such {owner.kind.value} any more")

    # -- One object -------------------------------------------------------------------------------

    def _of_image(self, image: Image) -> Answer:
        space = self._upkeep.space.by_image().get(image.id)
        if space is None:
            return _answer("image", image.id, 0, names=["host"], goes="the machine's own root: it takes no space")  # fmt: skip
        held = [_holder("name", str(ref), ref.familiar) for ref in image.references]
        users = self._containers.using_image(image.id)
        held += [_container_holder(container) for container in users]
        held += self._reading(image)
        children = [child for child in self._all() if child.record.parent == image.id]
        held += [_holder("child", child.id, child.id) for child in children]
        if image.record.pinned:
            held.append(_holder("pin", image.id, "pinned: the disk budget leaves it alone"))
        return _answer(
            "image",
            image.id,
            space.size,
            names=[ref.familiar for ref in image.references],
            held_by=held,
            freed=space.size - space.shared,
            goes=self._image_goes(image, bool(users), bool(children)),
        )

    def _image_goes(self, image: Image, used: bool, has_children: bool) -> str:
        if used:
            return "it stays while a container was made from it"
        if has_children:
            return "it stays while there is an image that was committed on it"
        if not image.repo_tags:
            return "it has no tag and no container: `image prune` removes it"
        if self._upkeep.budget_bytes and not image.record.pinned:
            return "`rmi` or `image prune -a` removes it, or the disk budget when it was unused longest"  # fmt: skip
        return "`rmi` or `image prune -a` removes it"

    def _of_blob(self, digest: Digest) -> Answer:
        needs = self._upkeep.register.needs
        images = [image for image in self._all() if image.id in needs.owners_of_blob(digest)]
        held = [_image_holder(image) for image in images]
        if needs.owners_of_blob(digest) or self._upkeep.content.seen(digest):
            held += self._operations(digest)
        size = self._upkeep.content.size(digest)
        goes = "it goes with the last of these" if held else "nothing holds it; it goes at once"
        return _answer("blob", digest, size, held_by=held, freed=size, goes=goes)

    def _of_layer(self, layer: Layer) -> Answer:
        images = self._upkeep.space.users_of_layer(layer.chain)
        held = [_image_holder(image) for image in images]
        held += [
            _container_holder(container)
            for container in self._containers.list()
            if layer.chain in self._chains_of(container)
        ]
        if self._upkeep.snapshots.layers.seen(layer.chain):
            held += self._operations()
        goes = "it goes with the last of these" if held else "nothing holds it; it goes at once"
        return _answer(
            "layer", layer.chain, layer.size,
            names=[f"diff ID {layer.diff_id}"], held_by=held, freed=layer.size, goes=goes,
        )  # fmt: skip

    def _of_download(self, digest: Digest) -> Answer | None:
        for found, size, written_ns in self._upkeep.content.partials():
            if found != digest:
                continue
            ends_ns = written_ns + PARTIAL_KEPT_S * 1_000_000_000
            age_s = max(0, time.time_ns() - written_ns) // 1_000_000_000
            held = self._operations() if self._upkeep.content.seen(digest) else []
            goes = (
                f"the next pull goes on with it; last written {age_s} s ago, it is deleted after "
                f"{format_time(ends_ns // 1_000_000_000 * 1_000_000_000)}"
            )
            return _answer("download", digest, size, held_by=held, freed=size, goes=goes)
        return None

    async def _of_container(self, container: Container) -> Answer:
        written, _ = await self._containers.size(container.id)
        log_bytes = await asyncio.to_thread(tree_size, container.directory)
        held = []
        if container.state.running:
            held.append(_holder("process", str(container.state.pid), str(container.state.pid)))
            goes = "it runs; `rm -f` ends and removes it"
        elif container.state.restarting:
            goes = "its restart policy starts it again; `rm -f` removes it"
        elif container.host_config.auto_remove:
            goes = "it is removed when it has run"
        else:
            goes = "`rm` or `container prune` removes it"
        return _answer(
            "container", container.id, written + log_bytes,
            names=[container.name], held_by=held, freed=written + log_bytes, goes=goes,
        )  # fmt: skip

    async def _of_volume(self, name: str) -> Answer:
        size = await asyncio.to_thread(tree_size, self._volumes.get(name).path)
        held = [_container_holder(container) for container in self._volumes.users(name)]
        goes = "containers have it" if held else "no container has it"
        return _answer(
            "volume", name, size,
            held_by=held, freed=size, goes=f"{goes}: `volume rm` removes it when nobody has it",
        )  # fmt: skip

    # -- Who needs a layer ------------------------------------------------------------------------

    def needed_layers(self) -> set[ChainID]:
        """The layers that images and containers stand on."""
        needed = set(self._upkeep.space.layer_uses())
        for container in self._containers.list():
            needed |= self._chains_of(container)
        return needed

    def _chains_of(self, container: Container) -> set[ChainID]:
        try:
            parent = self._upkeep.snapshots.parent(container.id)
        except NotFound:
            return set()
        if not parent.startswith("sha256:"):
            return set()
        return {layer.chain for layer in self._upkeep.space.stack(ChainID(parent))}

    # -- Looking up -------------------------------------------------------------------------------

    def _all(self) -> list[Image]:
        return self._images.list(all=True, filters={})

    def _containers_named(self, wanted: str) -> list[Container]:
        try:
            return [self._containers.get(wanted)]
        except (NotFound, InvalidArgument):
            return []

    def _image_named(self, wanted: str) -> Image | None:
        try:
            return self._images.resolve(wanted)
        except SampanError:
            return None

    def _layers_named(self, prefix: str) -> list[Layer]:
        return [
            layer
            for layer in self._upkeep.snapshots.layers.all()
            if layer.chain.startswith(prefix, 7) or layer.diff_id.startswith(prefix, 7)
        ]

    def _blobs_named(self, prefix: str, image: Image | None) -> list[Answer]:
        """Blobs and downloads; an image's config is the image, which was told already."""
        content = self._upkeep.content
        own = image.id if image is not None else None
        blobs = [
            digest for digest in content.digests() if digest.startswith(prefix, 7) and digest != own
        ]
        downloads = [
            self._of_download(digest)
            for digest, _, _ in content.partials()
            if digest.startswith(prefix, 7)
        ]
        return [
            *(self._of_blob(digest) for digest in blobs),
            *(answer for answer in downloads if answer is not None),
        ]

    # -- Operations -------------------------------------------------------------------------------

    def _operations(self, digest: Digest | None = None) -> list[Answer]:
        """Those under way that may need anything, or read an image with this blob."""
        needs = self._upkeep.register.needs
        owners = set(needs.owners_of_blob(digest)) if digest else set()
        return [
            _holder("operation", hold.what, f"{hold.what}, since {format_time(hold.began_ns)}")
            for hold in self._upkeep.register.holds
            if hold.image_ids is None or any(hold.owner(i) in owners for i in hold.image_ids)
        ]

    def _reading(self, image: Image) -> list[Answer]:
        return [
            _holder("operation", hold.what, f"{hold.what}, since {format_time(hold.began_ns)}")
            for hold in self._upkeep.register.holds
            if hold.image_ids is not None and image.id in hold.image_ids
        ]


def _answer(
    kind: str,
    identity: str,
    size: int,
    *,
    goes: str,
    names: list[str] | None = None,
    held_by: list[Answer] | None = None,
    freed: int = 0,
) -> Answer:
    return {
        "Kind": str(kind),
        "Id": identity,
        "Names": names or [],
        "Bytes": size,
        "HeldBy": held_by or [],
        "FreedBytes": freed,
        "Goes": goes,
    }


def _holder(kind: str, identity: str, text: str) -> Answer:
    return {"Kind": kind, "Id": identity, "Text": text}


def _image_holder(image: Image) -> Answer:
    names = ", ".join(reference.familiar for reference in image.references)
    return _holder("image", image.id, names or "no name")


def _container_holder(container: Container) -> Answer:
    text = f"{container.name} ({container.state.status.value})"
    return _holder("container", container.id, text)


def _other_text(owner: Owner) -> str:
    match owner.kind:
        case Kind.REMOVAL:
            return "it is being deleted; what cannot be deleted now is tried again when the engine starts"  # fmt: skip
        case Kind.POOL:
            return "empty directories that wait for the next containers"
        case Kind.PROFILE:
            return "a compiled seccomp filter; it is deleted when no container used it for a week"
        case Kind.VOLUME:
            return "a volume that the engine does not know; it is left alone"
        case Kind.ENGINE:
            return _ENGINE_TEXTS.get(owner.key, "the engine's own")
        case _:
            return "nothing that Sampan made; it is left alone"
