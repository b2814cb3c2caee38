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


def test_times_before_all_times(tmp_path: Path) -> None:
    """An image without a time of creation is from the year 1, in nanoseconds more than 64 bits."""
    rows = ImageRows(Database(str(tmp_path / "engine.db")))
    record = ImageRecord(manifest_media_type="m", manifest_digest="sha256:1", manifest_size=3)
    for number, time_ns in enumerate((-62_135_596_800 * 10**9, 253_402_300_799 * 10**9)):
        rows.put(ImageRow(f"sha256:{number}", time_ns, record))
    assert len(rows.images()) == 2
    rows.database.close()
