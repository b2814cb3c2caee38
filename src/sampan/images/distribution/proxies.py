"""Which proxy a request goes through, by the daemon's environment.

HTTP_PROXY, HTTPS_PROXY and NO_PROXY mean what they mean for Go's programs, so for dockerd: upper or
lower case; NO_PROXY holds hosts (with their subdomains), `.domain`, addresses, CIDRs, each with
or without a port, or `*`. This machine itself is never reached through a proxy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from sampan.errors import InvalidArgument

_SCHEMES = ("http", "https")


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> str | None:
    """The proxy's URL for a request, None where it goes directly.

    Raises:
        InvalidArgument: the environment names something else than an HTTP proxy.
    """
    name = f"{scheme.upper()}_PROXY"
    proxy = environ.get(name) or environ.get(name.lower()) or ""
    excluded = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    if not proxy or not _goes_out(host) or is_excluded(host, port, excluded):
        return None
    url = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(url).scheme not in _SCHEMES:
        raise InvalidArgument(f"{name}: only http:// and https:// proxies are supported")
    return url


def is_excluded(host: str, port: int, excluded: str) -> bool:
    """Whether NO_PROXY names a host."""
    host = host.lower().rstrip(".")
    return any(_fits(entry.strip().lower(), host, port) for entry in excluded.split(","))


def _fits(entry: str, host: str, port: int) -> bool:
    if not entry or entry == "*":
        return entry == "*"
    if "/" in entry:
        return _in_network(entry, host)
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdigit() and (":" not in name or name.endswith("]")):
        if int(wanted) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    if entry.startswith("*."):
        entry = entry[1:]
    if entry.startswith("."):
        return host.endswith(entry)
    return host == entry or (host.endswith(f".{entry}") and not _is_address(host))


def _in_network(entry: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _goes_out(host: str) -> bool:
    if host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def shown_proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """What `info` says of proxies, without passwords: Docker's HttpProxy, HttpsProxy, NoProxy."""
    values = {
        name: environ.get(name) or environ.get(name.lower()) or ""
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    }
    return {
        "HttpProxy": _masked(values["HTTP_PROXY"]),
        "HttpsProxy": _masked(values["HTTPS_PROXY"]),
        "NoProxy": values["NO_PROXY"],
    }


def _masked(url: str) -> str:
    """A URL whose user and password are not told, in dockerd's spelling."""
    head, at, rest = url.rpartition("@")
    scheme, separator, _ = head.partition("://")
    return f"{scheme}{separator}xxxxx:xxxxx@{rest}" if at else url
