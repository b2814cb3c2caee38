"""Descriptors: media type, digest and size of a blob, and for which platform it is.

Source: OCI image-spec, descriptor.md.
"""

from __future__ import annotations

import platform as machine

import msgspec

from sampan.oci.digest import Digest


class Platform(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a manifest is for, in Go's words (`amd64`, `arm64` + variant `v8`)."""

    architecture: str
    os: str
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, rename="camel"):
    """What a manifest says of a blob; `size` in bytes. The digest is checked by its user."""

    media_type: str
    digest: Digest
    size: int
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    artifact_type: str = ""


_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "riscv64": ("riscv64", ""),
    "s390x": ("s390x", ""),
}


def local_platform() -> Platform:
    """This machine's platform."""
    name = machine.machine()
    architecture, variant = _ARCHITECTURES.get(name, (name, ""))
    return Platform(architecture=architecture, os="linux", variant=variant)


def parse_platform(text: str) -> Platform:
    """Read `os[/arch[/variant]]` or `arch`, as `--platform` takes it."""
    from sampan.errors import InvalidArgument

    parts = text.lower().split("/")
    if not all(parts) or len(parts) > 3:
        raise InvalidArgument(
            f'"{text}": invalid platform: unknown operating system or architecture'
        )
    local = local_platform()
    if len(parts) == 1:
        if parts[0] in ("linux", "windows", "darwin", "freebsd"):
            return Platform(architecture=local.architecture, os=parts[0], variant=local.variant)
        return Platform(architecture=_go_name(parts[0]), os=local.os)
    variant = parts[2] if len(parts) == 3 else ""
    return Platform(architecture=_go_name(parts[1]), os=parts[0], variant=variant)


def _go_name(architecture: str) -> str:
    known = _ARCHITECTURES.get(architecture)
    return known[0] if known else architecture


def matches(offered: Platform, wanted: Platform) -> bool:
    """Whether an image for `offered` runs where `wanted` is asked for; an unnamed variant fits."""
    return (
        offered.os == wanted.os
        and offered.architecture == wanted.architecture
        and (not offered.variant or not wanted.variant or offered.variant == wanted.variant)
    )
