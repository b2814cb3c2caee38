"""The generated image of the image benchmarks: 10 layers, about 300 MB compressed, 20,000 files.

The same seed gives the same bytes. File sizes follow a log-normal distribution as those of an
installed system do, a fifth of the bytes does not compress, the rest is words: together they
compress to about 40 %, what Debian's own images come to. Layers are compressed with zlib level 6,
what `docker push` makes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sampan.oci import tar_writer
from sampan.oci.descriptor import Descriptor, local_platform
from sampan.oci.digest import DiffID, Digest, digest_of, hex_of
from sampan.oci.index import LAYOUT, LAYOUT_FILE, REF_NAME, encode_index

LAYERS, FILES = 10, 20_000
_SIZE_MU, _SIZE_SIGMA = 8.6, 1.9  # of the logarithm of a file's size; the mean is some 33 kB
_SIZE_MAX = 16 << 20
_POOL = 8 << 20
_RANDOM_SHARE = 0.2
_MIXED = 16 << 10
_MTIME_NS = 1_700_000_000 * 1_000_000_000
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass(frozen=True)
class MadeLayer:
    """One layer on disk, compressed (`path`) and plain (`plain_path`)."""

    path: str
    digest: Digest
    size: int
    plain_path: str
    diff_id: DiffID
    plain_size: int


@dataclass(frozen=True)
class MadeImage:
    """A generated image: its layers, config and manifest (Docker's v2 schema 2, as pushed by dockerd)."""

    layers: tuple[MadeLayer, ...]
    config: bytes
    manifest: bytes

    @property
    def size(self) -> int:
        """Bytes of the compressed layers."""
        return sum(layer.size for layer in self.layers)

    def relabelled(self, label: str) -> MadeImage:
        """Another image of the same layers."""
        config = json.loads(self.config)
        config["config"]["Labels"] = {"label": label}
        data = json.dumps(config).encode()
        return MadeImage(self.layers, data, _manifest(data, self.layers))


def make_image(
    directory: str, *, layers: int = LAYERS, files: int = FILES, seed: int = 1
) -> MadeImage:
    """Write the layers below an existing directory; those of the same arguments are taken as found."""
    cached = os.path.join(directory, f"image-{layers}-{files}-{seed}.json")
    if os.path.exists(cached):
        with open(cached) as file:
            made = tuple(MadeLayer(**item) for item in json.load(file))
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = tuple(
                pool.map(
                    lambda number: _make_layer(directory, number, layers, files // layers, seed),
                    range(layers),
                )
            )
        with open(cached, "w") as file:
            json.dump([layer.__dict__ for layer in made], file)
    config = _config(made)
    return MadeImage(made, config, _manifest(config, made))


def docker_archive(image: MadeImage, name: str, path: str) -> None:
    """Write what dockerd 20.10's `docker save` does: plain layers, one directory each."""
    config_name = f"{digest_of(image.config)[7:]}.json"
    with open(path, "wb") as out:
        names = []
        for layer in image.layers:
            folder = hashlib.sha256(layer.diff_id.encode()).hexdigest()
            names.append(f"{folder}/layer.tar")
            out.write(tar_writer.header(tar_writer.directory_entry(folder)))
            _add_file(out, names[-1], layer.plain_path)
        _add_bytes(out, config_name, image.config)
        item = {"Config": config_name, "RepoTags": [name], "Layers": names}
        _add_bytes(out, "manifest.json", json.dumps([item]).encode())
        out.write(tar_writer.END)


def oci_archive(image: MadeImage, name: str, path: str) -> None:
    """Write what Docker since 25 saves from its containerd store: compressed layers, both indexes."""
    with open(path, "wb") as out:
        for layer in image.layers:
            _add_file(out, f"blobs/sha256/{hex_of(layer.digest)}", layer.path)
        for data in (image.config, image.manifest):
            _add_bytes(out, f"blobs/sha256/{hex_of(digest_of(data))}", data)
        descriptor = Descriptor(
            media_type=_DOCKER_MANIFEST,
            digest=digest_of(image.manifest),
            size=len(image.manifest),
            annotations={
                "io.containerd.image.name": f"docker.io/library/{name}",
                REF_NAME: name.partition(":")[2],
            },
        )
        _add_bytes(out, "index.json", encode_index([descriptor]))
        item = {
            "Config": f"blobs/sha256/{hex_of(digest_of(image.config))}",
            "RepoTags": [name],
            "Layers": [f"blobs/sha256/{hex_of(layer.digest)}" for layer in image.layers],
        }
        _add_bytes(out, "manifest.json", json.dumps([item]).encode())
        _add_bytes(out, LAYOUT_FILE, LAYOUT)
        out.write(tar_writer.END)


def _make_layer(directory: str, number: int, layers: int, files: int, seed: int) -> MadeLayer:
    path = os.path.join(directory, f"layer-{layers}-{files}-{seed}-{number}")
    chance = random.Random(f"{seed}-{number}")
    plain, packed = hashlib.sha256(), hashlib.sha256()
    engine = zlib.compressobj(6, wbits=31)
    with open(path + ".tar", "wb") as tar, open(path + ".tar.gz", "wb") as gzip:
        for piece in _gathered(_members(chance, number, files)):
            plain.update(piece)
            tar.write(piece)
            gzipped = engine.compress(piece)
            packed.update(gzipped)
            gzip.write(gzipped)
        gzipped = engine.flush()
        packed.update(gzipped)
        gzip.write(gzipped)
    return MadeLayer(
        path=path + ".tar.gz",
        digest=Digest("sha256:" + packed.hexdigest()),
        size=os.path.getsize(path + ".tar.gz"),
        plain_path=path + ".tar",
        diff_id=DiffID(Digest("sha256:" + plain.hexdigest())),
        plain_size=os.path.getsize(path + ".tar"),
    )


def _members(chance: random.Random, number: int, files: int) -> Iterator[bytes]:
    """The layer's tar, member by member: 20 files a directory, three levels, one link in 20."""
    words = [
        bytes(chance.choices(b"etaoinshrdlucmfwyp_/.-()=\n", k=chance.randint(2, 9)))
        for _ in range(4000)
    ]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    text = b" ".join(chance.choices(words, weights, k=_POOL // 7))
    noise = chance.randbytes(_POOL)
    folders: set[str] = set()
    for index in range(files):
        folder = f"usr/lib/part{number}/{index // 400}/{index // 20}"
        for depth in range(1, folder.count("/") + 2):
            above = "/".join(folder.split("/")[:depth])
            if above not in folders:
                folders.add(above)
                yield tar_writer.header(tar_writer.directory_entry(above, mtime_ns=_MTIME_NS))
        name = f"{folder}/file-{index}.dat"
        if index % 20 == 19:
            entry = tar_writer.file_entry(name, 0, mode=0o777, mtime_ns=_MTIME_NS)
            entry.kind, entry.link = b"2", f"file-{index - 1}.dat".encode()
            yield tar_writer.header(entry)
            continue
        size = min(int(chance.lognormvariate(_SIZE_MU, _SIZE_SIGMA)), _SIZE_MAX)
        entry = tar_writer.file_entry(name, size, mtime_ns=_MTIME_NS + index)
        yield tar_writer.header(entry)
        yield from _mixture(chance, text, noise, size)
        yield tar_writer.padding(size)
    yield tar_writer.END


def _mixture(chance: random.Random, text: bytes, noise: bytes, size: int) -> Iterator[bytes]:
    while size:
        source = noise if chance.random() < _RANDOM_SHARE else text
        length = min(size, _MIXED)
        start = chance.randrange(len(source) - length)
        yield source[start : start + length]
        size -= length


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        if len(buffer) > 1 << 20:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer)


def _config(layers: Sequence[MadeLayer]) -> bytes:
    platform = local_platform()
    document = {
        "architecture": platform.architecture,
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [
            {"created": "2026-01-01T00:00:00Z", "created_by": f"layer {number}"}
            for number in range(len(layers))
        ],
    }
    return json.dumps(document).encode()


def _manifest(config: bytes, layers: Sequence[MadeLayer]) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": _DOCKER_MANIFEST,
        "config": {"mediaType": _DOCKER_CONFIG, "size": len(config), "digest": digest_of(config)},
        "layers": [
            {"mediaType": _DOCKER_LAYER, "size": layer.size, "digest": layer.digest}
            for layer in layers
        ],
    }
    return json.dumps(document, indent=3).encode()


def _add_bytes(out: io.BufferedWriter, name: str, data: bytes) -> None:
    entry = tar_writer.file_entry(name, len(data), mtime_ns=_MTIME_NS)
    out.write(tar_writer.header(entry) + data + tar_writer.padding(len(data)))


def _add_file(out: io.BufferedWriter, name: str, path: str) -> None:
    size = os.path.getsize(path)
    out.write(tar_writer.header(tar_writer.file_entry(name, size, mtime_ns=_MTIME_NS)))
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            out.write(piece)
    out.write(tar_writer.padding(size))
