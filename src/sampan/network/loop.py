"""The loop of an engine: a veth pair with both ends on the host, by which packets come in anew.

What goes out of the one end comes in at the other. Published ports need it twice: for packets that the
host's own rules have let pass, and for `::1` (see `published_tables`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from ipaddress import IPv6Network

from sampan.linux.netlink import delete_link
from sampan.linux.veth_loop import accept_loopback, create_loop, route_to

GATEWAY = "169.254.0.1"
GATEWAY6 = "fe80::1"
_ADDRESS = "169.254.0.2/32"
_MAC = "02:42:7f:00:00:01"
_MTU = 65535  # datagrams arrive whole here, and need not be cut up again


class Loop:
    """`way_out` and `way_in` are the interfaces; `near` and `far` two addresses that lead, from the host, into
    the one and the other, of a unique local block (RFC 4193) that no other engine has."""

    def __init__(self, name: str) -> None:
        digest = hashlib.sha256(name.encode())
        stem = name if len(name) <= 12 else digest.hexdigest()[:10]
        self.way_out, self.way_in = f"{stem}-lo", f"{stem}-li"
        block = IPv6Network((b"\xfd" + digest.digest()[:7] + bytes(8), 64))
        self.near, self.far = block[1], block[2]

    def exists(self) -> bool:
        """Whether it is there."""
        try:
            socket.if_nametoindex(self.way_in)
        except OSError:
            return False
        return True

    def make(self) -> None:
        """Have it; its neighbours are fixed by having no ARP.

        Raises:
            OSError: the kernel has no veth.
        """
        if not self.exists():
            with contextlib.suppress(FileNotFoundError):
                delete_link(self.way_out)
            create_loop(self.way_out, self.way_in, mac=_MAC, mtu=_MTU, address=_ADDRESS)
        for path, value in (
            # The clients' addresses are routed elsewhere, which is what strict filtering drops.
            (f"ipv4/conf/{self.way_in}/rp_filter", "2"),
            (f"ipv4/conf/{self.way_in}/forwarding", "1"),
            (f"ipv4/conf/{self.way_in}/send_redirects", "0"),
        ):
            write_setting(path, value)
        if os.path.exists(f"/proc/sys/net/ipv6/conf/{self.way_out}"):
            route_to(GATEWAY6, self.way_out)
            route_to(str(self.far), self.way_out)
            route_to(str(self.near), self.way_in)
            accept_loopback(self.way_out)

    def remove(self) -> None:
        """Take it away; nothing happens if it is not there."""
        delete_link(self.way_in)


def write_setting(path: str, value: str) -> None:
    """Set a sysctl below `net`; what is not there is passed over."""
    try:
        fd = os.open(f"/proc/sys/net/{path}", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # the bridge is not there (yet); or a /proc/sys without it
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
