"""dockerd's options about networks, as the engine takes them."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from typing import Any

from sampan.engine.numbers import decimal
from sampan.errors import InvalidArgument
from sampan.network.bridge_wishes import BridgeWishes
from sampan.network.pools import Pool, parse_pool

KINDS: dict[str, type] = {
    "bip": str,
    "bip6": str,
    "default-address-pool": list,
    "default-gateway": str,
    "default-gateway-v6": str,
    "default-network-opt": list,
    "fixed-cidr": str,
    "fixed-cidr-v6": str,
    "host-gateway-ip": str,
    "icc": bool,
    "ip": str,
    "ip-masq": bool,
    "ipv6": bool,
    "mtu": int,
}
HELP = {
    "bip": "Address and prefix length of the bridge; a free range when not given",
    "bip6": "The same of IPv6, with --ipv6",
    "default-address-pool": "Where networks get their subnets from: base=10.0.0.0/8,size=24",
    "default-gateway": "Where the default routes of containers on the default bridge lead",
    "default-gateway-v6": "The same of IPv6, with --ipv6",
    "default-network-opt": "Option of new networks of a driver: bridge=com.docker.network.driver.mtu=1400",
    "fixed-cidr": "Range that containers on the default bridge get addresses of",
    "fixed-cidr-v6": "The same of IPv6, with --ipv6",
    "host-gateway-ip": "What host-gateway means in --add-host (default: the bridge's address)",
    "icc": "Containers on the default bridge reach each other (default true)",
    "ip": "Address of the host at which ports are published where none is named",
    "ip-masq": "Containers on the default bridge leave with the host's address (default true)",
    "ipv6": "The default bridge has IPv6, too",
    "mtu": "MTU of the default bridge (default: as the way out, at most 1500)",
}
FILE_NAMES = {
    "default-address-pool": "default-address-pools",
    "default-network-opt": "default-network-opts",
}


def of_file(key: str, value: Any) -> Any:
    """A value of `daemon.json` in the form that the command line gives: objects become texts.

    Raises:
        InvalidArgument: an object that cannot be meant.
    """
    if key == "default-address-pools" and isinstance(value, list):
        return [_pool_of_file(entry) for entry in value]
    if key == "default-network-opts" and isinstance(value, dict):
        return [text for driver, options in value.items() for text in _options_of(driver, options)]
    return value


def _pool_of_file(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    base, size = entry.get("base"), entry.get("size")
    if set(entry) != {"base", "size"} or type(size) is not int or not isinstance(base, str):
        raise InvalidArgument(
            f'default-address-pools: {json.dumps(entry)} has to be {{"base": "…/n", "size": n}}'
        )
    return f"base={base},size={size}"


def _options_of(driver: str, options: Any) -> list[str]:
    if not isinstance(options, dict) or not all(isinstance(v, str) for v in options.values()):
        raise InvalidArgument(f"default-network-opts: {driver} has to hold texts by name")
    return [f"{driver}={name}={value}" for name, value in options.items()]


def bridge_wishes(values: Mapping[str, Any]) -> BridgeWishes:
    """What is asked of the default bridge.

    Raises:
        InvalidArgument: a value that cannot be meant.
    """
    bip = values.get("bip", "")
    try:
        if bip:
            ipaddress.ip_interface(bip)
    except ValueError as error:
        raise InvalidArgument(f"invalid value for --bip: {error}") from error
    if bip and "/" not in bip:
        raise InvalidArgument(f"invalid value for --bip: {bip} has no prefix length")
    return BridgeWishes(
        bip=bip,
        bip6=values.get("bip6", ""),
        fixed_cidr=values.get("fixed-cidr", ""),
        fixed_cidr6=values.get("fixed-cidr-v6", ""),
        gateway=values.get("default-gateway", ""),
        gateway6=values.get("default-gateway-v6", ""),
        ipv6=values.get("ipv6", False),
        mtu=values.get("mtu", 0),
        icc=values.get("icc", True),
        masquerade=values.get("ip-masq", True),
        host_binding=address(values, "ip"),
    )


def address(values: Mapping[str, Any], name: str) -> str:
    """An option that is one address, in its usual spelling; empty for none.

    Raises:
        InvalidArgument: it is none.
    """
    text = values.get(name, "")
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError as error:
        raise InvalidArgument(f"invalid value for --{name}: {error}") from error


def pools(values: Mapping[str, Any]) -> tuple[Pool, ...]:
    """`default-address-pools`, none overlapping another.

    Raises:
        InvalidArgument: one that cannot be meant.
    """
    found: list[Pool] = []
    for text in values.get("default-address-pool", ()):
        parts = dict(part.partition("=")[::2] for part in text.split(","))
        if set(parts) != {"base", "size"} or decimal(parts["size"]) is None:
            raise InvalidArgument(
                f"invalid value for --default-address-pool: {text}: it has to be base=…/n,size=n"
            )
        pool = parse_pool(parts["base"], int(parts["size"]))
        for other in found:
            if pool.base.version == other.base.version and pool.base.overlaps(other.base):
                raise InvalidArgument(
                    f"default-address-pools: {pool.base} overlaps with {other.base}"
                )
        found.append(pool)
    return tuple(found)


def network_defaults(values: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """`default-network-opts`: options by driver.

    Raises:
        InvalidArgument: one that cannot be meant.
    """
    found: dict[str, dict[str, str]] = {}
    for text in values.get("default-network-opt", ()):
        driver, equals, option = text.partition("=")
        name, second, value = option.partition("=")
        if not (driver and equals and name and second):
            raise InvalidArgument(
                f"invalid value for --default-network-opt: {text}: it has to be driver=name=value"
            )
        found.setdefault(driver, {})[name] = value
    return found
