"""Rows of images survive, and references follow their images."""

from pathlib import Path

from sampan.state.database import Database
from sampan.state.images import ImageRecord, ImageRow, ImageRows


def test_rows(tmp_path: Path) -> None:
    path = str(tmp_path / "engine.db")
    database = Database(path)
    rows = ImageRows(database)
    record = ImageRecord(manifest_media_type="m", manifest_digest="sha256:1", manifest_size=3)
    one, two = ImageRow("sha256:a", 5, record), ImageRow("sha256:b", -(10**18), record)
    for row in (one, two, one):
        rows.put(row)
    rows.refer("docker.io/library/x:1", one.id)
    rows.refer("docker.io/library/x:1", two.id)
    rows.refer("docker.io/library/y:1", one.id)
    rows.unrefer("docker.io/library/z:1")
    database.close()

    rows = ImageRows(Database(path))
    assert rows.images() == [one, two]
    assert rows.references() == [
        ("docker.io/library/x:1", two.id),
        ("docker.io/library/y:1", one.id),
    ]
    rows.delete(two.id)
    assert rows.references() == [("docker.io/library/y:1", one.id)]
    rows.database.close()
