"""Digests, chain IDs, platforms, times and documents of the image spec."""

import json

import pytest

from sampan.errors import InvalidArgument
from sampan.oci import media_types
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import (
    BadDigest,
    DiffID,
    chain_ids,
    digest_of,
    parse_digest,
    short_id,
)
from sampan.oci.go_time import format_time, parse_duration, parse_time
from sampan.oci.image_config import encode_image_config, parse_image_config
from sampan.oci.index import parse_index
from sampan.oci.manifest import encode_manifest, in_docker_types, parse_manifest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid checksum digest format"),
        ("sha256:", "invalid checksum digest format"),
        ("sha256:" + "A" * 64, "invalid checksum digest format"),
        ("sha256:" + "a" * 63, "invalid checksum digest length"),
        ("sha256:../../etc/passwd", "invalid checksum digest length"),
        ("md5:" + "a" * 32, "unsupported digest algorithm"),
    ],
)
def test_bad_digests(text: str, message: str) -> None:
    with pytest.raises(BadDigest, match=message):
        parse_digest(text)


def test_chain_ids_follow_the_spec() -> None:
    one, two = DiffID("sha256:" + "1" * 64), DiffID("sha256:" + "2" * 64)
    assert chain_ids([one, two]) == [one, digest_of(f"{one} {two}".encode())]
    assert chain_ids([]) == []
    assert short_id(one) == "1" * 12


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T01:00:00.000000001+01:00", 1),
        ("2024-02-29T12:34:56.123456789Z", 1709210096123456789),
        ("0001-01-01T00:00:00Z", -62135596800 * 10**9),
    ],
)
def test_times(text: str, ns: int) -> None:
    assert parse_time(text) == ns
    assert parse_time(format_time(ns)) == ns


def test_times_are_written_as_go_does() -> None:
    assert format_time(0) == "1970-01-01T00:00:00Z"
    assert format_time(1_500_000_000) == "1970-01-01T00:00:01.5Z"


def test_durations() -> None:
    assert parse_duration("1m30s") == 90 * 10**9
    assert parse_duration("1.5h") == 5400 * 10**9
    with pytest.raises(InvalidArgument, match='time: invalid duration "1x"'):
        parse_duration("1x")


def test_config_reads_nulls_as_unset_and_ignores_what_it_does_not_know() -> None:
    document = {
        "architecture": "amd64",
        "config": {"Env": None, "Cmd": ["sh"], "Hostname": "x", "Labels": {"a": "b"}},
        "container": "123",
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64]},
    }
    config = parse_image_config(json.dumps(document).encode())
    assert config.config.to_dict() == {"Cmd": ["sh"], "Labels": {"a": "b"}}
    assert parse_image_config(encode_image_config(config)) == config


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"rootfs": {"diff_ids": ["sha256:x"]}}',
        '{"config": {"Env": 3}, "rootfs": {}}',
        "[" * 100_000,
    ],
)
def test_bad_configs(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_image_config(text.encode())


@pytest.mark.parametrize(
    "change",
    [
        {"schemaVersion": 1},
        {"config": {"mediaType": "x", "digest": "sha256:zz", "size": 1}},
        {"layers": [{"mediaType": "x", "digest": "sha256:" + "1" * 64, "size": -1}]},
        {"layers": None},
    ],
)
def test_bad_manifests(change: dict[str, object]) -> None:
    good = {
        "schemaVersion": 2,
        "config": {"mediaType": "x", "digest": "sha256:" + "1" * 64, "size": 1},
        "layers": [],
    }
    parse_manifest(json.dumps(good).encode())
    with pytest.raises(InvalidArgument):
        parse_manifest(json.dumps(good | change).encode())


_BLOB = b'{"mediaType":"x","digest":"sha256:' + b"a" * 64 + b'","size":%b}'
_ROOTFS = b'"rootfs":{"type":"layers","diff_ids":[]}}'


@pytest.mark.parametrize(
    "data",
    [
        b'{"schemaVersion":2,"mediaType":"\xff","config":' + _BLOB % b"1" + b',"layers":[]}',
        b'{"schemaVersion":2,"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"schemaVersion":2,"mediaType":"\\ud800","config":' + _BLOB % b"1" + b',"layers":[]}',
        b'{"schemaVersion":2,"config":' + _BLOB % b"-1" + b',"layers":[]}',
        b'{"schemaVersion":2,"config":' + _BLOB % (b"9" * 30) + b',"layers":[]}',
        b'{"schemaVersion":2,"config":' + _BLOB % (b"9" * 5000) + b',"layers":[]}',
        b'{"schemaVersion":2,"config":' + _BLOB % b"1e400" + b',"layers":[]}',
        b'{"architecture":"\xff","os":"linux",' + _ROOTFS,
        b'{"architecture":"a","os":"linux","x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"", b"[]", b"null", b"{}", b"\xef\xbb\xbf{}",
    ],
)  # fmt: skip
def test_hostile_documents(data: bytes) -> None:
    """What registries and archives may send is refused, whatever it is."""
    for parse in (parse_manifest, parse_index, parse_image_config):
        with pytest.raises(InvalidArgument):
            parse(data)


def test_a_manifest_in_dockers_types() -> None:
    """The same blobs; where Docker has no type for one, there is none."""
    digest = digest_of(b"")
    config = Descriptor(media_type=media_types.OCI_CONFIG, digest=digest, size=2)
    gzip, plain, zstd = (
        Descriptor(media_type=kind, digest=digest, size=size)
        for size, kind in enumerate(
            media_types.LAYER_BY_COMPRESSION[c] for c in ("gzip", "", "zstd")
        )
    )
    data = in_docker_types(parse_manifest(encode_manifest(config, [gzip, plain])))
    assert data is not None
    manifest = parse_manifest(data)
    assert manifest.media_type == media_types.DOCKER_MANIFEST
    assert [(d.media_type, d.size) for d in (manifest.config, *manifest.layers)] == [
        (media_types.DOCKER_CONFIG, 2),
        (media_types.DOCKER_LAYER_GZIP, 0),
        (media_types.DOCKER_LAYER, 1),
    ]
    assert in_docker_types(parse_manifest(encode_manifest(config, [zstd]))) is None
