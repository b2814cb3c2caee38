"""Platforms: what `--platform` takes, and which entry of an index is taken for one."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidArgument
from sampan.oci.descriptor import Descriptor, Platform, local_platform, matches, parse_platform
from sampan.oci.digest import Digest
from sampan.oci.platforms import normalized, runnable, select_platform


def platform(text: str) -> Platform:
    os, architecture, variant = [*text.split("/"), ""][:3]
    return Platform(os=os, architecture=architecture, variant=variant)


def entries(*texts: str) -> list[Descriptor]:
    return [
        Descriptor(
            media_type="m",
            digest=Digest(text),
            size=0,
            platform=platform(text) if text else None,
        )
        for text in texts
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("LINUX/AMD64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("arm64", "linux/arm64"),
        ("aarch64", "linux/arm64"),
        ("macos/arm64", "darwin/arm64"),
        ("foo/bar", "foo/bar"),
    ],
)
def test_what_platform_takes(text: str, expected: str) -> None:
    assert normalized(parse_platform(text)) == normalized(platform(expected))


def test_a_system_alone_is_of_our_architecture() -> None:
    assert parse_platform("windows").os == "windows"
    assert parse_platform("windows").architecture == local_platform().architecture


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a/b/c/d", '"a/b/c/d": cannot parse platform specifier: invalid argument'),
        ("foo", '"foo": unknown operating system or architecture: invalid argument'),
        ("", '"" is an invalid component of "": platform specifier component must match'),
        ("linux/", '"" is an invalid component of "linux/": '),
        ("a b/c", '"a b" is an invalid component of "a b/c": '),
        ("linux/ämd64", '"ämd64" is an invalid component of '),
    ],
)
def test_what_it_refuses(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_platform(text)
    assert refused.value.message.startswith(words)


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64/v8", "linux/amd64"], "linux/amd64"),
        ("linux/amd64", ["linux/386", "linux/amd64"], "linux/amd64"),
        ("linux/amd64", ["linux/386", "linux/arm64"], "linux/386"),
        ("linux/amd64", ["linux/amd64/v2", "linux/amd64"], "linux/amd64"),
        ("linux/amd64", ["linux/amd64/v3"], None),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v2"),
        ("linux/arm64/v8", ["linux/amd64", "linux/arm64"], "linux/arm64"),
        ("linux/arm64", ["linux/arm/v6", "linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm64", ["linux/arm/v5", "linux/arm/v7"], "linux/arm/v7"),
        ("linux/arm/v7", ["linux/arm/v8", "linux/arm/v6", "linux/arm/v5"], "linux/arm/v6"),
        ("linux/arm", ["linux/arm/v5", "linux/arm/v7"], "linux/arm/v7"),
        ("linux/arm/v6", ["linux/arm/v7"], None),
        ("linux/s390x", ["linux/amd64", "windows/s390x"], None),
        ("linux/s390x", ["linux/amd64", ""], ""),
        ("linux/386", ["linux/amd64"], None),
        ("linux/arm/v99999999999", ["linux/arm/v7"], None),
    ],
)
def test_the_choice_from_an_index(wanted: str, offered: list[str], chosen: str | None) -> None:
    found = select_platform(entries(*offered), platform(wanted))
    assert (found.digest if found else None) == chosen


def test_attestations_are_no_images() -> None:
    marks = {"vnd.docker.reference.type": "attestation-manifest"}
    unknown = Platform(os="unknown", architecture="unknown")
    attestation = Descriptor(
        media_type="m", digest=Digest("a"), size=0, platform=unknown, annotations=marks
    )
    bare = Descriptor(media_type="m", digest=Digest("b"), size=0, annotations=marks)
    assert select_platform([attestation, bare], platform("linux/amd64")) is None


def test_order_of_preference() -> None:
    shown = [str(each) for each in runnable(platform("linux/arm64/v8"))]
    assert shown == ["linux/arm64", *(f"linux/arm/v{n}" for n in (8, 7, 6, 5))]
    assert matches(platform("linux/arm64"), platform("linux/arm64/v8"))
