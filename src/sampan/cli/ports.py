"""Port mappings in a container list, neighbours drawn together as ranges."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def displayed(ports: Sequence[dict[str, Any]]) -> str:
    """`0.0.0.0:80->80/tcp, 5000-5002/udp`, from the API's list of ports."""
    groups: dict[tuple[str, str], list[int]] = {}
    done: list[str] = []
    mapped: list[str] = []
    for port in sorted(ports, key=_order):
        private, address, protocol = port["PrivatePort"], port.get("IP", ""), port["Type"]
        if address and port.get("PublicPort", 0) != private:
            mapped.append(f"{_join(address, str(port.get('PublicPort', 0)))}->{private}/{protocol}")
            continue
        key = (address, protocol)
        group = groups.get(key)
        if group is not None and private == group[1] + 1:
            group[1] = private
            continue
        if group is not None:
            done.append(_range(key, group))
        groups[key] = [private, private]
    done.extend(_range(key, group) for key, group in groups.items())
    return ", ".join(done + mapped)


def _order(port: dict[str, Any]) -> tuple[int, str, int, str]:
    return port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0), port["Type"]


def _range(key: tuple[str, str], group: list[int]) -> str:
    address, protocol = key
    first, last = group
    text = str(first) if first == last else f"{first}-{last}"
    if address:
        text = f"{_join(address, text)}->{text}"
    return f"{text}/{protocol}"


def _join(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
