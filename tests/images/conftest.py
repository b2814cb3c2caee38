"""Image services to test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.images import ImageWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ImageWorld]:
    made = ImageWorld(tmp_path / "root")
    yield made
    made.close()


@pytest.fixture
def second(tmp_path: Path) -> Iterator[ImageWorld]:
    """Another engine's images, to carry archives to."""
    made = ImageWorld(tmp_path / "second")
    yield made
    made.close()
