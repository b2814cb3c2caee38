"""What a push asks of a registry, in which order, and what it tells."""

from __future__ import annotations

import asyncio
import errno
import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.content.store import BlobWriter
from sampan.errors import InvalidArgument, NotFound, Unavailable
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import RegistryFailure, Temporary
from sampan.images.distribution.settings import RegistrySettings
from sampan.oci import media_types
from sampan.oci.digest import Digest, digest_of
from sampan.oci.reference import parse_reference
from support.fake_pushing import FakeRegistries
from support.images import ImageWorld
from support.registry_images import Made, layer, make_image
from support.tars import archive, file

pytestmark = pytest.mark.root

REPOSITORY = "r.test:5000/team/app"


@pytest.fixture
def fake() -> FakeRegistries:
    return FakeRegistries()


@pytest.fixture
def world(tmp_path: Path, fake: FakeRegistries) -> Iterator[ImageWorld]:
    made = ImageWorld(tmp_path / "root", fake)
    made.images._pusher.uploads.second_s = 0.0
    yield made
    made.close()


def oci_archive(made: Made, *names: str) -> bytes:
    """The image as an OCI layout in a tar, with its manifest as it is."""
    entries = [
        {**made.manifest.descriptor, "annotations": {"io.containerd.image.name": name}}
        for name in names
    ]
    blobs = [*made.layers, made.config, made.manifest]
    return archive(
        [
            file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            file("index.json", json.dumps({"schemaVersion": 2, "manifests": entries}).encode()),
            *(file(f"blobs/sha256/{blob.digest[7:]}", blob.data) for blob in blobs),
        ]
    )


def docker_archive(made: Made, *names: str) -> bytes:
    """The image as `docker save` of 20.10 writes it: plain layers, no manifest."""
    layers = [f"{number}/layer.tar" for number in range(len(made.plain))]
    listed = [{"Config": "config.json", "RepoTags": list(names), "Layers": layers}]
    return archive(
        [
            *(file(name, data) for name, data in zip(layers, made.plain, strict=True)),
            file("config.json", made.config.data),
            file("manifest.json", json.dumps(listed).encode()),
        ]
    )


MADE = make_image([layer(3000), layer(0, seed=1), layer(5000, seed=2)], docker=True)
SHORT = [plain[7:19] for plain in json.loads(MADE.config.data)["rootfs"]["diff_ids"]]


async def push(world: ImageWorld, name: str, tag: str | None = "1", **options: Any) -> list[Any]:
    """Push; the messages."""
    messages: list[Any] = []
    options.setdefault("credentials", None)
    await world.images.push(name, tag=tag, progress=messages.append, **options)
    return messages


def statuses(messages: list[Any]) -> dict[str, list[str]]:
    """What was said of each layer, bars left out."""
    said: dict[str, list[str]] = {}
    for message in messages:
        if "id" in message and not message["progressDetail"]:
            said.setdefault(message["id"], []).append(message["status"])
    return said


class TestOneImage:
    async def test_the_manifest_goes_last_and_as_it_is(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1"))
        messages = await push(world, REPOSITORY)
        assert fake.manifests["team/app"]["1"] == (MADE.manifest.media_type, MADE.manifest.data)
        assert fake.calls[-1] == ("manifest", "team/app", "1")
        blobs = [*MADE.layers, MADE.config]
        assert fake.blobs["team/app"] == {blob.digest: blob.data for blob in blobs}
        assert messages[0] == {"status": f"The push refers to repository [{REPOSITORY}]"}
        assert [m["id"] for m in messages[1:4]] == SHORT[::-1]
        assert statuses(messages) == {short: ["Preparing", "Pushed"] for short in SHORT}
        size = len(MADE.manifest.data)
        assert messages[-2:] == [
            {"status": f"1: digest: {MADE.digest} size: {size}"},
            {"progressDetail": {}, "aux": {"Tag": "1", "Digest": MADE.digest, "Size": size}},
        ]

    async def test_it_gets_its_name_by_digest_and_an_event(self, world: ImageWorld) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1"))
        world.events.clear()
        await push(world, REPOSITORY)
        assert world.images.resolve(MADE.id).repo_digests == [f"{REPOSITORY}@{MADE.digest}"]
        assert world.events == [("push", f"{REPOSITORY}:1", {"name": REPOSITORY})]
        world.reopen()
        assert world.images.resolve(f"{REPOSITORY}@{MADE.digest}").id == MADE.id

    async def test_again_nothing_is_sent(self, world: ImageWorld, fake: FakeRegistries) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1"))
        await push(world, REPOSITORY)
        fake.calls.clear()
        messages = await push(world, REPOSITORY)
        assert statuses(messages) == {s: ["Preparing", "Layer already exists"] for s in SHORT}
        assert fake.calls == [("resolve", "team/app", "1")]

    async def test_later_each_layer_is_looked_for(
        self, world: ImageWorld, fake: FakeRegistries, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1"))
        await push(world, REPOSITORY)
        fake.calls.clear()
        monkeypatch.setattr("sampan.images.pushing.push._LATELY_NS", 0)
        messages = await push(world, REPOSITORY)
        assert statuses(messages) == {s: ["Preparing", "Layer already exists"] for s in SHORT}
        assert len(fake.asked("has")) == 4 and fake.asked("resolve") == ["1"]
        assert not fake.asked("upload") and not fake.asked("manifest")

    async def test_what_the_registry_lost_is_sent_again(
        self, world: ImageWorld, fake: FakeRegistries, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also where it still has the manifest."""
        monkeypatch.setattr("sampan.images.pushing.push._LATELY_NS", 0)
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1", f"{REPOSITORY}:2"))
        await push(world, REPOSITORY)
        lost = MADE.layers[0].digest
        del fake.blobs["team/app"][lost]
        fake.calls.clear()
        await push(world, REPOSITORY)
        assert fake.asked("upload") == [lost]
        fake.manifests["team/app"]["1"] = ("of", b"another image")
        await push(world, REPOSITORY)
        assert fake.manifests["team/app"]["1"][1] == MADE.manifest.data
        del fake.manifests["team/app"]["1"]
        await push(world, REPOSITORY)
        await push(world, REPOSITORY, "2")
        assert sorted(fake.manifests["team/app"]) == ["1", "2"]

    async def test_credentials_reach_the_registry(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1"))
        mine = Credentials(username="me", password="x")
        await push(world, REPOSITORY, credentials=mine)
        assert fake.credentials == [mine]

    async def test_equal_layers_are_sent_once(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        twice = make_image([layer(100), layer(100)])
        await world.load(oci_archive(twice, f"{REPOSITORY}:1"))
        await push(world, REPOSITORY)
        assert sorted(fake.asked("upload")) == sorted([twice.layers[0].digest, twice.id])

    async def test_it_may_be_removed_meanwhile(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1"))
        fake.gate.clear()
        pushing = asyncio.create_task(push(world, REPOSITORY))
        while not fake.asked("upload"):
            await asyncio.sleep(0)
        world.images.remove(MADE.id, force=True)
        fake.gate.set()
        await pushing
        assert fake.manifests["team/app"]["1"][1] == MADE.manifest.data
        assert not world.images.list(all=True, filters={}) and not world.blobs()


class TestMounting:
    async def test_what_another_repository_has_is_mounted(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1", "r.test:5000/other:1"))
        await push(world, REPOSITORY)
        fake.calls.clear()
        messages = await push(world, "r.test:5000/other")
        assert statuses(messages) == {s: ["Preparing", "Mounted from team/app"] for s in SHORT}
        assert fake.asked("upload") == [MADE.id]

    async def test_where_it_was_pushed_is_known_after_a_restart(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1", "r.test:5000/other:1"))
        await push(world, REPOSITORY)
        world.images.remove(f"{REPOSITORY}:1")
        world.reopen()
        messages = await push(world, "r.test:5000/other")
        assert all("Mounted from team/app" in said for said in statuses(messages).values())

    async def test_not_from_another_registry(self, world: ImageWorld, fake: FakeRegistries) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1", "elsewhere.test/other:1"))
        await push(world, REPOSITORY)
        await push(world, "elsewhere.test/other")
        assert not fake.asked("mount")

    @pytest.mark.parametrize("failure", [None, RegistryFailure("denied: no"), NotFound("gone")])
    async def test_what_cannot_be_mounted_is_sent(
        self, world: ImageWorld, fake: FakeRegistries, failure: Exception | None
    ) -> None:
        """And is not tried to be mounted from there again."""
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1", "r.test:5000/other:1"))
        await push(world, REPOSITORY)
        fake.unmountable, fake.mount_failure = {"team/app"}, failure
        messages = await push(world, "r.test:5000/other")
        assert statuses(messages) == {short: ["Preparing", "Pushed"] for short in SHORT}
        fake.calls.clear()
        fake.blobs["other"].clear()
        await push(world, "r.test:5000/other")
        assert not fake.asked("mount")


class TestSelection:
    async def test_all_tags(self, world: ImageWorld, fake: FakeRegistries) -> None:
        other = make_image([layer(10)])
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1", f"{REPOSITORY}:2"))
        await world.load(oci_archive(other, f"{REPOSITORY}:0"))
        messages = await push(world, REPOSITORY, None)
        assert list(fake.manifests["team/app"]) == ["0", "1", "2"]
        results = [message["aux"]["Digest"] for message in messages if "aux" in message]
        assert results == [other.digest, MADE.digest, MADE.digest]
        assert world.events[-1] == ("push", REPOSITORY, {"name": REPOSITORY})

    async def test_the_tag_goes_before_the_one_in_the_name(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1", f"{REPOSITORY}:2"))
        await push(world, f"{REPOSITORY}:1", "2")
        await push(world, f"{REPOSITORY}:1", None)
        assert list(fake.manifests["team/app"]) == ["2", "1"]

    @pytest.mark.parametrize(
        ("name", "tag", "kind", "text"),
        [
            (REPOSITORY, "no", NotFound, f"tag does not exist: {REPOSITORY}:no"),
            (
                "r.test/none",
                "1",
                NotFound,
                "An image does not exist locally with the tag: r.test/none",
            ),
            (
                f"{REPOSITORY}@{MADE.digest}",
                None,
                InvalidArgument,
                "cannot push a digest reference",
            ),
            ("UPPER", None, InvalidArgument, "invalid reference format: repository name must be"),
            (REPOSITORY, "-", InvalidArgument, "invalid tag format"),
            ("host", "latest", InvalidArgument, "the image name host is reserved"),
        ],
    )
    async def test_what_cannot_be_pushed(
        self,
        world: ImageWorld,
        fake: FakeRegistries,
        name: str,
        tag: str | None,
        kind: type[Exception],
        text: str,
    ) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1"))
        with pytest.raises(kind, match=text):
            await push(world, name, tag)
        assert not fake.calls

    async def test_a_platform_that_it_is_not_for(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1"))
        await push(world, REPOSITORY, platform="linux/amd64")
        with pytest.raises(
            NotFound, match=r"does not provide the specified platform \(linux/s390x"
        ):
            await push(world, REPOSITORY, platform="linux/s390x")


class TestFailures:
    async def test_a_cut_is_tried_again(self, world: ImageWorld, fake: FakeRegistries) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1"))
        fake.settings = RegistrySettings(max_concurrent_uploads=1)
        fake.failures = [Temporary("cut"), Temporary("busy", retry_after=2.0)]
        messages = await push(world, REPOSITORY)
        said = [status for words in statuses(messages).values() for status in words]
        assert said.count("Retrying in 1 second") >= 2
        assert said.count("Retrying in 2 seconds") == 1
        assert fake.manifests["team/app"]["1"][1] == MADE.manifest.data

    async def test_three_in_a_row_are_enough(self, world: ImageWorld, fake: FakeRegistries) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1"))
        fake.failures = [Temporary("the connection was cut") for _ in range(100)]
        with pytest.raises(Temporary, match="the connection was cut"):
            await push(world, REPOSITORY)
        uploads = fake.asked("upload")
        assert max(uploads.count(digest) for digest in uploads) == 3
        assert not fake.manifests
        assert world.images.resolve(MADE.id).repo_digests == []

    async def test_no_patience_for_an_hour(self, world: ImageWorld, fake: FakeRegistries) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1"))
        fake.failures = [Temporary("toomanyrequests", retry_after=3600.0)] * 4
        with pytest.raises(Temporary, match="toomanyrequests"):
            await push(world, REPOSITORY)

    async def test_a_refusal_ends_all(self, world: ImageWorld, fake: FakeRegistries) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1"))
        fake.failures = [RegistryFailure("denied: not yours")]
        with pytest.raises(RegistryFailure, match="denied: not yours"):
            await push(world, REPOSITORY)
        assert fake.at_once == 0 and not fake.manifests
        await push(world, REPOSITORY)

    async def test_cancelled_it_sends_nothing_more(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1"))
        fake.gate.clear()
        pushing = asyncio.create_task(push(world, REPOSITORY))
        while not fake.asked("upload"):
            await asyncio.sleep(0)
        pushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pushing
        while fake.at_once:
            await asyncio.sleep(0)
        world.images.remove(MADE.id, force=True)
        assert not world.blobs()


class TestPlainLayers:
    async def test_they_are_compressed_before_the_first_push(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        """An archive of `docker save` has them plain."""
        await world.load(docker_archive(MADE, f"{REPOSITORY}:1", f"{REPOSITORY}:2"))
        assert world.blobs() > {hashlib.sha256(plain).hexdigest() for plain in MADE.plain}
        await push(world, REPOSITORY)
        kind, data = fake.manifests["team/app"]["1"]
        manifest = json.loads(data)
        assert kind == manifest["mediaType"] == media_types.OCI_MANIFEST
        assert manifest["config"]["digest"] == MADE.id
        for descriptor, plain in zip(manifest["layers"], MADE.plain, strict=True):
            blob = fake.blobs["team/app"][descriptor["digest"]]
            assert (gzip.decompress(blob), len(blob)) == (plain, descriptor["size"])
            assert descriptor["mediaType"] == media_types.OCI_LAYER_GZIP
        digests = [entry["digest"] for entry in [*manifest["layers"], manifest["config"]]]
        stored = {digest[7:] for digest in [*digests, digest_of(data)]}
        assert world.blobs() == stored
        world.reopen()
        assert world.tags() == [f"{REPOSITORY}:1", f"{REPOSITORY}:2"] and world.blobs() == stored
        fake.calls.clear()
        await push(world, REPOSITORY, "2")
        assert fake.manifests["team/app"]["2"] == (kind, data) and not fake.asked("upload")

    async def test_a_manifest_of_others_is_not_touched(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        plain = make_image([layer(3000)], compression="")
        await world.load(oci_archive(plain, f"{REPOSITORY}:1"))
        await push(world, REPOSITORY)
        assert fake.manifests["team/app"]["1"][1] == plain.manifest.data

    async def test_two_pushes_compress_once(self, world: ImageWorld, fake: FakeRegistries) -> None:
        await world.load(docker_archive(MADE, f"{REPOSITORY}:1", "r.test/other:1"))
        await asyncio.gather(push(world, REPOSITORY), push(world, "r.test/other"))
        assert fake.manifests["team/app"] == fake.manifests["other"]
        assert len(world.blobs()) == 5

    async def test_removed_while_it_is_compressed(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        await world.load(docker_archive(MADE, f"{REPOSITORY}:1"))
        pushing = asyncio.create_task(push(world, REPOSITORY))
        await asyncio.sleep(0)
        world.images.remove(MADE.id, force=True)
        await pushing
        assert not world.blobs()

    async def test_cancelled_it_leaves_nothing(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        await world.load(docker_archive(MADE, f"{REPOSITORY}:1"))
        before = world.blobs()
        for turns in range(0, 60, 3):
            pushing = asyncio.create_task(push(world, REPOSITORY))
            for _ in range(turns):
                await asyncio.sleep(0.0001)
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)
            if world.blobs() != before:
                break
        image = world.images.resolve(MADE.id)
        assert len(world.blobs()) == 5  # three layers, plain or not, a config and a manifest
        await push(world, REPOSITORY)
        assert Digest(image.record.manifest_digest)[7:] in world.blobs()
        assert len(world.blobs()) == 5

    async def test_the_disk_is_full(
        self, world: ImageWorld, fake: FakeRegistries, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await world.load(docker_archive(MADE, f"{REPOSITORY}:1"))
        before = world.blobs()

        def full(self: BlobWriter, data: bytes) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(BlobWriter, "write", full)
            with pytest.raises(
                Unavailable, match=r"failed to store layer \w{12}, compressed: no space"
            ):
                await push(world, REPOSITORY)
        assert world.blobs() == before and not fake.calls
        await push(world, REPOSITORY)


class TestRegistriesWithoutOCITypes:
    async def test_what_was_made_here_is_pushed_in_dockers_types(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        fake.refused_types = {media_types.OCI_MANIFEST}
        await world.load(docker_archive(MADE, f"{REPOSITORY}:1", f"{REPOSITORY}:2"))
        messages = await push(world, REPOSITORY)
        kind, data = fake.manifests["team/app"]["1"]
        assert kind == json.loads(data)["mediaType"] == media_types.DOCKER_MANIFEST
        assert {layer["mediaType"] for layer in json.loads(data)["layers"]} == {
            media_types.DOCKER_LAYER_GZIP
        }
        assert messages[-1]["aux"]["Digest"] == digest_of(data)
        image = world.images.resolve(MADE.id)
        assert image.repo_digests == [f"{REPOSITORY}@{digest_of(data)}"]
        assert image.record.manifest_digest == digest_of(data) and len(world.blobs()) == 5
        world.reopen()
        fake.calls.clear()
        await push(world, REPOSITORY, "2")
        assert fake.manifests["team/app"]["2"] == (kind, data) and not fake.asked("upload")

    @pytest.mark.parametrize("made_here", [True, False])
    async def test_another_refusal_is_told(
        self, world: ImageWorld, fake: FakeRegistries, made_here: bool
    ) -> None:
        fake.refused_types = {media_types.OCI_MANIFEST, media_types.DOCKER_MANIFEST}
        archive = docker_archive if made_here else oci_archive
        await world.load(archive(make_image([layer(10)]), f"{REPOSITORY}:1"))
        with pytest.raises(RegistryFailure, match=r"manifest invalid: no manifest\.v1"):
            await push(world, REPOSITORY)
        assert len(fake.asked("manifest")) == (2 if made_here else 1)
        assert world.images.resolve(f"{REPOSITORY}:1").repo_digests == []


class TestTogether:
    async def test_so_many_at_once(self, world: ImageWorld, fake: FakeRegistries) -> None:
        many = make_image([layer(10 + number, seed=number) for number in range(9)])
        await world.load(oci_archive(many, f"{REPOSITORY}:1"))
        fake.settings = RegistrySettings(max_concurrent_uploads=2)
        messages = await push(world, REPOSITORY)
        assert fake.most_at_once == 2
        assert any("Waiting" in said for said in statuses(messages).values())

    async def test_two_pushes_send_a_layer_once(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1", f"{REPOSITORY}:2"))
        fake.gate.clear()
        pushes = [asyncio.create_task(push(world, REPOSITORY, tag)) for tag in "12"]
        while len(fake.asked("upload")) < 4:
            await asyncio.sleep(0)
        fake.gate.set()
        both = await asyncio.gather(*pushes)
        for messages in both:
            assert statuses(messages) == {short: ["Preparing", "Pushed"] for short in SHORT}
            assert any(message.get("status") == "Pushing" for message in messages)
        assert len(fake.asked("upload")) == 4
        assert sorted(fake.manifests["team/app"]) == ["1", "2"]

    async def test_one_that_leaves_does_not_end_the_other(
        self, world: ImageWorld, fake: FakeRegistries
    ) -> None:
        await world.load(oci_archive(MADE, f"{REPOSITORY}:1", f"{REPOSITORY}:2"))
        fake.gate.clear()
        first, second = (asyncio.create_task(push(world, REPOSITORY, tag)) for tag in "12")
        while len(fake.asked("upload")) < 4:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        fake.gate.set()
        await second
        assert sorted(fake.manifests["team/app"]) == ["2"]


async def test_a_foreign_layer_stays_where_it_is(world: ImageWorld, fake: FakeRegistries) -> None:
    """Its descriptor has URLs, and its media type says not to distribute it."""
    made = make_image([layer(10)])
    manifest = json.loads(made.manifest.data)
    manifest["layers"][0]["mediaType"] = (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    )
    manifest["layers"][0]["urls"] = ["https://r.test/layer"]
    data = json.dumps(manifest).encode()
    foreign = type(made)(type(made.manifest)(made.manifest.media_type, data), *_rest(made))
    await world.load(oci_archive(foreign, f"{REPOSITORY}:1"))
    messages = await push(world, REPOSITORY)
    assert [s[-1] for s in statuses(messages).values()] == ["Skipped foreign layer"]
    assert fake.asked("upload") == [made.id]
    assert world.images.resolve(f"{REPOSITORY}:1").id == made.id
    assert (
        parse_reference(f"{REPOSITORY}@{foreign.digest}")
        in world.images.resolve(made.id).references
    )


def _rest(made: Made) -> tuple[Any, ...]:
    return made.config, made.layers, made.plain
