"""Sysctls: those of the container's own namespaces, all others refused in runc's words."""

from __future__ import annotations

import re

import pytest

from sampan.engine.model import HostConfig
from sampan.engine.sysctls import OF_ENDPOINT, check_sysctls, endpoint_sysctls
from sampan.errors import InvalidArgument


@pytest.mark.parametrize(
    "name",
    [
        "net.ipv4.ip_forward",
        "net/ipv4/conf/eth0.1/forwarding",
        "kernel.shmmax",
        "kernel/msgmax",
        "fs.mqueue.msg_max",
        "kernel.domainname",
    ],
)
def test_of_a_namespace(name: str) -> None:
    check_sysctls(HostConfig(sysctls={name: "1"}))


@pytest.mark.parametrize(
    ("name", "host", "text"),
    [
        ("vm.swappiness", {}, "is not in a separate kernel namespace"),
        ("kernel.panic", {"privileged": True}, "is not in a separate kernel namespace"),
        ("kernel/core_pattern", {}, "is not in a separate kernel namespace"),
        ("kernel.core_pattern", {}, "is not in a separate kernel namespace"),
        ("fs.mqueue", {}, "is not in a separate kernel namespace"),
        ("", {}, "is not in a separate kernel namespace"),
        ("kernel.hostname", {}, 'is not allowed as it conflicts with the OCI "hostname" field'),
        ("kernel/hostname", {}, 'is not allowed as it conflicts with the OCI "hostname" field'),
        ("kernel.hostname", {"uts_mode": "host"}, "is not in a separate kernel namespace"),
        ("kernel.domainname", {"uts_mode": "host"}, "is not in a separate kernel namespace"),
        ("kernel.shmmax", {"ipc_mode": "host"}, "is not allowed in the hosts ipc namespace"),
        ("net.core.x", {"network_mode": "host"}, "not allowed in host network namespace"),
        ("net/../kernel/panic", {}, "is not a name"),
        ("net.//.kernel", {}, "is not a name"),
    ],
)
def test_of_the_machine(name: str, host: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidArgument, match=f'^sysctl "{re.escape(name)}" {re.escape(text)}$'):
        check_sysctls(HostConfig(sysctls={name: "1"}, **host))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("net.ipv4.conf.IFNAME.log_martians=1", {"ipv4/conf/IFNAME/log_martians": "1"}),
        (
            "net.ipv6.conf.ifname.accept_ra=2,net.mpls.conf.IFNAME.input=",
            {"ipv6/conf/IFNAME/accept_ra": "2", "mpls/conf/IFNAME/input": ""},
        ),
    ],
)
def test_of_an_interface(text: str, expected: dict[str, str]) -> None:
    assert endpoint_sysctls({OF_ENDPOINT: text}) == expected


def test_of_no_interface() -> None:
    assert endpoint_sysctls(None) == endpoint_sysctls({"other": "net"}) == {}


@pytest.mark.parametrize(
    "text",
    [
        "net.ipv4.conf.eth0.log_martians=1",
        "net.ipv4.conf.IFNAME.log_martians",
        "net.core.conf.IFNAME.x=1",
        "kernel.IFNAME.panic=1",
        "net.ipv4.conf.IFNAME.../../../kernel/panic=1",
        "net.ipv4.../x.IFNAME.y=1",
        "net.ipv4.conf.IFNAME.a=1,rubbish",
        "net.ipv4.conf.IFNAME.a=1,",
    ],
)
def test_of_an_interface_in_other_words(text: str) -> None:
    wrong = text.rpartition(",")[2]
    expected = f"^unrecognised network interface sysctl '{re.escape(wrong)}'; represent "
    with pytest.raises(InvalidArgument, match=expected):
        endpoint_sysctls({OF_ENDPOINT: text})
