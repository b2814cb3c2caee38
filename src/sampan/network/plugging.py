"""Interfaces of a container that runs: put in, taken out, its default route moved.

From a thread of its own that joins the container's network namespace and ends: the daemon's other
threads stay where they are. Everything here blocks, for some milliseconds.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from sampan.errors import Conflict, RuntimeFailure
from sampan.linux import interfaces, netlink, syscalls
from sampan.linux.rtnetlink import transact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.linux.netlink import VethEndpoint

Result = TypeVar("Result")


def plug(pidfd: int, endpoint: VethEndpoint) -> None:
    """Make the endpoint's interface in the container, with addresses, up; no default route.

    Raises:
        RuntimeFailure: stage `network`; nothing is left.
        Conflict: the container has ended.
    """
    try:
        namespace = within(pidfd, _namespace)
        try:
            netlink.create_veth(endpoint, netns_fd=namespace)
            try:
                within(namespace, lambda: _configure(endpoint))
            except BaseException:
                if endpoint.host_name:
                    netlink.delete_link(endpoint.host_name)
                else:
                    within(namespace, lambda: netlink.delete_link(endpoint.name))
                raise
        finally:
            os.close(namespace)
    except OSError as error:
        raise _failure(error) from error


def is_plugged(pidfd: int, endpoint: VethEndpoint) -> bool:
    """Whether the container has the interface, up and with its addresses.

    Raises:
        RuntimeFailure: stage `network`.
        Conflict: the container has ended.
    """

    def look() -> bool:
        link = next((link for link in interfaces.links() if link.name == endpoint.name), None)
        if link is None or not link.up:
            return False
        there = {text for index, text in interfaces.addresses() if index == link.index}
        return there.issuperset(endpoint.addresses)

    try:
        return within(pidfd, look)
    except OSError as error:
        raise _failure(error) from error


def unplug(pidfd: int, interface: str, host_name: str) -> None:
    """Take the interface away; nothing happens where it is gone.

    Raises:
        RuntimeFailure: stage `network`.
    """
    try:
        if host_name:
            netlink.delete_link(host_name)
        else:
            within(pidfd, lambda: netlink.delete_link(interface))
    except OSError as error:
        raise _failure(error) from error


def route(pidfd: int, ends: Sequence[VethEndpoint]) -> None:
    """Give the container the default routes that these endpoints say, and no others.

    Raises:
        RuntimeFailure: stage `network`.
        Conflict: the container has ended.
    """
    try:
        within(pidfd, lambda: _route(ends))
    except OSError as error:
        raise _failure(error) from error


def within(namespace: int, work: Callable[[], Result]) -> Result:
    """Do the work in the network namespace of a pidfd or of a namespace's file.

    An executor's thread hands failures over; with its shutdown the thread ends.
    """

    def enter() -> Result:
        syscalls.setns(namespace, syscalls.CLONE_NEWNET)
        return work()

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns") as executor:
        return executor.submit(enter).result()


def _namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _configure(endpoint: VethEndpoint) -> None:
    """Without its default routes: those come by `route`, when it is known which one it shall be."""
    bare = netlink.VethEndpoint.from_dict(
        {**endpoint.to_dict(), "gateway": "", "gateway6": "", "device_routes": False}
    )
    netlink.write_sysctls(endpoint)
    transact(netlink.interface_requests(bare, netlink.index_of(endpoint.name)))


def _route(ends: Sequence[VethEndpoint]) -> None:
    wanted: dict[bool, tuple[str, str]] = {}  # IPv6? → (gateway, interface)
    for end in ends:
        if end.gateway or end.device_routes:
            wanted.setdefault(False, (end.gateway, end.name))
        if end.gateway6:
            wanted.setdefault(True, (end.gateway6, end.name))
    for ipv6 in (False, True):
        interfaces.delete_default_routes(ipv6=ipv6)
        if ipv6 in wanted:
            gateway, name = wanted[ipv6]
            transact([netlink.default_route(netlink.index_of(name), gateway, name, ipv6=ipv6)])


def _failure(error: OSError) -> Conflict | RuntimeFailure:
    if error.errno == errno.ESRCH:
        return Conflict("the container has ended")
    return RuntimeFailure(
        "network", error.strerror or str(error), path=error.filename, errno=error.errno
    )
