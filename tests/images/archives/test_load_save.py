"""Archives of Docker, podman and skopeo are loaded; ours are loaded by them, and by ourselves."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import InvalidArgument, NotFound, SampanError
from support.images import ImageWorld, pieces
from support.tars import archive, directory, file, hard_link, symlink

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.root

BOTTOM = archive([directory("etc"), file("etc/a", b"1"), file("b", b"22")])
TOP = archive([file("etc/.wh.a", b""), file("c", b"333")])


def run(command: list[str]) -> bytes:
    """Run a tool to its end; return its output."""
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def config(*layers: bytes, **changes: Any) -> bytes:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05.678Z",
        "config": {"Cmd": ["sh"], "Labels": None},
        "history": [],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(layer)}" for layer in layers]},
    }
    return json.dumps(document | changes).encode()


def docker_archive(
    tags: list[str] | None = None,
    *,
    raw: bytes | None = None,
    layers: dict[str, bytes] | None = None,
) -> bytes:
    """What `docker save` of 20.10 writes, its manifest last."""
    raw = raw or config(BOTTOM, TOP)
    layers = layers or {"1/layer.tar": BOTTOM, "2/layer.tar": TOP}
    manifest = [{"Config": f"{digest(raw)}.json", "RepoTags": tags, "Layers": list(layers)}]
    return archive(
        [
            *(file(name, data) for name, data in layers.items()),
            file(f"{digest(raw)}.json", raw),
            file("manifest.json", json.dumps(manifest).encode()),
        ]
    )


def descriptor(media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{digest(data)}", "size": len(data), **more}


def layout(
    *,
    layers: list[bytes],
    plain: list[bytes],
    annotations: dict[str, str],
    wrap: bool = False,
    leave_out: bytes = b"",
) -> bytes:
    """An OCI layout in a tar; `wrap` puts the manifest behind an index of platforms."""
    prefix = "application/vnd.oci.image."
    raw = config(*plain)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": descriptor(prefix + "config.v1+json", raw),
            "layers": [descriptor(prefix + "layer.v1.tar", layer) for layer in layers],
        }
    ).encode()
    blobs = [raw, manifest, *layers]
    entry = descriptor(prefix + "manifest.v1+json", manifest)
    if wrap:
        import platform

        machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
        choices = [
            entry | {"platform": {"architecture": machine, "os": "linux"}},
            descriptor(prefix + "manifest.v1+json", b"absent")
            | {"platform": {"architecture": "mips", "os": "linux"}},
        ]
        index = json.dumps({"schemaVersion": 2, "manifests": choices}).encode()
        blobs.append(index)
        entry = descriptor(prefix + "index.v1+json", index)
    top = {"schemaVersion": 2, "manifests": [entry | {"annotations": annotations}]}
    return archive(
        [
            file("index.json", json.dumps(top).encode()),
            file("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
            *(file(f"blobs/sha256/{digest(blob)}", blob) for blob in blobs if blob != leave_out),
        ]
    )


@pytest.mark.parametrize("encode", [bytes, gzip.compress, zstd.compress], ids=["tar", "gz", "zst"])
async def test_docker_archive(world: ImageWorld, encode: Any) -> None:
    names = await world.load(encode(docker_archive(["demo:1", "other/demo:2"])))
    assert names == ["demo:1", "other/demo:2"]
    image = world.images.resolve("demo:1")
    assert image.id == f"sha256:{digest(config(BOTTOM, TOP))}"
    assert (image.size, image.config.cmd, image.created_ns) == (6, ["sh"], 1704164645678000000)
    assert [message["stream"] for message in world.messages if "stream" in message] == [
        "Loaded image: demo:1\n",
        "Loaded image: other/demo:2\n",
    ]
    assert world.events == [("load", image.id, {"name": image.id})]
    assert len(world.blobs()) == 4, "layers, config, manifest; nothing of the archive's lists"


async def test_image_without_name(world: ImageWorld) -> None:
    names = await world.load(docker_archive(None), quiet=True)
    assert names == [f"sha256:{digest(config(BOTTOM, TOP))}"]
    assert world.messages == [{"stream": f"Loaded image ID: {names[0]}\n"}]


@pytest.mark.parametrize("encode", [bytes, gzip.compress, zstd.compress], ids=["tar", "gz", "zst"])
async def test_compressed_layers_in_a_docker_archive(world: ImageWorld, encode: Any) -> None:
    layers = {"a.tar": encode(BOTTOM), "b.tar": encode(TOP)}
    assert await world.load(docker_archive(["demo:1"], layers=layers)) == ["demo:1"]
    assert world.images.resolve("demo:1").size == 6


async def test_linked_layers(world: ImageWorld) -> None:
    """Docker writes a layer that it has written before as a symlink."""
    raw = config(BOTTOM, BOTTOM, BOTTOM)
    names = ["1/layer.tar", "2/layer.tar", "3/layer.tar"]
    manifest = [{"Config": "c.json", "RepoTags": ["demo:1"], "Layers": names}]
    data = archive(
        [
            file(names[0], BOTTOM),
            symlink(names[1], "../1/layer.tar"),
            hard_link(names[2], names[0]),
            file("c.json", raw),
            file("manifest.json", json.dumps(manifest).encode()),
        ]
    )
    assert await world.load(data) == ["demo:1"]


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("encode", [bytes, gzip.compress, zstd.compress], ids=["tar", "gz", "zst"])
async def test_oci_layout(world: ImageWorld, encode: Any, wrap: bool) -> None:
    data = layout(
        layers=[encode(BOTTOM), encode(TOP)],
        plain=[BOTTOM, TOP],
        annotations={"org.opencontainers.image.ref.name": "docker.io/library/demo:1"},
        wrap=wrap,
    )
    assert await world.load(data) == ["demo:1"]
    assert world.images.resolve("demo:1").size == 6


@pytest.mark.parametrize(
    ("annotations", "name"),
    [
        ({"io.containerd.image.name": "ghcr.io/a/b:2"}, "ghcr.io/a/b:2"),
        (
            {
                "io.containerd.image.name": "docker.io/library/x:1",
                "org.opencontainers.image.ref.name": "1",
            },
            "x:1",
        ),
        ({"org.opencontainers.image.ref.name": "busybox:1"}, "busybox:1"),
        ({"org.opencontainers.image.ref.name": "latest"}, None),
        ({"org.opencontainers.image.ref.name": "not/A:name"}, None),
        ({}, None),
    ],
)
async def test_names_in_a_layout(
    world: ImageWorld, annotations: dict[str, str], name: str | None
) -> None:
    data = layout(layers=[BOTTOM], plain=[BOTTOM], annotations=annotations)
    assert await world.load(data) == [name or f"sha256:{digest(config(BOTTOM))}"]


async def test_an_older_image_loses_its_name(world: ImageWorld) -> None:
    await world.load(docker_archive(["demo:1"]))
    world.messages.clear()
    await world.load(
        docker_archive(["demo:1"], raw=config(BOTTOM, TOP, author="other")), quiet=True
    )
    old = f"sha256:{digest(config(BOTTOM, TOP))}"
    assert world.messages[0]["stream"] == (
        f"The image demo:1 already exists, renaming the old one with ID {old} to empty string\n"
    )
    assert world.images.resolve(old).repo_tags == []


async def test_loading_again_changes_nothing(world: ImageWorld) -> None:
    await world.load(docker_archive(["demo:1"]))
    blobs, layers = world.blobs(), world.layers()
    await world.load(docker_archive(["demo:1"]))
    assert (world.blobs(), world.layers(), len(world.images)) == (blobs, layers, 1)


BAD = {
    "nothing": b"",
    "no archive": b"no archive" * 100,
    "no manifest": archive([file("etc/passwd")]),
    "manifest is no JSON": archive([file("manifest.json", b"{")]),
    "manifest of the wrong shape": archive([file("manifest.json", b'[{"Config": 3}]')]),
    "config missing": archive(
        [file("manifest.json", b'[{"Config": "../../etc/passwd", "Layers": []}]')]
    ),
    "layer missing": archive(
        [
            file("c", config(BOTTOM)),
            file("manifest.json", b'[{"Config": "c", "Layers": ["/etc/passwd"]}]'),
        ]
    ),
    "layer is a link out": archive(
        [
            file("c", config(BOTTOM)),
            symlink("l", "/etc/passwd"),
            file("manifest.json", b'[{"Config": "c", "Layers": ["l"]}]'),
        ]
    ),
    "link loop": archive(
        [
            file("c", config(BOTTOM)),
            symlink("l", "m"),
            symlink("m", "l"),
            file("manifest.json", b'[{"Config": "c", "Layers": ["l"]}]'),
        ]
    ),
    "too few layers": docker_archive(["a:1"], layers={"1": BOTTOM}),
    "other layer": docker_archive(["a:1"], layers={"1": BOTTOM, "2": BOTTOM}),
    "bad tag": docker_archive(["A:1"]),
    "no tag": docker_archive(["a"]),
    "reserved name": docker_archive(["host:latest"]),
    "windows": docker_archive(["a:1"], raw=config(BOTTOM, TOP, os="windows")),
    "hostile layer": docker_archive(
        ["a:1"],
        raw=config(archive([file("../x")])),
        layers={"1": archive([file("../x")])},
    ),
    "cut": docker_archive(["a:1"])[:-3000],
    "layout without blob": layout(
        layers=[BOTTOM], plain=[BOTTOM], annotations={}, leave_out=BOTTOM
    ),
    "layout without manifests": archive(
        [file("index.json", b'{"schemaVersion": 2, "manifests": []}')]
    ),
    "layout with bad digest": archive(
        [
            file(
                "index.json",
                b'{"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.'
                b'manifest.v1+json", "digest": "sha256:../../../etc/passwd", "size": 1}]}',
            )
        ]
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_archives_leave_nothing(world: ImageWorld, case: str) -> None:
    with pytest.raises(SampanError):
        await world.load(BAD[case])
    assert world.blobs() == world.layers() == set()
    assert len(world.images) == 0 and world.events == []


# -- Saving ------------------------------------------------------------------------------------------


async def test_saved_is_loaded_as_it_was(world: ImageWorld, second: ImageWorld) -> None:
    await world.load(docker_archive(["demo:1", "demo:2", "x/y:3"]))
    data = await world.save("demo", "x/y:3")
    assert await second.load(data) == ["demo:1", "demo:2", "x/y:3"]
    ours, theirs = world.images.resolve("demo:1"), second.images.resolve("demo:1")
    assert ours.id == theirs.id
    assert ours.record.manifest_digest == theirs.record.manifest_digest
    assert world.blobs() == second.blobs()


async def test_what_save_takes_for_a_name(world: ImageWorld) -> None:
    await world.load(docker_archive(["demo:1", "demo:2"]))
    identity = world.images.resolve("demo:1").id

    async def tags(*names: str) -> Any:
        with tarfile.open(fileobj=io.BytesIO(await world.save(*names))) as saved:
            member = saved.extractfile("manifest.json")
            assert member is not None
            return [item["RepoTags"] for item in json.load(member)]

    assert await tags("demo") == [["demo:1", "demo:2"]]
    assert await tags("demo:2") == [["demo:2"]]
    assert await tags(identity) == [None]
    assert await tags(identity[7:19], "demo:1", "demo:1") == [["demo:1"]]


async def test_save_refuses_before_the_first_byte(world: ImageWorld) -> None:
    for name in ("nosuch", "nosuch:1", "sha256:" + "0" * 64):
        with pytest.raises(NotFound, match="No such image"):
            world.images.save([name])
    with pytest.raises(InvalidArgument, match="host image"):
        world.images.save(["host"])


async def test_nothing_is_collected_under_a_running_save(world: ImageWorld) -> None:
    await world.load(docker_archive(["demo:1"]))
    stream = world.images.save(["demo:1"])
    parts = [await anext(stream)]
    world.images.remove("demo:1")
    parts += [piece async for piece in stream]
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as saved:
        assert "manifest.json" in saved.getnames()
    assert world.blobs() == set()


@pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")
@pytest.mark.parametrize("encode", [bytes, gzip.compress, zstd.compress], ids=["tar", "gz", "zst"])
async def test_skopeo_reads_what_we_save(world: ImageWorld, tmp_path: Path, encode: Any) -> None:
    await world.load(docker_archive(["demo:1"], layers={"1": encode(BOTTOM), "2": encode(TOP)}))
    path = tmp_path / "saved.tar"
    path.write_bytes(await world.save("demo:1"))
    for source in ("docker-archive", "oci-archive"):
        target = tmp_path / source
        run(["skopeo", "copy", "-q", f"{source}:{path}", f"dir:{target}"])
        manifest = json.loads((target / "manifest.json").read_text())
        assert manifest["config"]["digest"].startswith("sha256:")
        assert len(manifest["layers"]) == 2


@pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")
async def test_what_skopeo_writes_is_loaded(
    world: ImageWorld, second: ImageWorld, tmp_path: Path
) -> None:
    await world.load(docker_archive(["demo:1"]))
    source = tmp_path / "saved.tar"
    source.write_bytes(await world.save("demo:1"))
    for kind in ("docker-archive", "oci-archive"):
        path = tmp_path / f"{kind}.tar"
        run(["skopeo", "copy", "-q", f"docker-archive:{source}", f"{kind}:{path}:demo:1"])
        assert await second.load(path.read_bytes()) == ["demo:1"]


@pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")
async def test_the_store_itself_is_a_layout_that_skopeo_reads(world: ImageWorld) -> None:
    await world.load(docker_archive(["demo:1"]))
    out = run(["skopeo", "inspect", f"oci:{world.root}:1"])
    assert json.loads(out)["Digest"] == world.images.resolve("demo:1").record.manifest_digest


async def test_import_then_save(world: ImageWorld, second: ImageWorld) -> None:
    image = await world.images.import_(pieces(BOTTOM), reference="flat:1")
    assert await second.load(await world.save("flat:1")) == ["flat:1"]
    assert second.images.resolve("flat:1").id == image.id
