"""Rows of images and of the references that name them."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from sampan.state.database import Database


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of an image beside its blobs.

    `manifest_*` describe the manifest blob; the config blob is the image ID. `tagged_ns` is when
    it was last tagged (0: never). `parent` is the image that it was committed on ("": none).
    `index_digest` is the index that the manifest was chosen from, where that is stored, too ("":
    none): it tells of the other platforms. `used_ns` is when it was added or a container was made
    from it last, to the minute. A `pinned` image stays when the disk budget is exceeded.

    A field that is added gets a default, so that rows of older versions still load.
    """

    manifest_media_type: str
    manifest_digest: str
    manifest_size: int
    tagged_ns: int = 0
    parent: str = ""
    index_digest: str = ""
    used_ns: int = 0
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image: its ID (`sha256:…`), creation time (Unix ns) and record."""

    id: str
    created_ns: int
    record: ImageRecord


_decode = msgspec.json.Decoder(ImageRecord).decode


class ImageRows:
    """Images and references in the database; every change is one transaction, or part of the
    caller's."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def images(self) -> list[ImageRow]:
        rows = self.database.read("SELECT id, created_ns, record FROM images")
        return [ImageRow(id, created_ns, _decode(record)) for id, created_ns, record in rows]

    def references(self) -> list[tuple[str, str]]:
        """All (full reference, image ID) pairs."""
        return [
            (reference, image_id)
            for reference, image_id in self.database.read(
                "SELECT reference, image_id FROM image_references ORDER BY reference"
            )
        ]

    def put(self, row: ImageRow) -> None:
        """Add an image, or replace the record of the one with this ID."""
        self.database.execute(
            "INSERT INTO images (id, created_ns, record) VALUES (?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET record = excluded.record",
            (row.id, _storable(row.created_ns), msgspec.json.encode(row.record)),
        )

    def refer(self, reference: str, image_id: str) -> None:
        """Point a reference at an image, away from where it pointed before."""
        self.database.execute(
            "INSERT INTO image_references (reference, image_id) VALUES (?, ?)"
            " ON CONFLICT (reference) DO UPDATE SET image_id = excluded.image_id",
            (reference, image_id),
        )

    def unrefer(self, reference: str) -> None:
        self.database.execute("DELETE FROM image_references WHERE reference = ?", (reference,))

    def delete(self, image_id: str) -> None:
        """Remove an image and every reference to it."""
        self.database.execute("DELETE FROM images WHERE id = ?", (image_id,))


def _storable(time_ns: int) -> int:
    """The nearest time that fits into 64 bits: an image may be from the year 1, or from none."""
    return max(-(1 << 63), min(time_ns, (1 << 63) - 1))
