"""What a bridge asks of the firewall: plain values, made by the network, performed by `firewall`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BridgeRules:
    """One bridge's wishes. `subnets` carry their prefix lengths, of both families.

    `internal`: nothing is forwarded between it and other interfaces. Without `icc` its containers do
    not reach each other. `masquerade` and `masquerade6`: what leaves it has the host's address, or
    `source` (IPv4) and `source6` where they are given. Others reach its containers by their addresses if
    it is `open` (IPv4) or `open6`, or if they come by a `trusted` interface.
    """

    bridge: str
    subnets: tuple[str, ...]
    icc: bool = True
    internal: bool = False
    masquerade: bool = True
    masquerade6: bool = True
    source: str = ""
    source6: str = ""
    open: bool = False
    open6: bool = False
    trusted: tuple[str, ...] = ()
