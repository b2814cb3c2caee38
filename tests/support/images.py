"""An image service on its own root, and what it tells its engine."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sampan.content.store import ContentStore
from sampan.images.image import Image
from sampan.images.service import Images
from sampan.snapshots.overlay import Snapshotter
from sampan.state.database import Database
from sampan.state.images import ImageRows


class ImageWorld:
    """The parts around an image service, reopened at will."""

    def __init__(self, root: Path, registries: Any = None) -> None:
        self.root = root
        self.registries = registries
        root.mkdir(exist_ok=True)
        self.events: list[tuple[str, str, dict[str, str]]] = []
        self.messages: list[dict[str, Any]] = []
        self.users: dict[str, list[tuple[str, bool]]] = {}
        self.open()

    def open(self) -> None:
        self.content = ContentStore(str(self.root))
        self.snapshots = Snapshotter(str(self.root))
        self.database = Database(str(self.root / "engine.db"))
        self.images = Images(
            content=self.content,
            snapshots=self.snapshots,
            rows=ImageRows(self.database),
            emit=lambda *event: self.events.append(event),
            in_use=lambda identity: self.users.get(identity, []),
            registries=self.registries,
        )

    def close(self) -> None:
        self.snapshots.close()
        self.database.close()

    def reopen(self) -> None:
        self.close()
        self.open()

    async def load(self, data: bytes, *, quiet: bool = False) -> list[str]:
        return await self.images.load(pieces(data), quiet=quiet, progress=self.messages.append)

    async def save(self, *references: str) -> bytes:
        return b"".join([piece async for piece in self.images.save(references)])

    async def pull(self, reference: str, **options: Any) -> list[Image]:
        options = {"tag": None, "platform": None, "credentials": None, **options}
        return await self.images.pull(reference, progress=self.messages.append, **options)

    def blobs(self) -> set[str]:
        return set(os.listdir(self.root / "blobs/sha256"))

    def layers(self) -> set[str]:
        return set(os.listdir(self.root / "layers"))

    def tags(self) -> list[str]:
        return sorted(t for i in self.images.list(all=False, filters={}) for t in i.repo_tags)


async def pieces(data: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
