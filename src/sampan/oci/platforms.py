"""Which platforms' programs a machine runs, best first, and the choice from an index.

A processor runs what was compiled for its older variants, too, and some run another architecture's.
Source: OCI image-spec, image-index.md "Platform variants"; containerd's platforms package (what
dockerd takes for a platform): its order of preference and its aliases.
"""

from __future__ import annotations

from collections.abc import Sequence

from sampan.oci.descriptor import Descriptor, Platform
from sampan.oci.index import is_attestation

_ALIASES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_ARM_DEFAULT = "v7"
_ARM_OLDEST = 5


def normalized(platform: Platform) -> Platform:
    """One spelling for each platform: `linux/arm64/v8` is `linux/arm64`, `linux/arm` is v7."""
    architecture, variant = platform.architecture.lower(), platform.variant.lower()
    if architecture in _ALIASES:
        architecture, named = _ALIASES[architecture]
        variant = variant or named
    if variant.isdigit():
        variant = f"v{variant}"
    if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
        variant = ""
    if (architecture, variant) == ("arm", ""):
        variant = _ARM_DEFAULT
    return Platform(architecture=architecture, os=platform.os.lower(), variant=variant)


def runnable(wanted: Platform) -> list[Platform]:
    """The platforms whose images run where `wanted` is asked for, the best first, normalized."""
    first = normalized(wanted)
    found = [first, *_variant_chain(first)]
    if first.architecture == "arm64":
        newest_arm = Platform(architecture="arm", os=first.os, variant="v8")
        found += [newest_arm, *_variant_chain(newest_arm)]
    if first.architecture == "amd64":
        found.append(Platform(architecture="386", os=first.os))
    return found


def _variant_chain(platform: Platform) -> list[Platform]:
    """The older variants of an architecture: `arm/v7` runs v6 and v5, `amd64/v3` v2 and v1."""
    number = platform.variant.removeprefix("v")
    if not number.isdigit() or len(number) > 2:
        return []
    oldest = {"arm": _ARM_OLDEST, "arm64": 8, "amd64": 1}.get(platform.architecture, int(number))
    return [
        normalized(
            Platform(architecture=platform.architecture, os=platform.os, variant=f"v{older}")
        )
        for older in range(int(number) - 1, oldest - 1, -1)
    ]


def select_platform(manifests: Sequence[Descriptor], wanted: Platform) -> Descriptor | None:
    """The entry of an index to take for `wanted`: the first of the best platform that it has, else
    one that names no platform; None where nothing runs. Attestations are no images."""
    images = [entry for entry in manifests if not is_attestation(entry)]
    for platform in runnable(wanted):
        for entry in images:
            if entry.platform is not None and normalized(entry.platform) == platform:
                return entry
    return next((entry for entry in images if entry.platform is None), None)
