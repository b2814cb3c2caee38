"""A zygote of its own for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shim.containers import Machine


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    async with Machine(str(tmp_path)) as machine:
        yield machine
    assert (tmp_path / "run" / "zygote.log").read_text() == ""
