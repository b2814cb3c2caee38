"""Images made of a container's changes, and what is told of images: history, parents, platforms."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.images.image import Image
from sampan.images.listing import Wanted
from sampan.images.making.commit import Commit
from sampan.oci import media_types
from sampan.oci.digest import Digest
from sampan.oci.image_config import RunDefaults
from sampan.oci.manifest import parse_manifest
from sampan.oci.reference import parse_reference
from sampan.oci.tar_writer import END
from support import tars
from support.images import ImageWorld, pieces

BASE = tars.archive([tars.directory("etc"), tars.file("etc/name", b"base")])
CHANGES = tars.archive([tars.file("etc/name", b"changed"), tars.file("new", b"12345")])


def commit(name: str | None = None, message: str = "", created: str = "") -> Commit:
    return Commit(
        config=RunDefaults(cmd=["sh"], labels={"a": "b"}),
        author="me",
        message=message,
        created=created or "2026-01-02T03:04:05.000000006Z",
        created_by="sh -c true",
        reference=parse_reference(name) if name else None,
    )


def in_pieces(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 700] for at in range(0, len(data), 700))


async def base(world: ImageWorld, name: str = "base:1") -> Image:
    return await world.images.import_(pieces(BASE), reference=name)


def blobs_of(world: ImageWorld, image: Image) -> list[bytes]:
    manifest = parse_manifest(world.content.read(Digest(image.record.manifest_digest)))
    assert all(layer.media_type == media_types.OCI_LAYER_GZIP for layer in manifest.layers)
    return [world.content.read(layer.digest) for layer in manifest.layers]


async def test_commit(world: ImageWorld) -> None:
    parent = await base(world)
    made = await world.images.commit(in_pieces(CHANGES), parent, commit("made:1", "words"))
    assert world.images.resolve("made:1") is made
    assert made.layers == [*parent.layers, f"sha256:{hashlib.sha256(CHANGES).hexdigest()}"]
    assert made.size == parent.size + 12 and made.record.parent == parent.id
    assert [gzip.decompress(blob) for blob in blobs_of(world, made)] == [BASE, CHANGES]
    document = world.images.inspect("made:1")
    assert (document["Comment"], document["Author"], document["Parent"]) == (
        "words",
        "me",
        parent.id,
    )
    assert document["Created"] == "2026-01-02T03:04:05.000000006Z"
    world.reopen()
    again = world.images.resolve("made:1")
    assert world.images.inspect("made:1") == document and again.size == made.size


async def test_the_same_changes_give_the_same_image(world: ImageWorld, second: ImageWorld) -> None:
    """Layers and blobs always; with the same time the whole image."""
    made = []
    for one in (world, second):
        parent = await one.images.import_(pieces(BASE), reference="base:1")
        made.append(await one.images.commit(in_pieces(CHANGES), parent, commit("made:1")))
    assert made[0].layers == made[1].layers
    assert blobs_of(world, made[0]) == blobs_of(second, made[1])
    again = await world.images.commit(
        in_pieces(CHANGES), world.images.resolve("base:1"), commit("made:2")
    )
    assert again is made[0] and world.tags() == ["base:1", "made:1", "made:2"]


async def test_nothing_changed(world: ImageWorld) -> None:
    parent = await base(world)
    made = await world.images.commit(iter([END]), parent, commit("made:1", "nothing"))
    assert made.layers == parent.layers and made.size == parent.size
    lines = world.images.history("made:1")
    assert [(line["Size"], line["Comment"]) for line in lines] == [
        (0, "nothing"),
        (4, "Imported from -"),
    ]


async def test_on_an_image_without_layers_or_history(world: ImageWorld) -> None:
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    await world.load(loose_archive(config, [], "empty:1"))
    made = await world.images.commit(
        in_pieces(CHANGES), world.images.resolve("empty:1"), commit("made:1")
    )
    assert len(made.layers) == 1
    config["rootfs"] = {
        "type": "layers",
        "diff_ids": [f"sha256:{hashlib.sha256(BASE).hexdigest()}"],
    }
    await world.load(loose_archive(config, [BASE], "silent:1"))
    silent = await world.images.commit(
        in_pieces(CHANGES), world.images.resolve("silent:1"), commit("made:2")
    )
    lines = world.images.history(silent.id)
    assert [line["Size"] for line in lines] == [12, 4], "every layer has its own line"
    assert lines[1]["Id"] == silent.record.parent


def loose_archive(config: dict[str, Any], layers: list[bytes], name: str) -> bytes:
    raw = json.dumps(config).encode()
    entry = {
        "Config": "c.json",
        "RepoTags": [name],
        "Layers": [f"{n}.tar" for n in range(len(layers))],
    }
    members = [tars.file("c.json", raw), tars.file("manifest.json", json.dumps([entry]).encode())]
    members += [tars.file(f"{number}.tar", layer) for number, layer in enumerate(layers)]
    return tars.archive(members)


async def test_a_bad_layer_leaves_nothing(world: ImageWorld) -> None:
    parent = await base(world)
    before = (world.blobs(), world.layers())
    bad = tars.archive([tars.file("ok"), tars.file("../../out")])
    with pytest.raises(InvalidArgument, match="outside of the root"):
        await world.images.commit(in_pieces(bad), parent, commit("made:1"))

    def failing() -> Iterator[bytes]:
        yield CHANGES[:512]
        raise Conflict("container x was removed meanwhile")

    with pytest.raises(Conflict):
        await world.images.commit(failing(), parent, commit("made:1"))
    assert (world.blobs(), world.layers()) == before and world.tags() == ["base:1"]


async def test_cancelled(world: ImageWorld) -> None:
    parent = await base(world)
    before = (world.blobs(), world.layers())
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def endless() -> Iterator[bytes]:
        yield tars.file("x", bytes(1 << 20))[:1024]
        while True:
            loop.call_soon_threadsafe(begun.set)
            yield bytes(1024)

    task = asyncio.create_task(world.images.commit(endless(), parent, commit("made:1")))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (world.blobs(), world.layers()) == before


async def test_the_parent_s_content_is_gone(world: ImageWorld) -> None:
    parent = await base(world)
    manifest = parse_manifest(world.content.read(Digest(parent.record.manifest_digest)))
    world.content.delete(manifest.layers[0].digest)
    with pytest.raises(NotFound):
        await world.images.commit(in_pieces(CHANGES), parent, commit("made:1"))


async def test_events(world: ImageWorld) -> None:
    parent = await base(world)
    world.events.clear()
    made = await world.images.commit(in_pieces(CHANGES), parent, commit("made:1"))
    await world.images.commit(in_pieces(CHANGES), parent, commit(message="no name"))
    assert world.events == [("tag", made.id, {"a": "b", "name": "made:1"})]


async def test_history_of_three(world: ImageWorld) -> None:
    parent = await base(world)
    one = await world.images.commit(in_pieces(CHANGES), parent, commit("one:1"))
    world.images.tag("one:1", "one:2")
    two = await world.images.commit(
        in_pieces(tars.archive([tars.file("x", b"1")])), one, commit("two:1")
    )
    lines = world.images.history("two:1")
    assert [(line["Id"], line["Tags"], line["Size"]) for line in lines] == [
        (two.id, ["two:1"], 1),
        (one.id, ["one:1", "one:2"], 12),
        (parent.id, ["base:1"], 4),
    ]
    assert set(lines[0]) == {"Comment", "Created", "CreatedBy", "Id", "Size", "Tags"}
    with pytest.raises(NotFound, match="No such image: nope:latest"):
        world.images.history("nope")


async def test_more_history_than_layers(world: ImageWorld) -> None:
    config = {"rootfs": {"type": "layers", "diff_ids": []}, "history": [{"created_by": "x"}]}
    await world.load(loose_archive(config, [], "odd:1"))
    with pytest.raises(InvalidArgument, match="too many non-empty layers"):
        world.images.history("odd:1")


async def test_parents(world: ImageWorld) -> None:
    """Nameless images that others stand on are intermediate, and go with the last of them."""
    first = await base(world)
    second = await world.images.commit(in_pieces(CHANGES), first, commit())
    third = await world.images.commit(
        in_pieces(tars.archive([tars.file("x", b"1")])), second, commit("c:1")
    )
    with pytest.raises(Conflict, match="image has dependent child images"):
        world.images.remove(second.id, force=True)
    assert world.images.remove("base:1") == [{"Untagged": "base:1"}]
    assert listed(world) == {third.id}
    assert listed(world, all=True) == {first.id, second.id, third.id}
    assert listed(world, filters={"dangling": ["true"]}, all=True) == set()
    world.reopen()
    assert listed(world) == {third.id}
    removed = world.images.remove("c:1")
    assert [list(item) for item in removed[:2]] == [["Untagged"], ["Deleted"]]
    assert [item["Deleted"] for item in removed[1:]] == [
        *(third.id, str(third.chain_id), second.id, str(second.chain_id)),
        *(first.id, str(first.chain_id)),
    ]
    assert not world.blobs() and not world.layers()


async def test_a_parent_in_use_stays(world: ImageWorld) -> None:
    first = await base(world)
    await world.images.commit(in_pieces(CHANGES), first, commit("c:1"))
    world.images.remove("base:1")
    world.users[first.id] = [("f" * 64, False)]
    world.images.remove("c:1")
    assert listed(world) == {first.id}


async def test_no_prune(world: ImageWorld) -> None:
    first = await base(world)
    await world.images.commit(in_pieces(CHANGES), first, commit("c:1"))
    world.images.remove("base:1")
    world.images.remove("c:1", prune=False)
    assert listed(world) == {first.id}
    assert listed(world, filters={"dangling": ["true"]}) == {first.id}


def listed(
    world: ImageWorld, *, all: bool = False, filters: dict[str, list[str]] | None = None
) -> set[str]:
    return {image["Id"] for image in world.images.summaries(all=all, filters=filters or {})}


async def test_shared_size(world: ImageWorld) -> None:
    parent = await base(world)
    made = await world.images.commit(in_pieces(CHANGES), parent, commit("c:1"))
    other = await world.images.import_(pieces(CHANGES), reference="other:1")
    found = world.images.summaries(all=False, filters={}, wanted=Wanted(shared_size=True))
    assert {image["Id"]: image["SharedSize"] for image in found} == {
        parent.id: 4,
        made.id: 4,
        other.id: 0,
    }


async def test_platforms_of_an_index(world: ImageWorld) -> None:
    """What is not on this machine is told, too; what was pulled for another platform is found."""
    image = await base(world)
    arm = await world.images.import_(
        pieces(tars.archive([tars.file("arm")])), reference="arm:1", platform="linux/arm64"
    )
    absent = "sha256:" + "7" * 64
    index = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [
            descriptor(image.record.manifest_digest, "amd64"),
            descriptor(absent, "s390x"),
            descriptor(arm.record.manifest_digest, "arm64"),
            {
                **descriptor("sha256:" + "8" * 64, "unknown"),
                "annotations": {
                    "vnd.docker.reference.type": "attestation-manifest",
                    "vnd.docker.reference.digest": absent,
                },
            },
        ],
    }
    data = json.dumps(index).encode()
    world.database.write(lambda _: None)
    digest = world.content.put(data)
    image.record = type(image.record)(
        manifest_media_type=image.record.manifest_media_type,
        manifest_digest=image.record.manifest_digest,
        manifest_size=image.record.manifest_size,
        index_digest=digest,
    )
    world.users[image.id] = [("c" * 64, True)]
    document = world.images.inspect("base:1", manifests=True)
    assert document["Descriptor"] == {
        "mediaType": media_types.OCI_INDEX,
        "digest": digest,
        "size": len(data),
    }
    own, other, foreign, attestation = document["Manifests"]
    assert (own["Available"], other["Available"], foreign["Available"]) == (True, False, True)
    assert (
        own["ImageData"]["Containers"] == ["c" * 64]
        and own["ImageData"]["Platform"]["os"] == "linux"
    )
    assert own["Size"]["Total"] == own["Size"]["Content"] + image.size > image.size
    assert other["Size"] == {"Content": 0, "Total": 0} and other["Kind"] == "image"
    assert foreign["ImageData"]["Platform"]["architecture"] == "arm64"
    assert (attestation["Kind"], attestation["AttestationData"]) == ("attestation", {"For": absent})
    assert world.images.inspect("base:1", platform="linux/arm64")["Id"] == arm.id
    assert world.images.inspect("base:1", platform="linux/amd64")["Id"] == image.id
    with pytest.raises(NotFound, match="does not provide the specified platform \\(linux/s390x\\)"):
        world.images.history("base:1", platform="linux/s390x")
    json.dumps(world.images.summaries(all=True, filters={}, wanted=Wanted(manifests=True)))


def descriptor(digest: str, architecture: str) -> dict[str, Any]:
    return {
        "mediaType": media_types.OCI_MANIFEST,
        "digest": digest,
        "size": 500,
        "platform": {"os": "linux", "architecture": architecture},
    }


async def test_the_host_image(world: ImageWorld) -> None:
    document = world.images.inspect("host", manifests=True)
    assert document["Manifests"] == [] and "Descriptor" not in document
    assert world.images.history("host") == []
