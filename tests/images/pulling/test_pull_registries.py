"""Pulling from real registries (Debian's docker-registry), also through a proxy that misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sampan.content.store import DigestMismatch
from sampan.errors import NotFound, SampanError, Unavailable
from sampan.images.distribution import host, transport
from sampan.images.distribution.client import Registries
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import RegistryFailure, Temporary
from sampan.images.distribution.settings import LiveSettings, RegistrySettings
from sampan.images.pulling.transfers import Downloads
from support.certificates import Certificates
from support.faulty_proxy import (
    Answer,
    Corrupt,
    Cut,
    FaultyProxy,
    IgnoreRange,
    Redirect,
    Stall,
    WrongLength,
)
from support.images import ImageWorld
from support.registries import PASSWORD, USER, Registry
from support.registry_images import Made, layer, put_image

pytestmark = pytest.mark.root

NOBODY = Credentials()


@pytest.fixture
def settings(tmp_path: Path) -> LiveSettings:
    return LiveSettings(RegistrySettings(certs_directories=(str(tmp_path / "certs.d"),)))


@pytest.fixture
async def world(tmp_path: Path, settings: LiveSettings) -> AsyncIterator[ImageWorld]:
    made = ImageWorld(tmp_path / "root", Registries(settings))
    yield made
    await made.registries.close()
    made.close()


@pytest.fixture
def proxy(registry: Registry) -> Iterator[FaultyProxy]:
    made = FaultyProxy(registry)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def short_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Downloads, "second", 0.001)


def put(registry: Registry, **options: Any) -> Made:
    layers = [layer(2_000_000), layer(500_000, seed=1), layer(10, seed=2)]
    return put_image(registry, "team/app", "v1", layers, **options)


def size_of(made: Made) -> int:
    return sum(len(blob.data) for blob in made.layers)


def expect_whole(world: ImageWorld, made: Made) -> None:
    """Everything of the image is there, byte for byte, and nothing else."""
    blobs = [*made.layers, made.config, made.manifest]
    assert world.blobs() == {blob.digest[7:] for blob in blobs}
    for blob in blobs:
        assert (world.root / "blobs/sha256" / blob.digest[7:]).read_bytes() == blob.data
    assert len(world.layers()) == len(made.layers)
    assert not world.content.partials()


def expect_nothing(world: ImageWorld) -> None:
    assert not world.blobs() and not world.layers() and not world.tags()


# -- Kinds of registries ------------------------------------------------------------------------


@pytest.mark.parametrize("dockers", [False, True])
@pytest.mark.parametrize("compression", ["gzip", ""])
async def test_manifests_and_layers(
    world: ImageWorld, registry: Registry, dockers: bool, compression: str
) -> None:
    made = put(registry, docker=dockers, compression=compression)
    [image] = await world.pull(f"{registry.address}/team/app", tag="v1")
    assert image.id == made.id
    expect_whole(world, made)


async def test_a_password(world: ImageWorld, password_registry: Registry) -> None:
    made = put(password_registry)
    name = f"{password_registry.address}/team/app"
    with pytest.raises(SampanError, match="no basic auth credentials"):
        await world.pull(name, tag="v1")
    await world.pull(name, tag="v1", credentials=Credentials(USER, PASSWORD))
    expect_whole(world, made)


async def test_tokens(world: ImageWorld, token_registry: Registry) -> None:
    made = put(token_registry)
    name = f"{token_registry.address}/team/app"
    await world.pull(name, tag="v1", credentials=Credentials(USER, PASSWORD))
    expect_whole(world, made)


async def test_a_private_authority(
    world: ImageWorld,
    tls_registry: Registry,
    certificates: Certificates,
    settings: LiveSettings,
    tmp_path: Path,
) -> None:
    made = put(tls_registry)
    certificates.trust(str(tmp_path / "certs.d"), tls_registry.address)
    await world.pull(f"{tls_registry.address}/team/app", tag="v1")
    expect_whole(world, made)


# -- Faults -------------------------------------------------------------------------------------


async def test_a_cut_costs_no_byte_twice(
    world: ImageWorld, registry: Registry, proxy: FaultyProxy
) -> None:
    made = put(registry)
    proxy.fault(Cut(700_000), path=made.layers[0].digest, times=2)
    await world.pull(f"{proxy.address}/team/app", tag="v1")
    expect_whole(world, made)
    assert proxy.count(made.layers[0].digest) == 3
    assert proxy.sent("/blobs/") == size_of(made) + len(made.config.data)


async def test_a_stall_is_ended_and_continued(
    world: ImageWorld,
    registry: Registry,
    proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def impatient(*arguments: Any, **options: Any) -> Any:
        return transport.Request(*arguments, **{**options, "idle_s": 0.3})

    monkeypatch.setattr(host, "Request", impatient)
    made = put(registry)
    proxy.fault(Stall(700_000), path=made.layers[0].digest)
    await world.pull(f"{proxy.address}/team/app", tag="v1")
    expect_whole(world, made)
    assert proxy.sent("/blobs/") <= size_of(made) + len(made.config.data)


async def test_another_digest(world: ImageWorld, registry: Registry, proxy: FaultyProxy) -> None:
    made = put(registry)
    proxy.fault(Corrupt(1000), path=made.layers[0].digest)
    with pytest.raises(DigestMismatch, match=made.layers[0].digest):
        await world.pull(f"{proxy.address}/team/app", tag="v1")
    expect_nothing(world)
    await world.pull(f"{proxy.address}/team/app", tag="v1")
    expect_whole(world, made)


async def test_a_config_of_another_digest(
    world: ImageWorld, registry: Registry, proxy: FaultyProxy
) -> None:
    made = put(registry)
    proxy.fault(Corrupt(30), path=made.config.digest)
    with pytest.raises(DigestMismatch, match=made.config.digest):
        await world.pull(f"{proxy.address}/team/app", tag="v1")
    expect_nothing(world)


@pytest.mark.parametrize("by", [-1, 1, 1 << 40])
async def test_another_length(
    world: ImageWorld, registry: Registry, proxy: FaultyProxy, by: int
) -> None:
    made = put(registry)
    proxy.fault(WrongLength(by), path=made.layers[0].digest, times=None)
    with pytest.raises((RegistryFailure, Temporary)):
        await world.pull(f"{proxy.address}/team/app", tag="v1")
    expect_nothing(world)
    proxy.heal()
    await world.pull(f"{proxy.address}/team/app", tag="v1")
    expect_whole(world, made)


async def test_a_server_that_ignores_ranges(
    world: ImageWorld, registry: Registry, proxy: FaultyProxy
) -> None:
    made = put(registry)
    proxy.fault(Cut(700_000), path=made.layers[0].digest)
    proxy.fault(IgnoreRange(), path=made.layers[0].digest)
    await world.pull(f"{proxy.address}/team/app", tag="v1")
    expect_whole(world, made)


@pytest.mark.parametrize(
    ("status", "kind"), [(401, SampanError), (403, SampanError), (404, NotFound)]
)
async def test_a_layer_is_refused(
    world: ImageWorld, registry: Registry, proxy: FaultyProxy, status: int, kind: type[Exception]
) -> None:
    made = put(registry)
    proxy.fault(Answer(status), path=made.layers[1].digest, times=None)
    with pytest.raises(kind):
        await world.pull(f"{proxy.address}/team/app", tag="v1")
    expect_nothing(world)


async def test_too_many_requests_are_waited_out(
    world: ImageWorld, registry: Registry, proxy: FaultyProxy
) -> None:
    made = put(registry)
    proxy.fault(Answer(429, {"Retry-After": "3"}), path=made.layers[0].digest)
    await world.pull(f"{proxy.address}/team/app", tag="v1")
    expect_whole(world, made)
    waits = [m["status"] for m in world.messages if m["status"].startswith("Retrying")]
    assert waits == ["Retrying in 3 seconds", "Retrying in 2 seconds", "Retrying in 1 second"]


async def test_server_errors_that_pass_and_that_do_not(
    world: ImageWorld, registry: Registry, proxy: FaultyProxy
) -> None:
    made = put(registry)
    proxy.fault(Answer(500), path=made.layers[0].digest, times=None)
    with pytest.raises(Unavailable, match=made.layers[0].digest[7:19]):
        await world.pull(f"{proxy.address}/team/app", tag="v1")
    expect_nothing(world)
    assert proxy.count(made.layers[0].digest) >= 5
    proxy.heal()
    proxy.fault(Answer(503), path=made.layers[0].digest, times=3)
    await world.pull(f"{proxy.address}/team/app", tag="v1")
    expect_whole(world, made)


async def test_a_circle_of_redirects(
    world: ImageWorld, registry: Registry, proxy: FaultyProxy
) -> None:
    made = put(registry)
    proxy.fault(Redirect(), path=made.layers[0].digest, times=None)
    with pytest.raises(SampanError, match="redirects"):
        await world.pull(f"{proxy.address}/team/app", tag="v1")
    expect_nothing(world)
    assert proxy.count(made.layers[0].digest) < 60


async def test_another_host_gets_no_credentials(
    world: ImageWorld, password_registry: Registry
) -> None:
    made = put(password_registry)
    elsewhere = Registry(password_registry.directory + "-open")
    put(elsewhere)
    first, second = FaultyProxy(password_registry), FaultyProxy(elsewhere, host="127.0.0.3")
    try:
        first.fault(Redirect(second.url), path="/blobs/", times=None)
        credentials = Credentials(USER, PASSWORD)
        await world.pull(f"{first.address}/team/app", tag="v1", credentials=credentials)
        expect_whole(world, made)
        assert second.sent("/blobs/") == size_of(made) + len(made.config.data)
        assert not any(request.authorization for request in second.requests)
    finally:
        first.close()
        second.close()
        elsewhere.stop()


async def test_a_cancelled_pull_is_continued(
    world: ImageWorld, registry: Registry, proxy: FaultyProxy
) -> None:
    made = put(registry)
    proxy.fault(Stall(1_500_000), path=made.layers[0].digest)
    pulling = asyncio.ensure_future(world.pull(f"{proxy.address}/team/app", tag="v1"))
    while proxy.sent(made.layers[0].digest) < 1_500_000 or (
        sum(message["status"] == "Pull complete" for message in world.messages) < 2
    ):
        await asyncio.sleep(0.01)
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    proxy.heal()
    expect_nothing(world)
    world.reopen()
    before = sum(size for _, size, _ in world.content.partials())
    assert before > size_of(made) - 2_000_000 + 1_000_000
    proxy.reset()
    await world.pull(f"{proxy.address}/team/app", tag="v1")
    expect_whole(world, made)
    assert proxy.sent("/blobs/") == size_of(made) - before + len(made.config.data)


async def test_two_pulls_fetch_what_they_share_once(
    world: ImageWorld, registry: Registry, proxy: FaultyProxy
) -> None:
    base = layer(2_000_000)
    one = put_image(registry, "team/app", "v1", [base, layer(10, seed=1)])
    two = put_image(registry, "team/app", "v2", [base, layer(10, seed=2)])
    name = f"{proxy.address}/team/app"
    await asyncio.gather(world.pull(name, tag="v1"), world.pull(name, tag="v2"))
    assert proxy.sent(one.layers[0].digest) == len(one.layers[0].data)
    assert proxy.count(one.layers[0].digest) == 1
    assert sorted(world.tags()) == [f"{name}:v1", f"{name}:v2"]
    assert two.id in {image.id for image in world.images.list(all=False, filters={})}


async def test_the_limit_of_downloads_follows_the_settings(
    world: ImageWorld, registry: Registry, settings: LiveSettings
) -> None:
    made = put(registry)
    settings.current = replace(settings.current, max_concurrent_downloads=1)
    await world.pull(f"{registry.address}/team/app", tag="v1")
    expect_whole(world, made)
    assert sum(message["status"] == "Waiting" for message in world.messages) == 2
