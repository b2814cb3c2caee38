"""The same images in other tools' hands: skopeo, podman, buildah and umoci read what we push, save and
store; what they write is pulled and loaded here, and keeps its ID."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import secrets
import shutil
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.images.distribution.client import Registries
from sampan.images.distribution.settings import RegistrySettings
from sampan.images.image import Image
from support.command import Result, run
from support.images import ImageWorld
from support.registries import Registry
from support.registry_images import layer, put_image, put_index
from support.tars import archive, directory, file, hard_link, symlink

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not all(map(shutil.which, ("skopeo", "podman", "buildah", "umoci"))),
        reason="needs skopeo, podman, buildah and umoci",
    ),
]

BOTTOM = archive(
    [
        directory("etc"),
        directory("gone"),
        file("gone/file"),
        file("etc/hidden", b"1"),
        file("etc/kept", b"22"),
        file("bin", b"x" * 100_000, mode=0o755),
        hard_link("twin", "bin"),
        symlink("link", "etc/kept"),
    ]
)
TOP = archive(
    [
        directory("etc"),
        file("etc/.wh.hidden", b""),
        directory("gone"),
        file("gone/.wh..wh..opq", b""),
        file("gone/new", b"333"),
    ]
)
TREE = {"etc/kept", "bin", "twin", "link", "gone/new"}


class Tools:
    """The other engines, on stores of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        stores = ["--root", f"{directory}/root", "--runroot", f"{directory}/run"]
        self._stores = [*stores, "--storage-driver", "vfs"]
        self._environment = {**os.environ, "TMPDIR": str(directory), "HOME": str(directory)}

    def podman(self, *words: str, check: bool = True) -> Result:
        options = ("--events-backend", "none", "--cgroup-manager", "cgroupfs")
        return self._run("podman", *self._stores, *options, *words, check=check)

    def buildah(self, *words: str) -> Result:
        return self._run("buildah", *self._stores, *words)

    def skopeo(self, *words: str) -> Result:
        return self._run("skopeo", *words)

    def umoci(self, *words: str) -> Result:
        return self._run("umoci", *words)

    def _run(self, *argv: str, check: bool = True) -> Result:
        return run(argv, env=self._environment, check=check)


@pytest.fixture
def tools(session_directory: str) -> Iterator[Tools]:
    path = Path(session_directory) / secrets.token_hex(2)  # podman wants it short
    path.mkdir()
    yield Tools(path)
    shutil.rmtree(path)


@pytest.fixture
async def ours(tmp_path: Path) -> AsyncIterator[ImageWorld]:
    """Our images, with the real client of registries."""
    registries = Registries(RegistrySettings)
    made = ImageWorld(tmp_path / "ours", registries)
    yield made
    made.close()
    await registries.close()


@pytest.fixture
async def demo(ours: ImageWorld) -> Image:
    """`demo:1`, of two layers, as an archive brought it."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": {"Cmd": ["sh"], "Env": ["A=b"], "Labels": {"who": "sampan"}},
        "rootfs": {"type": "layers", "diff_ids": [_digest(BOTTOM), _digest(TOP)]},
    }
    listed = [{"Config": "c.json", "RepoTags": ["demo:1"], "Layers": ["1.tar", "2.tar"]}]
    members = [
        file("1.tar", BOTTOM),
        file("2.tar", TOP),
        file("c.json", json.dumps(config).encode()),
        file("manifest.json", json.dumps(listed).encode()),
    ]
    await ours.load(archive(members))
    return ours.images.resolve("demo:1")


async def push(ours: ImageWorld, image: Image, place: str) -> None:
    """Push under a name of its own: `place` is `host:port/path:tag`."""
    ours.images.tag(image.id, place)
    name, _, tag = place.rpartition(":")
    await ours.images.push(name, tag=tag, credentials=None, progress=ours.messages.append)


async def pull(ours: ImageWorld, place: str) -> Image:
    name, _, tag = place.rpartition(":")
    [image] = await ours.images.pull(
        name, tag=tag, platform=None, credentials=None, progress=ours.messages.append
    )
    return image


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tree(root: Path) -> set[str]:
    """The names of everything that is no directory."""
    return {
        os.path.relpath(os.path.join(directory, name), root)
        for directory, _, names in os.walk(root)
        for name in names
    }


def packed(root: Path) -> bytes:
    """A directory as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(root, arcname=".")
    return buffer.getvalue()


async def merged(ours: ImageWorld, image: Image, tools: Tools) -> set[str]:
    """The names in an image's tree, as umoci unpacks it from our store."""
    ours.images.tag(image.id, "merged:tree")
    target = tools.directory / f"tree-{image.id[7:19]}"
    tools.umoci("unpack", "--image", f"{ours.root}:tree", str(target))
    return tree(target / "rootfs")


class TestTheyReadOurs:
    async def test_what_is_pushed(
        self, ours: ImageWorld, demo: Image, registry: Registry, tools: Tools
    ) -> None:
        place = f"{registry.address}/team/demo:1"
        await push(ours, demo, place)
        raw = tools.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{place}").out
        assert _digest(raw.encode()) == demo.record.manifest_digest
        for tool in (tools.podman, tools.buildah):
            assert tool("pull", "-q", "--tls-verify=false", place).line == demo.id[7:]
            shown = json.loads(tool("inspect", "--type", "image", place).out)
            document = shown[0] if isinstance(shown, list) else shown["OCIv1"]
            config = document.get("Config") or document["config"]
            assert config["Labels"] == {"who": "sampan"}
            tools.podman("rmi", "-f", demo.id[7:])
        target = f"oci:{tools.directory}/layout:1"
        tools.skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{place}", target)
        tools.umoci("unpack", "--image", f"{tools.directory}/layout:1", f"{tools.directory}/un")
        assert tree(tools.directory / "un" / "rootfs") == TREE

    async def test_what_is_saved(
        self, ours: ImageWorld, demo: Image, tools: Tools, tmp_path: Path
    ) -> None:
        """In each of the two formats that are in one file."""
        path = tmp_path / "saved.tar"
        path.write_bytes(await ours.save("demo:1"))
        for kind in ("docker-archive", "oci-archive"):
            for tool in (tools.podman, tools.buildah):
                assert tool("pull", "-q", f"{kind}:{path}").line == demo.id[7:]
                tools.podman("rmi", "-f", demo.id[7:])
        assert "demo:1" in tools.podman("load", "-q", "-i", str(path)).out
        assert tools.podman("image", "inspect", "-f", "{{.Id}}", "demo:1").line == demo.id[7:]

    async def test_what_is_stored(
        self, ours: ImageWorld, demo: Image, registry: Registry, tools: Tools
    ) -> None:
        """The store is an OCI layout at any time; each blob is what its name says."""
        ours.images.tag("demo:1", "demo:two")
        assert tools.umoci("ls", "--layout", str(ours.root)).out.split() == ["1", "two"]
        assert await merged(ours, demo, tools) == TREE
        await push(ours, demo, f"{registry.address}/demo:3")  # which compresses the layers
        target = tools.directory / "compressed"
        tools.umoci("unpack", "--image", f"{ours.root}:two", str(target))
        assert tree(target / "rootfs") == TREE
        for name in ours.blobs():
            data = (ours.root / "blobs/sha256" / name).read_bytes()
            assert hashlib.sha256(data).hexdigest() == name
        copy = tools.directory / "copy"
        tools.skopeo("copy", "-q", f"oci:{ours.root}:two", f"oci:{copy}:two")
        index = json.loads((copy / "index.json").read_text())
        assert index["manifests"][0]["digest"] == demo.record.manifest_digest


class TestWeReadTheirs:
    async def test_podman(
        self, ours: ImageWorld, registry: Registry, tools: Tools, tmp_path: Path
    ) -> None:
        """Pushed, and saved in both formats, one and several images."""
        (tmp_path / "root.tar").write_bytes(BOTTOM)
        (tmp_path / "other.tar").write_bytes(archive([file("other")]))
        made = tools.podman("import", "-q", str(tmp_path / "root.tar"), "pod:1").line
        tools.podman("import", "-q", str(tmp_path / "other.tar"), "pod:2")
        place = f"{registry.address}/pod:1"
        for format in ("oci", "v2s2"):
            options = ("-q", "--tls-verify=false", "--format", format)
            tools.podman("push", *options, "localhost/pod:1", place)
            image = await pull(ours, place)
            if format == "oci":
                assert image.id == made
            assert image.layers == [_digest(BOTTOM)]
            ours.images.remove(place)
        for format in ("docker-archive", "oci-archive"):
            path = tmp_path / f"{format}.tar"
            tools.podman("save", "-q", "--format", format, "-o", str(path), "pod:1")
            [name] = await ours.load(path.read_bytes())
            assert name == "localhost/pod:1"
            assert ours.images.resolve(name).layers == [_digest(BOTTOM)]
            ours.images.remove(name)
        tools.podman("save", "-q", "-m", "-o", str(tmp_path / "both.tar"), "pod:1", "pod:2")
        names = await ours.load((tmp_path / "both.tar").read_bytes())
        assert sorted(names) == ["localhost/pod:1", "localhost/pod:2"]

    @pytest.mark.parametrize("compression", ["gzip", "zstd"])
    async def test_buildah(
        self,
        ours: ImageWorld,
        registry: Registry,
        tools: Tools,
        tmp_path: Path,
        compression: str,
    ) -> None:
        """What it builds, pushed to a registry and into archives."""
        (tmp_path / "root.tar").write_bytes(BOTTOM)
        container = tools.buildah("from", "scratch").line
        tools.buildah("add", "-q", container, str(tmp_path / "root.tar"), "/")
        tools.buildah("config", "--cmd", "sh", "--label", "by=buildah", container)
        made = tools.buildah("commit", "-q", container, "built:1").line
        place = f"{registry.address}/built:1"
        options = ("-q", "--tls-verify=false", "--format", "oci")
        tools.buildah(
            "push", *options, f"--compression-format={compression}", made, f"docker://{place}"
        )
        image = await pull(ours, place)
        assert image.id == f"sha256:{made.removeprefix('sha256:')}"
        assert image.config.labels and image.config.labels["by"] == "buildah"
        if compression == "gzip":  # umoci does not know zstd
            assert await merged(ours, image, tools) == {
                "etc/hidden", "etc/kept", "gone/file", "bin", "twin", "link"
            }  # fmt: skip
        for format in ("docker-archive", "oci-archive"):
            path = tmp_path / f"{format}.tar"
            tools.buildah("push", "-q", made, f"{format}:{path}:built:{format}")
            await ours.load(path.read_bytes())
            loaded = ours.images.resolve(f"built:{format}")
            assert loaded.layers == image.layers

    async def test_umoci(self, ours: ImageWorld, registry: Registry, tools: Tools) -> None:
        """An OCI layout made by hand, with a layer that deletes: in a tar, and by skopeo's push."""
        layout, bundle = tools.directory / "layout", tools.directory / "bundle"
        tools.umoci("init", "--layout", str(layout))
        tools.umoci("new", "--image", f"{layout}:1")
        tools.umoci("unpack", "--image", f"{layout}:1", str(bundle))
        with tarfile.open(fileobj=io.BytesIO(BOTTOM)) as tar:
            tar.extractall(bundle / "rootfs")
        tools.umoci("repack", "--refresh-bundle", "--image", f"{layout}:1", str(bundle))
        (bundle / "rootfs/etc/hidden").unlink()
        shutil.rmtree(bundle / "rootfs/gone")
        (bundle / "rootfs/new").write_text("new")
        tools.umoci("repack", "--image", f"{layout}:2", str(bundle))
        left = {"etc/kept", "bin", "twin", "link", "new"}
        await ours.load(packed(layout))
        [loaded] = [i for i in ours.images.list(all=True, filters={}) if len(i.layers) == 2]
        assert await merged(ours, loaded, tools) == left
        source, place = f"oci:{layout}:2", f"{registry.address}/umoci:2"
        tools.skopeo("copy", "-q", "--dest-tls-verify=false", source, f"docker://{place}")
        assert (await pull(ours, place)).id == loaded.id

    async def test_skopeo(
        self, ours: ImageWorld, registry: Registry, tools: Tools, tmp_path: Path
    ) -> None:
        """Copies of an image with two platforms: our own is taken."""
        here = put_image(registry, "app", "", [layer(1000)])
        there = put_image(registry, "app", "", [layer(2000)], platform=("linux", "s390x"))
        put_index(registry, "app", "all", {"linux/amd64": here, "linux/s390x": there})
        source = f"docker://{registry.address}/app:all"
        everything = tmp_path / "all.tar"
        options = ("-q", "--all", "--src-tls-verify=false")
        tools.skopeo("copy", *options, source, f"oci-archive:{everything}:app:all")
        await ours.load(gzip.compress(everything.read_bytes(), 1))
        assert ours.images.resolve("app:all").id == here.id
        assert (await pull(ours, f"{registry.address}/app:all")).id == here.id
        one = tmp_path / "one.tar"
        options = ("-q", "--override-arch=s390x", "--src-tls-verify=false")
        tools.skopeo("copy", *options, source, f"docker-archive:{one}:app:other")
        await ours.load(one.read_bytes())
        assert ours.images.resolve("app:other").layers == [_digest(there.plain[0])]


async def test_what_was_pulled_is_pushed_byte_for_byte(
    ours: ImageWorld, registry: Registry, tools: Tools
) -> None:
    """Docker's and OCI's manifests, gzip, zstd and plain layers; skopeo sees the same image."""
    kinds: dict[str, dict[str, Any]] = {
        "docker": {"docker": True},
        "oci": {},
        "zstd": {"compression": "zstd"},
        "plain": {"compression": ""},
    }
    for number, (name, options) in enumerate(kinds.items()):
        layers = [layer(50_000, seed=number), layer(70_000, seed=10 + number)]
        made = put_image(registry, name, "1", layers, **options)
        image = await pull(ours, f"{registry.address}/{name}:1")
        await push(ours, image, f"{registry.address}/copy-of-{name}:1")
        copy = registry.manifest(f"copy-of-{name}", "1")
        assert copy.body == made.manifest.data
        assert copy.headers["content-type"] == made.manifest.media_type
        seen = tools.skopeo(
            "inspect", "--tls-verify=false", f"docker://{registry.address}/copy-of-{name}:1"
        )
        assert json.loads(seen.out)["Layers"] == [blob.digest for blob in made.layers]
        for blob in made.layers:
            assert registry.blob(f"copy-of-{name}", blob.digest) == blob.data
