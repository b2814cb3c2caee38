"""The parts of a create request that most command lines lack: ports, devices, networks, health."""

from __future__ import annotations

import os

from sampan.cli import jsontext
from sampan.cli.create_request import ENDPOINT
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sampan.cli.call import Call

PROTOCOLS = ("tcp", "udp", "sctp")
BUILTIN_NETWORKS = ("default", "bridge", "host", "none")


def anonymous_volumes(call: Call) -> list[str]:
    """The `-v` values that name a path in the container and nothing else."""
    return [text for text in _checked_volumes(call) if ":" not in text]


def binds(call: Call) -> list[str]:
    """The `-v` values with a source; a source that begins with a dot is made absolute."""
    result = []
    for text in _checked_volumes(call):
        source, mark, rest = text.partition(":")
        if not mark:
            continue
        if source.startswith("."):
            source = os.path.abspath(source)
        result.append(f"{source}:{rest}")
    return result


def _checked_volumes(call: Call) -> list[str]:
    texts = call.items("volume")
    for text in texts:
        if not text:
            raise CommandError("invalid empty volume spec")
        if ":" in text and "" in text.split(":"):
            raise CommandError(f"invalid spec: {text}: empty section between colons")
    return texts


def exposed(call: Call) -> dict[str, dict[str, str]]:
    """`--expose` and the container ports of `--publish`."""
    ports: dict[str, dict[str, str]] = {port: {} for port in bindings(call)}
    for text in call.items("expose"):
        if ":" in text:
            raise CommandError(f"invalid port format for --expose: {text}")
        span, _, protocol = text.partition("/")
        first, last = _expose_range(text, span)
        for port in range(first, last + 1):
            ports[f"{port}/{(protocol or 'tcp').lower()}"] = {}
    return ports


def _expose_range(text: str, span: str) -> tuple[int, int]:
    low, mark, high = span.partition("-")
    for part in (low, high)[: 2 if mark else 1]:
        if not part.isdecimal() or int(part) > 65535:
            reason = "value out of range" if part.isdecimal() else "invalid syntax"
            problem = (
                f'strconv.ParseUint: parsing "{part}": {reason}'
                if part
                else "empty string specified for ports."
            )
            raise CommandError(f"invalid range format for --expose: {text}, error: {problem}")
    first, last = int(low), int(high or low)
    if last < first:
        raise CommandError(
            f"invalid range format for --expose: {text}, error: invalid range specified for port: {span}"
        )
    return first, last


def bindings(call: Call, flag: str = "publish") -> dict[str, list[dict[str, str]]]:
    """`--publish` (or a flag like it) as PortBindings: container port and protocol to host addresses and ports."""
    table: dict[str, list[dict[str, str]]] = {}
    for text in call.items(flag):
        for port, address, host_port in _published(_short_form(text)):
            table.setdefault(port, []).append({"HostIp": address, "HostPort": host_port})
    return table


def _short_form(text: str) -> str:
    """`target=80,published=8080` as `8080:80`."""
    if "=" not in text:
        return text
    fields = dict(field.partition("=")[::2] for field in text.split(","))
    unknown = set(fields) - {"target", "published", "protocol", "mode"}
    if unknown or not fields.get("target", "").isdecimal():
        raise CommandError(f"invalid publish option: {text}")
    return (
        f"{fields.get('published', '')}:{fields['target']}/{fields.get('protocol', 'tcp')}".lstrip(
            ":"
        )
    )


def _published(text: str) -> Iterator[tuple[str, str, str]]:
    """Port/protocol, host address and host port of one `-p`: `[[ip:]hostPort:]containerPort[/proto]`.

    Source: go-connections nat.ParsePortSpec, whose words the messages are.
    """
    rest, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    address, host, container = _port_parts(rest)
    if not container:
        raise CommandError(f"no port specified: {text}<empty>")
    if protocol not in PROTOCOLS:
        raise CommandError(f"invalid proto: {protocol}")
    first, last = _port_range(container, "containerPort")
    host_first, host_last = _port_range(host, "hostPort") if host else (0, 0)
    if host and host_last - host_first != last - first:
        if first != last:
            raise CommandError(
                f"invalid ranges specified for container and host Ports: {container} and {host}"
            )
        yield f"{first}/{protocol}", address, f"{host_first}-{host_last}"
        return
    for offset in range(last - first + 1):
        yield f"{first + offset}/{protocol}", address, str(host_first + offset) if host else ""


def _port_parts(text: str) -> tuple[str, str, str]:
    rest, mark, container = text.rpartition(":")
    if not mark:
        return "", "", container
    address, mark, host = rest.rpartition(":")
    if not mark:
        return "", host, container
    bare = address[1:-1] if address[:1] == "[" and address[-1:] == "]" else address
    from sampan.cli.values import parse_address

    try:
        return parse_address(bare) if bare else "", host, container
    except ValueError:
        raise CommandError(f"invalid IP address: {bare}") from None


def _port_range(span: str, name: str) -> tuple[int, int]:
    low, mark, high = span.partition("-")
    if not low.isdecimal() or (mark and not high.isdecimal()):
        raise CommandError(f"invalid {name}: {span}")
    first, last = int(low), int(high or low)
    if last < first or last > 65535:
        raise CommandError(f"invalid {name}: {span}")
    return first, last


def devices(call: Call) -> tuple[list[dict[str, str]], list[dict[str, Any]] | None]:
    """`--device` as Devices and DeviceRequests (CDI names), `--gpus` as further DeviceRequests."""
    found, names = [], []
    for text in call.items("device"):
        if not text.startswith("/") and "/" in text and "=" in text:
            names.append(text)
            continue
        found.append(_device(text))
    requests: list[dict[str, Any]] = []
    if names:
        requests.append(
            {"Driver": "cdi", "Count": 0, "DeviceIDs": names, "Capabilities": None, "Options": None}
        )
    requests += call.values("gpus")
    return found, requests or None


def _device(text: str) -> dict[str, str]:
    parts = text.split(":")
    source = parts[0]
    target, permissions = source, "rwm"
    if len(parts) == 2 and _is_device_mode(parts[1]):
        permissions = parts[1]
    elif len(parts) == 2:
        target = parts[1]
    elif len(parts) == 3:
        target, permissions = parts[1] or source, parts[2]
    if len(parts) > 3 or not source:
        raise CommandError(f"bad format for path: {text}")
    if not _is_device_mode(permissions):
        raise CommandError(f"bad mode specified: {permissions}")
    if not target.startswith("/"):
        raise CommandError(f"{target} is not an absolute path")
    return {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": permissions}


def _is_device_mode(text: str) -> bool:
    return bool(text) and set("rwm").issuperset(text) and len(set(text)) == len(text)


def security(call: Call, host: dict[str, Any]) -> None:
    """`--security-opt` into SecurityOpt, MaskedPaths and ReadonlyPaths."""
    kept = []
    for option in call.items("security-opt"):
        mark = "=" if "=" in option else ":"
        name, found, value = option.partition(mark)
        if not found and name != "no-new-privileges":
            raise CommandError(f'Invalid --security-opt: "{option}"')
        if name == "systempaths" and value == "unconfined":
            host["MaskedPaths"], host["ReadonlyPaths"] = [], []
            continue
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            option = f"seccomp={_profile(value)}"
        kept.append(option)
    host["SecurityOpt"] = kept


def _profile(path: str) -> str:
    lead = f"opening seccomp profile ({path}) failed"
    try:
        with open(path, encoding="utf-8") as file:
            return jsontext.encode(jsontext.decode(file.read()))
    except OSError as error:
        raise CommandError(f"{lead}: open {path}: {str(error.strerror).lower()}") from None
    except ValueError as error:
        raise CommandError(
            f"compacting json for seccomp profile ({path}) failed: {error}"
        ) from None


def health(call: Call) -> dict[str, Any]:
    """The `--health-*` flags, or `--no-healthcheck`, as a Healthcheck."""
    given = {name for name in call.changed if name.startswith("health-")}
    if call.on("no-healthcheck"):
        if given:
            raise CommandError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    check: dict[str, Any] = {}
    if call.text("health-cmd"):
        check["Test"] = ["CMD-SHELL", call.text("health-cmd")]
    for flag, field in (
        ("health-interval", "Interval"),
        ("health-timeout", "Timeout"),
        ("health-start-period", "StartPeriod"),
        ("health-start-interval", "StartInterval"),
        ("health-retries", "Retries"),
    ):
        if call.number(flag) < 0:
            raise CommandError(f"--{flag} cannot be negative")
        if call.number(flag):
            check[field] = call.number(flag)
    return check


def networks(call: Call, host: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """NetworkMode (into `host`) and EndpointsConfig of several networks or of special wishes."""
    endpoints: dict[str, Any] = {}
    wanted = [_network(text) for text in names] or [_network("default")]
    host["NetworkMode"] = wanted[0]["name"]
    for index, network in enumerate(wanted):
        if network["name"] in endpoints:
            raise CommandError(f'network "{network["name"]}" is specified multiple times')
        if index == 0:
            _from_flags(call, network)
        if len(wanted) > 1 and not _is_user_defined(network["name"]):
            raise CommandError(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
            )
        if network["aliases"] and not _is_user_defined(network["name"]):
            raise CommandError(
                "network-scoped aliases are only supported for user-defined networks"
            )
        if len(wanted) > 1 or not names or _special(network):
            endpoints[network["name"]] = _endpoint(network)
    return endpoints


def _is_user_defined(name: str) -> bool:
    return name not in BUILTIN_NETWORKS and not name.startswith("container:")


def _network(text: str) -> dict[str, Any]:
    network: dict[str, Any] = {
        "name": text, "aliases": [], "ip": "", "ip6": "", "mac": "", "local": [], "links": [],
        "options": {}, "priority": 0,
    }  # fmt: skip
    if "=" not in text:
        return network
    network["name"] = ""
    for field in text.split(","):
        name, mark, value = field.partition("=")
        if not mark:
            raise CommandError(f"invalid key/value pair format in driver options: {field}")
        if name in ("name", "ip", "ip6"):
            network[name] = value
        elif name == "alias":
            network["aliases"].append(value)
        elif name == "mac-address":
            network["mac"] = value
        elif name == "link-local-ip":
            network["local"].append(value)
        elif name == "driver-opt":
            option, _, setting = value.partition("=")
            network["options"][option.strip().lower()] = setting.strip()
        elif name == "gw-priority":
            network["priority"] = int(value) if value.lstrip("-").isdecimal() else 0
        else:
            raise CommandError(f"invalid field key {name}")
    if not network["name"]:
        raise CommandError("network name must be specified" if text else "no name set for network")
    return network


def _from_flags(call: Call, network: dict[str, Any]) -> None:
    aliases = call.items("network-alias") + call.items("net-alias")
    network["aliases"] = network["aliases"] or aliases
    network["local"] = network["local"] or call.items("link-local-ip")
    network["ip"] = network["ip"] or call.text("ip")
    network["ip6"] = network["ip6"] or call.text("ip6")
    network["mac"] = network["mac"] or call.text("mac-address")
    if _is_user_defined(network["name"]):
        network["links"] = call.items("link")
    if network["mac"] and not _is_mac(network["mac"]):
        raise CommandError(f"{network['mac']} is not a valid mac address")


def _is_mac(text: str) -> bool:
    parts = text.replace("-", ":").split(":")
    digits = set("0123456789abcdefABCDEF")
    return len(parts) in (6, 8, 20) and all(len(p) == 2 and digits.issuperset(p) for p in parts)


def _special(network: dict[str, Any]) -> bool:
    return any(value for name, value in network.items() if name != "name")


def _endpoint(network: dict[str, Any]) -> dict[str, Any]:
    addresses = {
        name: value
        for name, value in (
            ("IPv4Address", network["ip"]),
            ("IPv6Address", network["ip6"]),
            ("LinkLocalIPs", network["local"]),
        )
        if value
    }
    return {
        **ENDPOINT,
        "IPAMConfig": addresses or None,
        "Links": network["links"] or None,
        "Aliases": network["aliases"] or None,
        "MacAddress": network["mac"],
        "DriverOpts": network["options"] or None,
        "GwPriority": network["priority"],
    }
