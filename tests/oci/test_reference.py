"""References are read, normalised and refused as Docker does."""

import pytest

from sampan.oci.reference import BadReference, parse_reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("user/app", "docker.io/user/app", "user/app"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("ghcr.io/a/b/c", "ghcr.io/a/b/c", "ghcr.io/a/b/c"),
        ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
        ("a--b__c.d_e", "docker.io/library/a--b__c.d_e", "a--b__c.d_e"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}", f"busybox@{DIGEST}"),
        (f"b:t@{DIGEST}", f"docker.io/library/b:t@{DIGEST}", f"b:t@{DIGEST}"),
        ("Example.COM/app", "Example.COM/app", "Example.COM/app"),
        ("quay.io/" + "a" * 255, "quay.io/" + "a" * 255, "quay.io/" + "a" * 255),
    ],
)
def test_normalised(text: str, full: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert (str(reference), reference.familiar) == (full, familiar)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("UPPER", "invalid reference format: repository name must be lowercase"),
        ("user/App:x", "invalid reference format: repository name must be lowercase"),
        ("a:b:c", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a:.x", "invalid reference format"),
        ("a@sha256:123", "invalid reference format"),
        ("a@md5:" + "a" * 32, "unsupported digest algorithm"),
        ("a@sha256:" + "a" * 63, "invalid checksum digest length"),
        ("a:1@sha256:" + "A" * 64, "invalid checksum digest format"),
        ("a@sha512:" + "a" * 128, "unsupported digest algorithm"),
        ("a\n", "invalid reference format"),
        ("ä", "invalid reference format"),
        ("../etc", "invalid reference format"),
        ("a" * 300, "repository name must not be more than 255 characters"),
        (
            "a" * 64,
            f"invalid repository name ({'a' * 64}), cannot specify 64-byte hexadecimal strings",
        ),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(BadReference) as caught:
        parse_reference(text)
    assert caught.value.message == message


def test_default_tag_only_without_tag_and_digest() -> None:
    assert parse_reference("a").with_default_tag().tag == "latest"
    assert parse_reference("a:1").with_default_tag().tag == "1"
    assert parse_reference(f"a@{DIGEST}").with_default_tag().tag is None
