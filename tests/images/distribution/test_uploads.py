"""Blobs on their way to Debian's docker-registry, and what happens to them on it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import random
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any, BinaryIO

import pytest

from images.distribution.conftest import Open
from images.distribution.resumable import ResumableRegistry
from sampan.errors import SampanError
from sampan.images.distribution import uploads
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import RegistryFailure, Temporary
from sampan.images.distribution.interface import Repository
from sampan.oci import media_types
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import Digest
from support.faulty_proxy import Answer, CutUpload, FaultyProxy, Header, Redirect
from support.registries import PASSWORD, USER, Registry

SMALL = random.Random(2).randbytes(1000)
LARGE = random.Random(3).randbytes(3_000_000)


class Source:
    """A blob to send: `opened` at which offsets, `told` which progress, `files` still open."""

    def __init__(self, data: bytes) -> None:
        digest = Digest("sha256:" + hashlib.sha256(data).hexdigest())
        self.descriptor = Descriptor(media_type="x", digest=digest, size=len(data))
        self.data = data
        self.opened: list[int] = []
        self.told: list[int] = []
        self.files: list[BinaryIO] = []

    def open_at(self, offset: int) -> BinaryIO:
        self.opened.append(offset)
        file = io.BytesIO(self.data)
        file.seek(offset)
        self.files.append(file)
        return file

    async def send(self, repository: Repository) -> None:
        await repository.upload(self.descriptor, self.open_at, self.told.append)
        assert all(file.closed for file in self.files)


@pytest.fixture
def proxy(registry: Registry) -> Iterator[FaultyProxy]:
    with closing(FaultyProxy(registry)) as made:
        yield made


@pytest.fixture
def repository(proxy: FaultyProxy, open_repository: Open) -> Repository:
    return open_repository(f"{proxy.address}/a", push=True)


@pytest.mark.parametrize("data", [b"", SMALL, LARGE, LARGE[: uploads.SMALL_BYTES + 1]])
async def test_upload(
    registry: Registry, proxy: FaultyProxy, repository: Repository, data: bytes
) -> None:
    source = Source(data)
    await source.send(repository)
    assert registry.blob("a", source.descriptor.digest) == data
    assert source.told == sorted(source.told) and source.told[-1] == len(data)
    sent = [(r.method, r.received) for r in proxy.requests if "/uploads/" in r.path]
    if len(data) <= uploads.SMALL_BYTES:
        assert sent == [("POST", 0), ("PUT", len(data))]
    else:
        assert sent == [("POST", 0), ("PATCH", len(data)), ("PUT", 0)]


@pytest.mark.parametrize("after", [0, 1_000_000, 2_999_999])
async def test_a_cut(
    registry: Registry, proxy: FaultyProxy, repository: Repository, after: int
) -> None:
    """This registry forgets an upload that broke off; it begins anew."""
    source = Source(LARGE)
    proxy.fault(CutUpload(after))
    await source.send(repository)
    assert registry.blob("a", source.descriptor.digest) == LARGE
    assert source.opened == [0, 0] and source.told[-1] == len(LARGE)


@pytest.mark.parametrize("cuts", [[1], [1_000_000], [2_999_999], [300_000] * 9])
async def test_it_goes_on_after_a_cut(open_repository: Open, cuts: list[int]) -> None:
    """As often as it takes, as long as each try brings it further."""
    server = ResumableRegistry()
    await server.start()
    try:
        server.cuts = list(cuts)
        source = Source(LARGE)
        await source.send(open_repository(f"{server.address}/a", push=True))
        assert server.blobs == {source.descriptor.digest: LARGE}
        if cuts == [1]:  # "Range: 0-0" may mean nothing too, so it begins anew
            return
        assert server.received == len(LARGE), "nothing was sent twice"
        assert source.opened == [sum(cuts[:n]) for n in range(len(cuts) + 1)]
        assert [method for method, _ in server.requests].count("POST") == 1
    finally:
        await server.close()


async def test_tries_that_bring_it_no_further(proxy: FaultyProxy, repository: Repository) -> None:
    proxy.fault(CutUpload(0), times=None)
    with pytest.raises(Temporary):
        await Source(LARGE).send(repository)
    assert proxy.count("/uploads/", "PATCH") == uploads.FRUITLESS_TRIES


@pytest.mark.parametrize("data", [SMALL, LARGE])
async def test_the_last_answer_is_lost(
    registry: Registry, proxy: FaultyProxy, repository: Repository, data: bytes
) -> None:
    source = Source(data)
    proxy.fault(CutUpload(end=True), method="PUT")
    await source.send(repository)
    assert registry.blob("a", source.descriptor.digest) == data


async def test_the_registry_forgot_the_upload(
    registry: Registry, proxy: FaultyProxy, repository: Repository
) -> None:
    source = Source(LARGE)
    gone = b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"blob upload unknown"}]}'
    proxy.fault(Answer(404, {}, gone), method="PATCH")
    await source.send(repository)
    assert registry.blob("a", source.descriptor.digest) == LARGE
    assert proxy.count("/uploads/", "POST") == 2


async def test_bytes_out_of_order(
    registry: Registry, proxy: FaultyProxy, repository: Repository
) -> None:
    source = Source(LARGE)
    proxy.fault(Answer(416), method="PATCH")
    await source.send(repository)
    assert registry.blob("a", source.descriptor.digest) == LARGE


async def test_too_much_at_once(
    registry: Registry, proxy: FaultyProxy, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "PATCH_LIMITS", (2_000_000, 1_000_000))
    source = Source(LARGE)
    proxy.fault(Answer(413), method="PATCH", times=2)
    await source.send(repository)
    assert registry.blob("a", source.descriptor.digest) == LARGE
    ranges = [r.headers.get("content-range") for r in proxy.requests if r.method == "PATCH"][2:]
    assert ranges == ["0-999999", "1000000-1999999", "2000000-2999999"]


async def test_too_much_is_said_before_it_is_read(
    open_repository: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "PATCH_LIMITS", (2_000_000, 1_000_000))
    server = ResumableRegistry()
    await server.start()
    try:
        server.largest = 1_000_000
        source = Source(LARGE)
        await source.send(open_repository(f"{server.address}/a", push=True))
        assert server.blobs == {source.descriptor.digest: LARGE}
    finally:
        await server.close()


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_registry_in_trouble(
    registry: Registry, proxy: FaultyProxy, repository: Repository, method: str, status: int
) -> None:
    source = Source(LARGE)
    proxy.fault(Answer(status, {"Retry-After": "0"}), method=method, times=2)
    await source.send(repository)
    assert registry.blob("a", source.descriptor.digest) == LARGE


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
async def test_a_registry_that_refuses(
    proxy: FaultyProxy, repository: Repository, method: str
) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'
    proxy.fault(Answer(403, {}, body), method=method, times=None)
    source = Source(LARGE)
    with pytest.raises(RegistryFailure) as caught:
        await source.send(repository)
    assert caught.value.message == "denied: requested access to the resource is denied"
    assert proxy.count("/uploads/", method) == 1
    assert all(file.closed for file in source.files)


async def test_other_bytes_than_the_digest_says(repository: Repository) -> None:
    source = Source(LARGE)
    source.data = LARGE[:-1] + bytes([LARGE[-1] ^ 1])
    with pytest.raises(RegistryFailure, match=r"^digest invalid: provided digest did not match"):
        await source.send(repository)


@pytest.mark.parametrize("data", [SMALL, LARGE])
async def test_a_blob_that_is_shorter_than_it_should(repository: Repository, data: bytes) -> None:
    source = Source(data)
    source.data = data[:-1]
    with pytest.raises(RegistryFailure, match="the blob "):
        await source.send(repository)


async def test_a_blob_that_cannot_be_read(repository: Repository) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    source = Source(LARGE)
    with pytest.raises(OSError, match="Input/output error"):
        await repository.upload(source.descriptor, lambda _: Broken(), source.told.append)


async def test_a_registry_that_takes_nothing(
    proxy: FaultyProxy, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads no more than the kernel buffers; the upload gives up by itself."""
    monkeypatch.setattr(uploads, "IDLE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(uploads, "FRUITLESS_TRIES", 1)
    read = FaultyProxy.came

    def came(self: FaultyProxy, request: Any) -> Any:
        if request.method == "PATCH":
            self.stall()
        return read(self, request)

    monkeypatch.setattr(FaultyProxy, "came", came)
    source = Source(random.Random(4).randbytes(20_000_000))
    with pytest.raises(Temporary, match="took nothing for"):
        await source.send(repository)
    await asyncio.sleep(0)
    assert connections_to(proxy) == 0, "what it did not take is not kept for it"
    proxy.release()
    assert all(file.closed for file in source.files)


def connections_to(proxy: FaultyProxy) -> int:
    """How many sockets of this process are connected to it."""
    host, port = proxy.address.split(":")
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(number))) as end:
            found += end.getpeername() == (host, int(port))
    return found


@pytest.mark.parametrize("location", ["ftp://x/y", "http://[::1", ""])
async def test_an_upload_to_nowhere(
    proxy: FaultyProxy, repository: Repository, location: str
) -> None:
    proxy.fault(Header({"Location": location}), method="POST", times=None)
    with pytest.raises(RegistryFailure, match="which is no URL"):
        await Source(SMALL).send(repository)


async def test_an_upload_elsewhere_goes_without_credentials(
    password_registry: Registry, registry: Registry, open_repository: Open
) -> None:
    """Where the registry's storage takes the bytes itself."""
    with closing(FaultyProxy(password_registry)) as first, closing(FaultyProxy(registry)) as second:
        begun = registry.in_repository("POST", "a", "blobs/uploads/").headers["location"]
        location = second.url + begun[begun.index("/v2/") :]
        first.fault(Header({"Location": location}), method="POST")
        source = Source(SMALL)
        repository = open_repository(f"{first.address}/a", Credentials(USER, PASSWORD), push=True)
        await source.send(repository)
        assert registry.has_blob("a", source.descriptor.digest)
        assert second.requests and not any(r.authorization for r in second.requests)


async def test_a_redirected_upload_is_refused(proxy: FaultyProxy, repository: Repository) -> None:
    proxy.fault(Redirect("http://127.0.0.1:1"), method="PUT", times=None)
    with pytest.raises(SampanError):
        await Source(SMALL).send(repository)


# -- mounting --------------------------------------------------------------------------------------


async def test_mount(registry: Registry, proxy: FaultyProxy, open_repository: Open) -> None:
    source = Source(LARGE)
    await source.send(open_repository(f"{proxy.address}/a", push=True))
    other = open_repository(f"{proxy.address}/other", push=True)
    proxy.reset()
    assert await other.mount(source.descriptor.digest, "a")
    assert registry.has_blob("other", source.descriptor.digest)
    assert proxy.received() == 0 and len(proxy.requests) == 1


async def test_what_the_registry_began_instead_is_used(
    registry: Registry, proxy: FaultyProxy, repository: Repository
) -> None:
    source = Source(SMALL)
    assert not await repository.mount(source.descriptor.digest, "nothing")
    assert not await repository.mount(source.descriptor.digest, "nothing/either")
    await source.send(repository)
    assert registry.has_blob("a", source.descriptor.digest)
    methods = [r.method for r in proxy.requests if "/uploads/" in r.path]
    assert methods == ["POST", "DELETE", "POST", "PUT"]


async def test_a_mount_that_is_refused(proxy: FaultyProxy, repository: Repository) -> None:
    proxy.fault(Answer(403), method="POST")
    assert not await repository.mount(Source(SMALL).descriptor.digest, "a")


# -- manifests -------------------------------------------------------------------------------------


async def test_put_a_manifest(registry: Registry, repository: Repository) -> None:
    config = Source(b"{}")
    await config.send(repository)
    data = (
        f'{{"schemaVersion": 2,  "mediaType":"{media_types.OCI_MANIFEST}", "config":'
        f'{{"mediaType":"x","digest":"{config.descriptor.digest}","size":2}},"layers":[]}}'
    ).encode()
    digest = await repository.put_manifest("v1", media_types.OCI_MANIFEST, data)
    assert registry.manifest("a", "v1").body == data
    assert registry.manifest("a", digest).status == 200
    assert await repository.tags() == ["v1"]


async def test_a_manifest_whose_blobs_are_not_there(repository: Repository) -> None:
    data = (
        f'{{"schemaVersion":2,"mediaType":"{media_types.OCI_MANIFEST}","config":'
        f'{{"mediaType":"x","digest":"sha256:{"0" * 64}","size":2}},"layers":[]}}'
    ).encode()
    with pytest.raises(RegistryFailure, match=r"^manifest blob unknown: blob unknown to registry"):
        await repository.put_manifest("v1", media_types.OCI_MANIFEST, data)


async def test_a_manifest_stored_as_another(proxy: FaultyProxy, repository: Repository) -> None:
    proxy.fault(Answer(201, {"Docker-Content-Digest": "sha256:" + "1" * 64}), method="PUT")
    with pytest.raises(RegistryFailure, match="the registry stored the manifest as"):
        await repository.put_manifest("v1", media_types.OCI_MANIFEST, b"{}")
