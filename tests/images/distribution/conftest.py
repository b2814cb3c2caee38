"""A client of registries, with short pauses between tries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sampan.images.distribution import host, uploads
from sampan.images.distribution.client import Registries
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.interface import Repository
from sampan.images.distribution.settings import LiveSettings, RegistrySettings
from sampan.oci.reference import parse_reference

Open = Callable[..., Repository]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(uploads, "PAUSES_S", (0.01, 0.01, 0.01, 0.01))


@pytest.fixture
def settings(tmp_path: Path) -> LiveSettings:
    """No certificates of this machine get in."""
    return LiveSettings(RegistrySettings(certs_directories=(str(tmp_path / "certs.d"),)))


@pytest.fixture
async def registries(settings: LiveSettings) -> AsyncIterator[Registries]:
    made = Registries(settings)
    yield made
    await made.close()


@pytest.fixture
def open_repository(registries: Registries) -> Open:
    """`open_repository("127.0.0.1:5000/team/app", credentials, push=True)`."""

    def opened(
        name: str, credentials: Credentials | None = None, *, push: bool = False
    ) -> Repository:
        return registries.repository(parse_reference(name), credentials, push=push)

    return opened
