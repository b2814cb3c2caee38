"""Descriptors: media type, digest and size of a blob, and for which platform it is.

Source: OCI image-spec, descriptor.md.
"""

from __future__ import annotations

import platform as machine

import msgspec

from sampan.errors import InvalidArgument
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


_COMPONENT = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_SYSTEMS = frozenset(
    [
        "aix",
        "android",
        "darwin",
        "dragonfly",
        "freebsd",
        "hurd",
        "illumos",
        "ios",
        "js",
        "linux",
        "nacl",
        "netbsd",
        "openbsd",
        "plan9",
        "solaris",
        "windows",
        "zos",
    ]
)
_KNOWN_ARCHITECTURES = frozenset(
    [
        "386",
        "amd64",
        "amd64p32",
        "arm",
        "armbe",
        "arm64",
        "arm64be",
        "ppc64",
        "ppc64le",
        "loong64",
        "mips",
        "mipsle",
        "mips64",
        "mips64le",
        "mips64p32",
        "mips64p32le",
        "ppc",
        "riscv",
        "riscv64",
        "s390",
        "s390x",
        "sparc",
        "sparc64",
        "wasm",
    ]
)


def local_platform() -> Platform:
    """This machine's platform."""
    name = machine.machine()
    architecture, variant = _ARCHITECTURES.get(name, (name, ""))
    return Platform(architecture=architecture, os="linux", variant=variant)


def parse_platform(text: str) -> Platform:
    """Read `os[/arch[/variant]]` or `arch`, as `--platform` takes it.

    Raises:
        InvalidArgument: containerd's texts, which are dockerd's.
    """
    parts = text.split("/")
    if len(parts) > 3:
        raise InvalidArgument(f'"{text}": cannot parse platform specifier: invalid argument')
    for part in parts:
        if not part or not _COMPONENT.issuperset(part):
            raise InvalidArgument(
                f'"{part}" is an invalid component of "{text}": platform specifier component must '
                'match "^[A-Za-z0-9_-]+$": invalid argument'
            )
    parts = [part.lower() for part in parts]
    if len(parts) == 1:
        return _one_word(parts[0], text)
    variant = parts[2] if len(parts) == 3 else ""
    return Platform(architecture=_go_name(parts[1]), os=_os_name(parts[0]), variant=variant)


def _one_word(word: str, text: str) -> Platform:
    local = local_platform()
    if _os_name(word) in _SYSTEMS:
        return Platform(architecture=local.architecture, os=_os_name(word), variant=local.variant)
    if _go_name(word) in _KNOWN_ARCHITECTURES:
        return Platform(architecture=_go_name(word), os=local.os)
    raise InvalidArgument(f'"{text}": unknown operating system or architecture: invalid argument')


def _os_name(word: str) -> str:
    return "darwin" if word == "macos" else word


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
