"""The default network: an address for each container, reach of each other, of the host and beyond."""

from __future__ import annotations

import ipaddress
import json
import os

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine


def address(docker: DockerCLI, name: str) -> str:
    return str(json.loads(docker("inspect", name).out)[0]["NetworkSettings"]["IPAddress"])


def test_settings(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, "sleep", "60")
    settings = json.loads(docker("inspect", unused_name).out)[0]["NetworkSettings"]
    endpoint = settings["Networks"]["bridge"]
    subnet = ipaddress.ip_network(
        f"{endpoint['IPAddress']}/{endpoint['IPPrefixLen']}", strict=False
    )
    assert ipaddress.ip_address(endpoint["Gateway"]) in subnet
    assert endpoint["MacAddress"].count(":") == 5
    assert settings["IPAddress"] == endpoint["IPAddress"]
    assert settings["SandboxKey"]
    out = docker(
        "exec", unused_name, "sh", "-c", "ip -o -4 addr show eth0; ip route; cat /etc/hosts"
    ).out
    assert f"inet {endpoint['IPAddress']}/{endpoint['IPPrefixLen']}" in out
    assert f"default via {endpoint['Gateway']} dev eth0" in out
    assert f"{endpoint['IPAddress']}\t" in out


@pytest.mark.vm
def test_containers_reach_each_other_and_the_gateway(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, "sleep", "60")
    there = address(docker, unused_name)
    script = f"ping -c 1 -W 2 {there} >/dev/null && ping -c 1 -W 2 $(ip route | awk '/default/ {{print $3}}') >/dev/null && echo both"
    assert docker("run", "--rm", IMAGE, "sh", "-c", script).line == "both"


def test_addresses_differ_and_come_back(docker: DockerCLI) -> None:
    names = [docker("run", "-d", IMAGE, "sleep", "60").line for _ in range(3)]
    addresses = {address(docker, name) for name in names}
    assert len(addresses) == 3
    docker("stop", "-t", "0", *names)
    assert {address(docker, name) for name in names} == {""}


def test_mac_address(docker: DockerCLI) -> None:
    command = (
        "run",
        "--rm",
        "--mac-address",
        "02:42:ac:11:99:99",
        IMAGE,
        "cat",
        "/sys/class/net/eth0/address",
    )
    result = docker(*command, check=False)
    if "requires API version 1.44" in result.err:
        pytest.skip("this command line needs a newer engine for it")
    assert result.line == "02:42:ac:11:99:99"


def test_none(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--network", "none", "--name", unused_name, IMAGE, "sleep", "60")
    assert docker("exec", unused_name, "ls", "/sys/class/net").line == "lo"
    assert docker("exec", unused_name, "cat", "/sys/class/net/lo/operstate").line == "unknown"
    assert address(docker, unused_name) == ""


def test_host(docker: DockerCLI, target: Engine) -> None:
    link = docker("run", "--rm", "--network", "host", IMAGE, "readlink", "/proc/self/ns/net").line
    assert target.process is not None
    assert link == os.readlink(f"/proc/{target.process.pid}/ns/net")


@pytest.mark.parametrize("network", ["bridge", "none", "host"])
def test_listed(docker: DockerCLI, only_sampan: None, network: str) -> None:
    """The three networks that every engine has can at least be named (user-defined ones come later)."""
    docker("run", "--rm", "--network", network, IMAGE, "true")
