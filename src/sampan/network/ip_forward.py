"""The machine's own forwarding, switched on and left on: others may have come to rely on it."""

from __future__ import annotations

import contextlib
import os

_IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"
_IPV6 = "/proc/sys/net/ipv6/conf"


def enable_forwarding() -> None:
    """Let the machine forward IPv4."""
    with open(_IP_FORWARD, "r+", encoding="ascii") as setting:
        if setting.read().strip() == "0":
            setting.seek(0)
            setting.write("1")


def enable_forwarding6() -> None:
    """Let the machine forward IPv6, and go on to learn its own routes from router advertisements,
    which it would stop with that (accept_ra, ip-sysctl.rst)."""
    with open(f"{_IPV6}/all/forwarding", "r+", encoding="ascii") as setting:
        if setting.read().strip() != "0":
            return
        for name in os.listdir(_IPV6):
            with contextlib.suppress(OSError), open(f"{_IPV6}/{name}/accept_ra", "r+") as learning:
                if learning.read().strip() == "1":
                    learning.seek(0)
                    learning.write("2")
        setting.seek(0)
        setting.write("1")
