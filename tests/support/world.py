"""A small world: the machine under test, containers on it, and an internet behind it."""

from __future__ import annotations

import socket
import subprocess
from contextlib import ExitStack

from sampan.linux import interfaces, netlink
from sampan.network.addressed import AddressedNetwork
from support.netns import NetworkNamespace, listen

HOST_ADDRESS = "198.51.100.2"
INTERNET_ADDRESS = "198.51.100.1"


class World:
    """`host` with a default route into `internet`; containers are attached to networks on it."""

    def __init__(self) -> None:
        self._undo = ExitStack()
        self.host = self._namespace()
        self.internet = self._namespace()
        with self.internet.entered():
            netlink.configure_inside([])
            interfaces.create_bridge(
                "wan", mac="02:42:c6:33:64:01", address=f"{INTERNET_ADDRESS}/24", mtu=1500
            )
            self._cable = netlink.VethEndpoint(
                host_name="cable",
                bridge="wan",
                bridge_index=0,
                name="wan0",
                mac="02:42:c6:33:64:02",
                addresses=[f"{HOST_ADDRESS}/24"],
                gateway=INTERNET_ADDRESS,
            )
            netlink.create_veth(self._cable, netns_fd=self.host.fd)
        with self.host.entered():
            netlink.configure_inside([self._cable])
            with open("/proc/sys/net/ipv4/ip_forward", "w") as setting:
                setting.write("0")

    def _namespace(self) -> NetworkNamespace:
        namespace = NetworkNamespace()
        self._undo.callback(namespace.close)
        return namespace

    def container(self, network: AddressedNetwork, name: str) -> NetworkNamespace:
        """A network namespace attached as the runtime attaches a container."""
        namespace = self._namespace()
        with self.host.entered():
            endpoint = network.attach(name).endpoint
            assert endpoint is not None
            netlink.create_veth(endpoint, netns_fd=namespace.fd)
        with namespace.entered():
            netlink.configure_inside([endpoint])
        return namespace

    def server(self, where: NetworkNamespace, address: str) -> socket.socket:
        """A TCP server in that namespace, closed at the end."""
        with where.entered():
            server = listen(address)
        self._undo.callback(server.close)
        return server

    def run(self, *command: str, stdin: str | None = None) -> str:
        """A command's output, run on the host."""
        with self.host.entered():
            done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=True)
        return done.stdout

    def links(self) -> list[str]:
        """Names of the host's interfaces."""
        with self.host.entered():
            return [link.name for link in interfaces.links()]

    def close(self) -> None:
        self._undo.close()
