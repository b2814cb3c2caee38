"""Devices: the nodes that a container gets and the rules of its device cgroup.

Source: OCI runtime-spec config-linux.md, "Devices" and "Allowed Device list".
"""

from __future__ import annotations

import os
import stat
from typing import Any

from sampan.engine import defaults
from sampan.engine.model import DeviceMapping, HostConfig
from sampan.engine.numbers import decimal
from sampan.errors import InvalidArgument, NotFound


def nodes_and_rules(host: HostConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Device nodes to make and the rules of the device cgroup."""
    if host.privileged:
        return _host_devices(), [*defaults.ALL_DEVICES]
    nodes, rules = [], [*defaults.DEVICE_RULES]
    for mapping in host.devices or ():
        for node, rule in _mapped(mapping):
            nodes.append(node)
            rules.append(rule)
    rules += [parse_rule(rule) for rule in host.device_cgroup_rules or ()]
    return nodes, rules


def _mapped(mapping: DeviceMapping) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The device at a path, or all devices below a directory."""
    source = mapping.path_on_host
    target = mapping.path_in_container or source
    access = mapping.cgroup_permissions or "rwm"
    if not access or set(access) - set("rwm"):
        raise InvalidArgument(f"invalid device mode: {access}")
    if os.path.isdir(source):
        pairs = [
            (os.path.join(top, name), os.path.join(target, os.path.relpath(top, source), name))
            for top, _, names in os.walk(source)
            for name in names
        ]
    else:
        pairs = [(source, target)]
    found = []
    for path, inside in pairs:
        node = _node(path, os.path.normpath(inside), missing_ok=path != source)
        if node is not None:
            rule = {
                "allow": True,
                "type": node["type"],
                "major": node["major"],
                "minor": node["minor"],
                "access": access,
            }
            found.append((node, rule))
    if not found:
        raise InvalidArgument(
            f'error gathering device information while adding custom device "{source}": '
            "not a device node"
        )
    return found


def _node(path: str, inside: str, *, missing_ok: bool) -> dict[str, Any] | None:
    try:
        status = os.stat(path)
    except OSError as error:
        if missing_ok:
            return None
        raise NotFound(
            f'error gathering device information while adding custom device "{path}": '
            f"{(error.strerror or str(error)).lower()}"
        ) from error
    if stat.S_ISBLK(status.st_mode):
        kind = "b"
    elif stat.S_ISCHR(status.st_mode):
        kind = "c"
    else:
        return None
    return {
        "path": inside,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def _host_devices() -> list[dict[str, Any]]:
    """Every device node below /dev, for a privileged container; pts, shm and mqueue are its own."""
    nodes = []
    for top, directories, names in os.walk("/dev"):
        if top == "/dev":
            directories[:] = [
                name for name in directories if name not in ("pts", "shm", "mqueue", "fd", ".lxc")
            ]
        for name in names:
            path = os.path.join(top, name)
            if os.path.islink(path) or path == "/dev/console":
                continue
            node = _node(path, path, missing_ok=True)
            if node is not None:
                nodes.append(node)
    return nodes


def parse_rule(text: str) -> dict[str, Any]:
    """`c 13:* rwm`, as --device-cgroup-rule has it."""
    parts = text.split()
    numbers = parts[1].split(":") if len(parts) == 3 else []
    valid = (
        len(numbers) == 2
        and parts[0] in ("a", "b", "c")
        and all(number == "*" or decimal(number) is not None for number in numbers)
        and not set(parts[2]) - set("rwm")
    )
    if not valid:
        raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
    rule: dict[str, Any] = {"allow": True, "type": parts[0], "access": parts[2]}
    for name, number in zip(("major", "minor"), numbers, strict=True):
        if number != "*":
            rule[name] = int(number)
    return rule
