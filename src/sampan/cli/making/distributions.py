"""What people call a distribution's release, as the tools and the mirrors call it."""

from __future__ import annotations

from sampan.cli.failures import CommandError

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")
_DEFAULT_SUITES = {"debian": "stable", "ubuntu": "noble"}
_NUMBERS = {
    ("debian", "10"): "buster", ("debian", "11"): "bullseye", ("debian", "12"): "bookworm",
    ("debian", "13"): "trixie", ("debian", "14"): "forky",
    ("ubuntu", "18.04"): "bionic", ("ubuntu", "20.04"): "focal", ("ubuntu", "22.04"): "jammy",
    ("ubuntu", "24.04"): "noble", ("ubuntu", "26.04"): "resolute",
}  # fmt: skip
_MIRRORS = {
    "debian": "http://deb.debian.org/debian",
    "ubuntu": "http://archive.ubuntu.com/ubuntu",
}
_UBUNTU_PORTS = "http://ports.ubuntu.com/ubuntu-ports"
_ARCHITECTURES = {
    "amd64": "amd64", "x86_64": "amd64", "386": "i386", "arm64": "arm64", "aarch64": "arm64",
    "arm": "armhf", "arm/v7": "armhf", "arm/v6": "armel", "arm/v5": "armel", "ppc64le": "ppc64el",
    "s390x": "s390x", "riscv64": "riscv64", "mips64le": "mips64el",
}  # fmt: skip


class Release:
    """`debian:bookworm`, taken apart. `architecture` is Debian's name of it, "" for this machine's."""

    __slots__ = ("architecture", "distribution", "mirror", "suite", "tag")

    def __init__(self, text: str, *, mirror: str, platform: str) -> None:
        distribution, _, suite = text.partition(":")
        if not (_plain(distribution) and (_plain(suite) or text == distribution)):
            raise CommandError(
                f"not a distribution and its release: {text}", hint="For example: debian:bookworm"
            )
        self.distribution = distribution
        self.tag = text if suite else f"{text}:latest"
        if suite in ("", "latest"):
            suite = _DEFAULT_SUITES.get(distribution, "")
        self.suite = _NUMBERS.get((distribution, suite), suite)
        self.architecture = _architecture(platform)
        self.mirror = mirror or self._mirror()
        if not self.suite:
            raise CommandError(
                f"which release of {distribution}?", hint=f"Name it: {distribution}:RELEASE"
            )

    def _mirror(self) -> str:
        if self.distribution == "ubuntu" and self.architecture not in ("", "amd64", "i386"):
            return _UBUNTU_PORTS
        found = _MIRRORS.get(self.distribution)
        if found is None:
            raise CommandError(
                f"no mirror of {self.distribution} is known", hint="Name one: --mirror URL"
            )
        return found


def _plain(word: str) -> bool:
    """Whether a word can be an argument of a tool: no option, no path."""
    return bool(word) and word[0] not in "-._" and _LETTERS.issuperset(word)


def _architecture(platform: str) -> str:
    if not platform:
        return ""
    system, slash, rest = platform.partition("/")
    machine = rest if slash else system
    found = _ARCHITECTURES.get(machine)
    if found is None or (slash and system != "linux"):
        raise CommandError(f"no distribution is known for the platform {platform}")
    return found
