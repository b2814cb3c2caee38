"""What the daemon's options say of registries: mirrors, which may be insecure, where certificates lie.

An insecure registry's certificate is not verified, and where nothing speaks TLS plain HTTP is used.
This machine's own loopback addresses are always insecure in this sense, as with dockerd.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from sampan.errors import InvalidArgument

LOOPBACK = ("127.0.0.0/8", "::1/128")
CERTIFICATES = ("/etc/sampan/certs.d", "/etc/docker/certs.d")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """The options, checked by `check_mirror` and `check_insecure`.

    `mirrors` are base URLs without a slash at the end, tried in order before Docker Hub.
    `insecure` are CIDRs and `host[:port]`. `certs_directories` hold `<host[:port]>/` with
    `*.crt` (authorities), `*.cert` and `*.key` (client certificates); the first that has the
    registry's folder is used. An attempt of `max_download_attempts` is one connection for a blob.
    """

    mirrors: Sequence[str] = ()
    insecure: Sequence[str] = ()
    certs_directories: Sequence[str] = CERTIFICATES
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5

    @property
    def insecure_networks(self) -> list[_Network]:
        """The CIDRs, with the loopback's."""
        texts = [text for text in self.insecure if "/" in text]
        return [ipaddress.ip_network(text, strict=False) for text in (*texts, *LOOPBACK)]

    @property
    def insecure_names(self) -> list[str]:
        """The `host[:port]` entries, lower case."""
        return [text.lower() for text in self.insecure if "/" not in text]

    def names_insecure(self, host: str) -> bool:
        """Whether `host[:port]` was named insecure, by name or as an address; no name is resolved."""
        names, lowered = self.insecure_names, host.lower()
        if lowered in names or host_of(lowered) == "localhost":
            return True
        address = address_of(host)
        return address is not None and self.holds_insecure([address])

    def holds_insecure(self, addresses: Sequence[Address]) -> bool:
        """Whether all addresses of a host lie in insecure networks; False for none."""
        networks = self.insecure_networks
        return bool(addresses) and all(
            any(address in network for network in networks) for address in addresses
        )


class LiveSettings:
    """The settings in force: called, it gives them; a reload of the daemon's file replaces them."""

    def __init__(self, current: RegistrySettings) -> None:
        self.current = current

    def __call__(self) -> RegistrySettings:
        return self.current


def host_of(domain: str) -> str:
    """`host[:port]` without the port, and an IPv6 address without brackets."""
    if domain.startswith("["):
        return domain[1:].partition("]")[0]
    return domain.partition(":")[0]


def address_of(domain: str) -> Address | None:
    """The address that `host[:port]` spells, None for a name."""
    try:
        return ipaddress.ip_address(host_of(domain))
    except ValueError:
        return None


def check_mirror(text: str) -> str:
    """A mirror's base URL in the form that settings keep.

    Raises:
        InvalidArgument: dockerd's texts.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise InvalidArgument(f'invalid mirror: "{text}" is not a valid URI') from None
    if parts.scheme not in ("http", "https"):
        raise InvalidArgument(f'invalid mirror: unsupported scheme "{parts.scheme}" in "{text}"')
    if not parts.hostname:
        raise InvalidArgument(f'invalid mirror: "{text}" names no host')
    if parts.query or parts.fragment:
        raise InvalidArgument(
            f'invalid mirror: path, query, or fragment at end of the URI "{text}"'
        )
    if parts.username is not None:
        shown = f"{parts.scheme}://{parts.username}:xxxxx@{parts.netloc.rpartition('@')[2]}"
        raise InvalidArgument(
            f'invalid mirror: username/password not allowed in URI "{shown}{parts.path}"'
        )
    return text.rstrip("/")


def check_insecure(text: str) -> str:
    """A CIDR or `host[:port]`; a scheme in front of it is taken away, as dockerd does.

    Raises:
        InvalidArgument: it is neither.
    """
    for scheme in ("http://", "https://"):
        if text.lower().startswith(scheme):
            text = text[len(scheme) :]
    if "/" in text:
        try:
            return str(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise InvalidArgument(
                f"insecure registry {text} is not valid: neither host[:port] nor CIDR"
            ) from None
    if not text or text.startswith("-") or text.endswith("-"):
        raise InvalidArgument(
            f"Cannot use insecure registry {text!r}: it cannot be empty, begin or end with '-'"
        )
    port = text.rpartition(":")[2] if ":" in text.rpartition("]")[2] else ""
    if port and not (port.isascii() and port.isdigit() and 0 <= int(port[:6]) <= 65535):
        raise InvalidArgument(f"insecure registry {text} is not valid: invalid port {port!r}")
    return text
