"""Manifests, tags and blobs of Debian's docker-registry, and of one that misbehaves."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import closing

import pytest

from images.distribution.conftest import Open
from sampan.errors import InvalidArgument, NotFound, SampanError
from sampan.images.distribution import repository as repository_module
from sampan.images.distribution import transport
from sampan.images.distribution.client import Registries
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import RegistryFailure, Temporary, Unreachable
from sampan.images.distribution.settings import LiveSettings, RegistrySettings
from sampan.oci import media_types
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import Digest
from support.faulty_proxy import (
    Answer,
    Corrupt,
    Cut,
    FaultyProxy,
    Header,
    IgnoreRange,
    Redirect,
    Stall,
    WrongLength,
)
from support.registries import PASSWORD, USER, Registry

ABSENT = Digest("sha256:" + "0" * 64)
DATA = random.Random(1).randbytes(300_000)


def described(data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
    digest = Digest("sha256:" + hashlib.sha256(data).hexdigest())
    return Descriptor(media_type=media_type, digest=digest, size=len(data))


def put_blob(registry: Registry, repository: str, data: bytes) -> Descriptor:
    started = registry.in_repository("POST", repository, "blobs/uploads/")
    blob = described(data)
    path = started.headers["location"].partition("/v2/")[2]
    answer = registry.request(
        "PUT",
        f"/v2/{path}&digest={blob.digest}",
        body=data,
        headers={"Content-Type": "application/octet-stream"},
        scope=f"repository:{repository}:pull,push",
    )
    assert answer.status == 201, answer
    return blob


def put_manifest(registry: Registry, repository: str, tag: str) -> Descriptor:
    """An image of a config and one layer."""
    config = put_blob(registry, repository, b'{"architecture":"amd64","os":"linux"}')
    layer = put_blob(registry, repository, DATA)
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {
            "mediaType": media_types.OCI_CONFIG,
            "digest": config.digest,
            "size": config.size,
        },
        "layers": [
            {"mediaType": media_types.OCI_LAYER, "digest": layer.digest, "size": layer.size}
        ],
    }
    data = json.dumps(document).encode()
    answer = registry.in_repository(
        "PUT",
        repository,
        f"manifests/{tag}",
        body=data,
        headers={"Content-Type": media_types.OCI_MANIFEST},
    )
    assert answer.status == 201, answer
    return described(data, media_types.OCI_MANIFEST)


@pytest.fixture
def proxy(registry: Registry) -> Iterator[FaultyProxy]:
    with closing(FaultyProxy(registry)) as made:
        yield made


@pytest.fixture
def elsewhere(registry: Registry) -> Iterator[FaultyProxy]:
    """Another host with the same content."""
    with closing(FaultyProxy(registry)) as made:
        yield made


# -- manifests -------------------------------------------------------------------------------------


async def test_a_manifest(registry: Registry, open_repository: Open) -> None:
    put = put_manifest(registry, "team/app", "v1")
    repository = open_repository(f"{registry.address}/team/app")
    fetched = await repository.manifest("v1")
    assert fetched.descriptor == put
    assert hashlib.sha256(fetched.data).hexdigest() == put.digest[7:]
    assert (await repository.manifest(put.digest)).data == fetched.data
    assert await repository.resolve("v1") == put
    assert await repository.resolve(put.digest) == put
    assert await repository.tags() == ["v1"]


async def test_what_is_not_there(registry: Registry, open_repository: Open) -> None:
    put_manifest(registry, "team/app", "v1")
    repository = open_repository(f"{registry.address}/team/app")
    for ask in (repository.manifest, repository.resolve):
        with pytest.raises(NotFound) as caught:
            await ask("v2")
        assert caught.value.message == (
            f"manifest for {registry.address}/team/app:v2 not found: "
            "manifest unknown: manifest unknown"
        )
        with pytest.raises(NotFound, match=f"manifest for .*@{ABSENT} not found"):
            await ask(ABSENT)
    with pytest.raises(NotFound, match=r"^repository .*/nothing not found: name unknown: "):
        await open_repository(f"{registry.address}/nothing").tags()
    with pytest.raises(InvalidArgument):
        await repository.manifest("a/../b")


async def test_schema_1(proxy: FaultyProxy, open_repository: Open) -> None:
    """Its digest is of the document without its signatures, so nothing can be said of that."""
    body = b'{"schemaVersion":1,"name":"a","tag":"v1","fsLayers":[],"signatures":[]}'
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    for headers in ({"Content-Type": kind}, {"Content-Type": "application/json"}):
        answer = Answer(200, {**headers, "Docker-Content-Digest": ABSENT}, body)
        proxy.fault(answer, path="/manifests/", times=None)
        for ask in (
            open_repository(f"{proxy.address}/a").manifest,
            open_repository(f"{proxy.address}/a").resolve,
        ):
            with pytest.raises(InvalidArgument) as caught:
                await ask("v1")
            assert caught.value.message == (
                "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has "
                f"been removed. Suggest the author of {proxy.address}/a:v1 to upgrade the image to "
                "the OCI Format or Docker Image manifest v2, schema 2. More information at "
                "https://docs.docker.com/go/deprecated-image-specs/"
            )
        proxy.heal()


async def test_one_round_trip(
    proxy: FaultyProxy, open_repository: Open, registry: Registry
) -> None:
    """What is known of a registry is not asked for again."""
    put_manifest(registry, "a", "v1")
    await open_repository(f"{proxy.address}/a").resolve("v1")
    proxy.reset()
    await open_repository(f"{proxy.address}/a").resolve("v1")
    assert [(r.method, r.path) for r in proxy.requests] == [("HEAD", "/v2/a/manifests/v1")]


async def test_a_registry_without_head(
    proxy: FaultyProxy, registry: Registry, open_repository: Open
) -> None:
    put = put_manifest(registry, "a", "v1")
    proxy.fault(Answer(405), method="HEAD", times=None)
    assert await open_repository(f"{proxy.address}/a").resolve("v1") == put


async def test_a_head_that_says_too_little(
    proxy: FaultyProxy, registry: Registry, open_repository: Open
) -> None:
    put = put_manifest(registry, "a", "v1")
    proxy.fault(Header({"Docker-Content-Digest": None}), method="HEAD", times=None)
    assert await open_repository(f"{proxy.address}/a").resolve("v1") == put


async def test_another_manifest_than_asked_for(
    proxy: FaultyProxy, registry: Registry, open_repository: Open
) -> None:
    put = put_manifest(registry, "a", "v1")
    proxy.fault(Corrupt(10), path="/manifests/", times=None)
    repository = open_repository(f"{proxy.address}/a")
    with pytest.raises(
        RegistryFailure, match=f"manifest verification failed for digest {put.digest}"
    ):
        await repository.manifest(put.digest)
    with pytest.raises(RegistryFailure, match="manifest verification failed"):
        await repository.manifest("v1")


@pytest.mark.parametrize(
    ("body", "content_type", "kind", "text"),
    [
        (b"<html>", "text/html", RegistryFailure, "manifest of .*/a:v1: JSON is malformed"),
        (b"[]", media_types.OCI_MANIFEST, RegistryFailure, "it is no JSON object"),
        (
            b'{"schemaVersion":2}',
            "text/plain",
            RegistryFailure,
            "unsupported media type 'text/plain'",
        ),
        (
            b'{"mediaType":"' + media_types.OCI_INDEX.encode() + b'"}',
            media_types.OCI_MANIFEST,
            RegistryFailure,
            "it calls itself",
        ),
        (
            b'{"schemaVersion":1,"fsLayers":[]}',
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            InvalidArgument,
            "manifest version 2, schema 1 support has been removed. Suggest the author of .*/a:v1",
        ),
        (b'{"a":"' + b"x" * (5 << 20) + b'"}', media_types.OCI_MANIFEST, RegistryFailure, "longer"),
    ],
)
async def test_what_is_no_manifest(
    proxy: FaultyProxy,
    open_repository: Open,
    body: bytes,
    content_type: str,
    kind: type[SampanError],
    text: str,
) -> None:
    proxy.fault(Answer(200, {"Content-Type": content_type}, body), path="/manifests/", times=None)
    with pytest.raises(kind, match=text):
        await open_repository(f"{proxy.address}/a").manifest("v1")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"manifests":[]}', media_types.OCI_INDEX),
        (b'{"config":{},"layers":[]}', media_types.OCI_MANIFEST),
        (b'{"mediaType":"' + media_types.DOCKER_INDEX.encode() + b'"}', media_types.DOCKER_INDEX),
    ],
)
async def test_a_manifest_whose_kind_is_not_said(
    proxy: FaultyProxy, open_repository: Open, body: bytes, expected: str
) -> None:
    answer = Answer(200, {"Content-Type": "application/json; charset=utf-8"}, body)
    proxy.fault(answer, path="/manifests/", times=None)
    fetched = await open_repository(f"{proxy.address}/a").manifest("v1")
    assert fetched.media_type == expected


# -- tries again -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_small_requests_are_tried_again(
    proxy: FaultyProxy, registry: Registry, open_repository: Open, status: int
) -> None:
    put = put_manifest(registry, "a", "v1")
    repository = open_repository(f"{proxy.address}/a")
    proxy.fault(Answer(status, {"Retry-After": "0"}), path="/manifests/", method="GET", times=2)
    assert (await repository.manifest("v1")).digest == put.digest
    proxy.fault(Answer(status), path="/manifests/", times=None)
    with pytest.raises(Temporary):
        await repository.manifest("v1")


async def test_a_long_wish_is_passed_on(proxy: FaultyProxy, open_repository: Open) -> None:
    proxy.fault(Answer(429, {"Retry-After": "3600"}), path="/manifests/", times=None)
    with pytest.raises(Temporary, match="error parsing HTTP 429 response body") as caught:
        await open_repository(f"{proxy.address}/a").manifest("v1")
    assert caught.value.retry_after == 3600
    assert proxy.count("/manifests/", "GET") == 1


async def test_a_cut_manifest(
    proxy: FaultyProxy, registry: Registry, open_repository: Open
) -> None:
    put = put_manifest(registry, "a", "v1")
    proxy.fault(Cut(20), path="/manifests/")
    fetched = await open_repository(f"{proxy.address}/a").manifest("v1")
    assert fetched.digest == put.digest


async def test_nothing_listens(open_repository: Open, registry: Registry) -> None:
    registry.stop()
    with pytest.raises(Unreachable) as caught:
        await open_repository(f"{registry.address}/a").manifest("v1")
    assert caught.value.message == (
        f'Get "http://{registry.address}/v2/": '
        f"dial tcp {registry.address}: connect: connection refused"
    )


async def test_no_such_host(open_repository: Open) -> None:
    with pytest.raises(Unreachable, match=r"dial tcp: lookup nothing\.invalid: no such host"):
        await open_repository("nothing.invalid/a").manifest("v1")


# -- tags ------------------------------------------------------------------------------------------


async def test_pages_of_tags(proxy: FaultyProxy, open_repository: Open) -> None:
    first = Answer(
        200,
        {"Link": '</v2/a/tags/list?n=2&last=b>; rel="next"', "Content-Type": "application/json"},
        b'{"name":"a","tags":["a","b"]}',
    )
    second = Answer(
        200,
        {"Link": "<http://other.invalid/v2/a/tags/list>; rel=next"},
        b'{"tags":["c","not a tag",7,"b"]}',
    )
    proxy.fault(second, path="last=b", times=None)
    proxy.fault(first, path="/tags/list", times=None)
    assert await open_repository(f"{proxy.address}/a").tags() == ["a", "b", "c"]


async def test_tags_without_end(
    proxy: FaultyProxy, open_repository: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Always another page, which brings nothing."""
    monkeypatch.setattr(repository_module, "PAGES_LIMIT", 20)
    page = Answer(200, {"Link": '<tags/list>; rel="next"'}, b'{"tags":["a"]}')
    proxy.fault(page, path="/tags/list", times=None)
    assert await open_repository(f"{proxy.address}/a").tags() == ["a"]
    assert proxy.count("/tags/list") == 21


async def test_tags_in_a_circle(proxy: FaultyProxy, open_repository: Open) -> None:
    page = Answer(200, {"Link": '<?n=1000&again>; rel="next"'}, b'{"tags":["a"]}')
    proxy.fault(page, path="/tags/list", times=None)
    assert await open_repository(f"{proxy.address}/a").tags() == ["a"]
    assert proxy.count("/tags/list") == 2


async def test_no_tags(proxy: FaultyProxy, open_repository: Open) -> None:
    proxy.fault(Answer(200, {}, b'{"tags":null}'), path="/tags/list")
    assert await open_repository(f"{proxy.address}/a").tags() == []
    proxy.fault(Answer(200, {}, b"<html>"), path="/tags/list", times=None)
    with pytest.raises(RegistryFailure, match=r"tags of .*/a: JSON is malformed"):
        await open_repository(f"{proxy.address}/a").tags()


# -- blobs -----------------------------------------------------------------------------------------


async def read(repository: object, blob: Descriptor, offset: int = 0) -> tuple[int, bytes]:
    async with repository.blob(blob, offset=offset) as stream:  # type: ignore[attr-defined]
        assert stream.total == blob.size
        return stream.offset, b"".join([chunk async for chunk in stream.chunks()])


async def test_a_blob(registry: Registry, open_repository: Open) -> None:
    blob = put_blob(registry, "a", DATA)
    repository = open_repository(f"{registry.address}/a")
    assert await read(repository, blob) == (0, DATA)
    assert await read(repository, blob, 1000) == (1000, DATA[1000:])
    assert await read(repository, blob, len(DATA)) == (0, DATA)
    assert await repository.has_blob(blob.digest)
    assert not await repository.has_blob(ABSENT)


async def test_an_absent_blob(registry: Registry, open_repository: Open) -> None:
    absent = Descriptor(media_type="x", digest=ABSENT, size=3)
    with pytest.raises(NotFound, match=f"blob {ABSENT}: blob unknown: blob unknown to registry"):
        await read(open_repository(f"{registry.address}/a"), absent)


async def test_a_registry_without_ranges(
    proxy: FaultyProxy, registry: Registry, open_repository: Open
) -> None:
    blob = put_blob(registry, "a", DATA)
    proxy.fault(IgnoreRange(), path="/blobs/")
    assert await read(open_repository(f"{proxy.address}/a"), blob, 1000) == (0, DATA)


@pytest.mark.parametrize("after", [0, 1, 100_000])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_cut_blob(
    proxy: FaultyProxy, registry: Registry, open_repository: Open, after: int, reset: bool
) -> None:
    blob = put_blob(registry, "a", DATA)
    repository = open_repository(f"{proxy.address}/a")
    proxy.fault(Cut(after, reset=reset), path="/blobs/")
    got = b""
    with pytest.raises(Temporary, match=r"EOF|reset|closed|Connection"):
        async with repository.blob(blob) as stream:
            async for chunk in stream.chunks():
                got += chunk
    assert DATA.startswith(got) and len(got) <= after
    assert await read(repository, blob, len(got)) == (len(got), DATA[len(got) :])


async def test_a_stalled_blob(
    proxy: FaultyProxy,
    registry: Registry,
    open_repository: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blob = put_blob(registry, "a", DATA)
    repository = open_repository(f"{proxy.address}/a")
    await repository.has_blob(blob.digest)
    monkeypatch.setattr(transport, "IDLE_TIMEOUT_S", 0.2)
    proxy.fault(Stall(50_000), path="/blobs/")
    with pytest.raises(Temporary, match="nothing came"):
        await read(repository, blob)
    proxy.release()


async def test_a_lie_about_the_length(
    proxy: FaultyProxy, registry: Registry, open_repository: Open
) -> None:
    blob = put_blob(registry, "a", DATA)
    repository = open_repository(f"{proxy.address}/a")
    for by in (-7, 7):
        proxy.fault(WrongLength(by), path="/blobs/")
        with pytest.raises(RegistryFailure, match=f"the manifest says {len(DATA)}"):
            await read(repository, blob)
    longer = Descriptor(media_type="x", digest=blob.digest, size=len(DATA) - 1)
    proxy.fault(Header({"Content-Length": None, "Connection": "close"}), path="/blobs/")
    with pytest.raises(RegistryFailure, match="sent more than"):
        await read(repository, longer)
    shorter = Descriptor(media_type="x", digest=blob.digest, size=len(DATA) + 1)
    proxy.fault(Header({"Content-Length": None, "Connection": "close"}), path="/blobs/")
    with pytest.raises(Temporary, match=f"1 of {len(DATA) + 1} bytes are missing"):
        await read(repository, shorter)


async def test_another_part_than_asked_for(
    proxy: FaultyProxy, registry: Registry, open_repository: Open
) -> None:
    blob = put_blob(registry, "a", DATA)
    repository = open_repository(f"{proxy.address}/a")
    for value in ("bytes 0-299999/300000", "bytes 1000-299999/9", "nonsense", ""):
        proxy.fault(Header({"Content-Range": value}), path="/blobs/", method="GET")
        with pytest.raises(RegistryFailure, match="another part of it than asked for"):
            await read(repository, blob, 1000)


async def test_leaving_a_blob_closes_its_connection(
    proxy: FaultyProxy, registry: Registry, open_repository: Open
) -> None:
    blob = put_blob(registry, "a", DATA)
    proxy.fault(Stall(10), path="/blobs/")
    repository = open_repository(f"{proxy.address}/a")
    with pytest.raises(asyncio.CancelledError):
        async with repository.blob(blob) as stream:
            async for _ in stream.chunks():
                raise asyncio.CancelledError
    assert await read(repository, blob) == (0, DATA)


# -- redirects -------------------------------------------------------------------------------------


async def test_a_redirect_is_followed_without_credentials(
    password_registry: Registry, registry: Registry, open_repository: Open
) -> None:
    blob = put_blob(password_registry, "a", DATA)
    put_blob(registry, "a", DATA)
    credentials = Credentials(USER, PASSWORD)
    with closing(FaultyProxy(password_registry)) as first, closing(FaultyProxy(registry)) as second:
        first.fault(Redirect(second.url), path="/blobs/", times=None)
        repository = open_repository(f"{first.address}/a", credentials)
        assert await read(repository, blob, 5) == (5, DATA[5:])
        assert await repository.has_blob(blob.digest)
        assert [
            r.authorization for r in first.requests if "/blobs/" in r.path and r.method == "GET"
        ] == [credentials.basic]
        (taken,) = second.requests
        assert taken.authorization == "" and taken.headers["range"] == "bytes=5-"
        assert "cookie" not in taken.headers


async def test_a_redirect_to_itself_keeps_credentials(
    password_registry: Registry, open_repository: Open
) -> None:
    blob = put_blob(password_registry, "a", DATA)
    with closing(FaultyProxy(password_registry)) as proxy:
        proxy.fault(Redirect(), path="/blobs/", times=2)
        repository = open_repository(f"{proxy.address}/a", Credentials(USER, PASSWORD))
        assert await read(repository, blob) == (0, DATA)
        assert all(r.authorization for r in proxy.requests if "/blobs/" in r.path)


async def test_redirects_in_a_circle(proxy: FaultyProxy, open_repository: Open) -> None:
    proxy.fault(Redirect(), path="/blobs/", times=None)
    blob = Descriptor(media_type="x", digest=ABSENT, size=1)
    with pytest.raises(RegistryFailure, match="stopped after 10 redirects"):
        await read(open_repository(f"{proxy.address}/a"), blob)
    assert proxy.count("/blobs/") == transport.REDIRECTS_LIMIT + 1


@pytest.mark.parametrize(
    "location", ["ftp://x/y", "http://[::1", "javascript:alert(1)", "http://a:b/"]
)
async def test_a_redirect_to_nowhere(
    proxy: FaultyProxy, open_repository: Open, location: str
) -> None:
    proxy.fault(Answer(307, {"Location": location}), path="/blobs/", times=None)
    blob = Descriptor(media_type="x", digest=ABSENT, size=1)
    with pytest.raises(RegistryFailure, match="which is no URL"):
        await read(open_repository(f"{proxy.address}/a"), blob)


async def test_a_signed_location_is_not_touched(
    proxy: FaultyProxy, elsewhere: FaultyProxy, open_repository: Open
) -> None:
    path = "/data?X-Sig=a%2Fb%3D%3d+c&x=%7e~"
    proxy.fault(Answer(307, {"Location": elsewhere.url + path}), path="/blobs/")
    elsewhere.fault(Answer(200, {}, b"abc"))
    blob = Descriptor(media_type="x", digest=ABSENT, size=3)
    assert await read(open_repository(f"{proxy.address}/a"), blob) == (0, b"abc")
    assert elsewhere.requests[0].path == path


async def test_a_long_signed_location_is_followed_and_not_told(
    proxy: FaultyProxy, elsewhere: FaultyProxy, open_repository: Open
) -> None:
    path = "/data?X-Sig=" + "s" * 20_000
    proxy.fault(Answer(307, {"Location": f"http://127.0.0.1:1{path}"}), path="/blobs/")
    proxy.fault(Answer(307, {"Location": f"{elsewhere.url}{path}"}), path="/blobs/")
    elsewhere.fault(Answer(200, {}, b"abc"))
    blob = Descriptor(media_type="x", digest=ABSENT, size=3)
    repository = open_repository(f"{proxy.address}/a")
    with pytest.raises(Unreachable) as caught:
        await read(repository, blob)
    assert caught.value.message == (
        'Get "http://127.0.0.1:1/data": dial tcp 127.0.0.1:1: connect: connection refused'
    )
    assert await read(repository, blob) == (0, b"abc")


async def test_an_answer_that_drips(
    proxy: FaultyProxy, registry: Registry, open_repository: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_manifest(registry, "a", "v1")
    repository = open_repository(f"{proxy.address}/a")
    await repository.resolve("v1")
    monkeypatch.setattr(transport, "SMALL_TIMEOUT_S", 0.1)
    proxy.fault(Stall(10), path="/manifests/", times=None)
    with pytest.raises(Temporary, match="nothing came"):
        await repository.manifest("v1")
    proxy.heal()


async def test_a_digest_of_another_algorithm_tells_nothing(
    proxy: FaultyProxy, registry: Registry, open_repository: Open
) -> None:
    put = put_manifest(registry, "a", "v1")
    header = {"Docker-Content-Digest": "sha512:" + "0" * 128}
    proxy.fault(Header(header), path="/manifests/", times=None)
    repository = open_repository(f"{proxy.address}/a")
    assert (await repository.manifest("v1")).digest == put.digest
    assert await repository.resolve("v1") == put


# -- mirrors ---------------------------------------------------------------------------------------


async def test_mirrors_are_asked_before_the_hub(
    registry: Registry,
    registries: Registries,
    open_repository: Open,
    settings: LiveSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put = put_manifest(registry, "library/app", "v1")
    monkeypatch.setattr("sampan.images.distribution.host.HUB", "127.0.0.1:1")
    with closing(FaultyProxy(registry)) as first, closing(FaultyProxy(registry)) as second:
        first.fault(Answer(500), path="library", times=None)
        settings.current = RegistrySettings(mirrors=(first.url, second.url))
        repository = open_repository("app", Credentials(USER, PASSWORD))
        assert (await repository.manifest("v1")).digest == put.digest
        assert first.count("library") == 1 and second.count("library") == 1
        assert not any(r.authorization for r in (*first.requests, *second.requests))
        with pytest.raises(Unreachable, match=r'^Get "https://127\.0\.0\.1:1/v2/": '):
            await repository.manifest("v2")
        # A push goes to the Hub itself, and other registries have no mirrors.
        second.reset()
        with pytest.raises(Unreachable):
            await open_repository("app", push=True).has_blob(ABSENT)
        await open_repository(f"{registry.address}/library/app").manifest("v1")
        assert not second.requests
