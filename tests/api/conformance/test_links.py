"""`--link`: on the default bridge by hosts, variables and holes in ICC; on networks of one's own by name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine

PREDEFINED = {"bridge", "host", "none"}
# dockerd 20.10's for ports 80 to 82/tcp and 53/udp, without the address.
VARIABLES = """
DB_ENV_A=b
DB_NAME=/par/db
DB_PORT=udp://IP:53
DB_PORT_53_UDP=udp://IP:53
DB_PORT_53_UDP_ADDR=IP
DB_PORT_53_UDP_PORT=53
DB_PORT_53_UDP_PROTO=udp
DB_PORT_80_TCP=tcp://IP:80
DB_PORT_80_TCP_ADDR=IP
DB_PORT_80_TCP_END=tcp://IP:82
DB_PORT_80_TCP_PORT=80
DB_PORT_80_TCP_PORT_END=82
DB_PORT_80_TCP_PORT_START=80
DB_PORT_80_TCP_PROTO=tcp
DB_PORT_80_TCP_START=tcp://IP:80
DB_PORT_81_TCP=tcp://IP:81
DB_PORT_81_TCP_ADDR=IP
DB_PORT_81_TCP_PORT=81
DB_PORT_81_TCP_PROTO=tcp
DB_PORT_82_TCP=tcp://IP:82
DB_PORT_82_TCP_ADDR=IP
DB_PORT_82_TCP_PORT=82
DB_PORT_82_TCP_PROTO=tcp
""".strip()


@pytest.fixture(autouse=True)
def _no_networks_left(target: Engine) -> Iterator[None]:
    yield
    target.remove_containers()
    networks = target.get("/networks").json
    for network in sorted(networks, key=lambda network: network["ConfigOnly"]):
        if network["Name"] not in PREDEFINED:
            assert target.delete(f"/networks/{network['Id']}").status == 204


def web(docker: DockerCLI) -> str:
    """A container with exposed ports; its address."""
    ports = [word for port in ("80", "81", "82/tcp", "53/udp") for word in ("--expose", port)]
    docker("run", "-d", "--name", "web-1", *ports, "-e", "A=b", IMAGE, "sleep", "600")
    return address_of(docker, "web-1")


def address_of(docker: DockerCLI, name: str) -> str:
    return docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", name).line


def test_hosts_and_variables(docker: DockerCLI, target: Engine) -> None:
    address = web(docker)
    docker(
        *("create", "--name", "par", "--link", "web-1:db", IMAGE),
        *("sh", "-c", "env | sort; cat /etc/hosts; exec sleep 600"),
    )
    docker("start", "par")
    shown = docker("exec", "par", "sh", "-c", "env | grep ^DB_ | sort; cat /etc/hosts").out
    assert VARIABLES.replace("IP", address) in shown
    short = docker("inspect", "-f", "{{.Config.Hostname}}", "web-1").line
    assert f"{address}\tdb {short} web-1\n" in shown
    host = target.get("/containers/par/json").json["HostConfig"]
    assert host["Links"] == ["/web-1:/par/db"]
    names = [each["Names"] for each in target.get("/containers/json").json]
    assert sorted(names) == [["/par"], ["/par/db", "/web-1"]]
    docker("exec", "par", "ping", "-c", "1", "-W", "5", "db")
    # Back with another address, the other finds it again.
    docker("stop", "-t", "0", "web-1")
    docker("run", "-d", "--name", "between", "--ip", "", IMAGE, "sleep", "600")
    docker("start", "web-1")
    moved = address_of(docker, "web-1")
    assert f"{moved}\tdb " in docker("exec", "par", "cat", "/etc/hosts").out
    docker("exec", "par", "ping", "-c", "1", "-W", "5", "db")
    docker("rm", "--link", "/par/db")
    assert not target.get("/containers/par/json").json["HostConfig"]["Links"]


def test_refusals(docker: DockerCLI, target: Engine) -> None:
    web(docker)
    refused = docker("run", "--link", "nosuch:x", IMAGE, "true", check=False)
    assert refused.code == 125
    assert "could not get container for nosuch: No such container: nosuch" in refused.err
    for mode in ("host", "container:web-1"):
        body = {"Image": IMAGE, "HostConfig": {"NetworkMode": mode, "Links": ["web-1:db"]}}
        answer = target.post("/containers/create", body)
        assert answer.status == 400
        text = f"conflicting options: {mode.partition(':')[0]} type networking can't be used with links"
        assert text in answer.json["message"]
    docker("create", "--name", "par", "--link", "web-1:db", IMAGE, "true")
    docker("stop", "-t", "0", "web-1")
    refused = docker("start", "par", check=False)
    assert refused.code == 1
    assert "Cannot link to a non running container: /web-1 AS /par/db" in refused.err
    refused = docker("rm", "--link", "/par/nosuch", check=False)
    assert refused.code == 1 and "No such container: par/nosuch" in refused.err
    docker("rm", "web-1")
    assert docker("start", "-a", "par").out == ""  # a link to nobody is none


def test_on_a_network_of_ones_own(docker: DockerCLI, unused_name: str) -> None:
    docker("network", "create", unused_name)
    docker("run", "-d", "--name", "web-1", "--network", unused_name, IMAGE, "sleep", "600")
    docker(
        *("run", "-d", "--name", "par", "--network", unused_name, "--link", "web-1:db"),
        *(IMAGE, "sleep", "600"),
    )
    docker("exec", "par", "ping", "-c", "1", "-W", "5", "db")
    asked = docker("exec", "web-1", "ping", "-c", "1", "-W", "5", "db", check=False)
    assert asked.code == 1  # a name for the one that is linked


def test_link_local_addresses(docker: DockerCLI, target: Engine, unused_name: str) -> None:
    subnet = f"198.{18 + os.getpid() % 2}"
    docker("network", "create", "--subnet", f"{subnet}.0.0/16", unused_name)
    docker(
        *("run", "-d", "--name", "one", "--network", unused_name, "--ip", f"{subnet}.0.9"),
        *("--link-local-ip", "169.254.7.8", IMAGE, "sleep", "600"),
    )
    shown = docker("exec", "one", "ip", "-o", "-4", "address").out
    assert f"{subnet}.0.9/16" in shown and "169.254.7.8/16" in shown
    place = target.get("/containers/one/json").json["NetworkSettings"]["Networks"][unused_name]
    assert place["IPAMConfig"]["LinkLocalIPs"] == ["169.254.7.8"]
    assert place["IPAddress"] == f"{subnet}.0.9"
    refused = docker(
        *("run", "--network", unused_name, "--link-local-ip", "10.7.7.8", IMAGE, "true"),
        check=False,
    )
    assert refused.code == 125 and "invalid link local IP address: 10.7.7.8" in refused.err


def test_configurations(docker: DockerCLI, unused_name: str) -> None:
    """`--config-only` and `--config-from`."""
    subnet, only = f"198.{18 + os.getpid() % 2}.0.0/16", f"c{unused_name}"
    docker(
        *("network", "create", "--config-only", "--subnet", subnet, "--label", "x=y"),
        *("-o", "com.docker.network.driver.mtu=1234", only),
    )
    docker("network", "create", "--config-from", only, unused_name)
    found = json.loads(docker("network", "inspect", unused_name).out)[0]
    assert found["ConfigFrom"] == {"Network": only} and found["Labels"] == {"x": "y"}
    assert found["Options"] == {"com.docker.network.driver.mtu": "1234"}
    assert found["IPAM"]["Config"][0]["Subnet"] == subnet
    shown = docker("run", "--rm", "--network", unused_name, IMAGE, "ip", "link", "show", "eth0")
    assert "mtu 1234" in shown.out
    refusals = [
        (("--config-from", only, "--label", "a=b", "x1"), "user specified configurations are not"),
        (
            ("--config-from", only, "-o", "com.docker.network.driver.mtu=99", "x1"),
            "network driver options are not supported if the network depends on a configuration",
        ),
        (("--config-from", "nosuch", "x1"), 'configuration network "nosuch" does not exist'),
        (
            ("--config-from", unused_name, "x1"),
            f'configuration network "{unused_name}" does not exist',
        ),
        (
            ("--config-only", "--config-from", only, "x1"),
            "a configuration network cannot depend on another configuration network",
        ),
    ]
    for arguments, text in refusals:
        refused = docker("network", "create", *arguments, check=False)
        assert refused.code == 1 and text in refused.err, refused
    refused = docker("network", "rm", only, check=False)
    assert refused.code == 1 and f'configuration network "{only}" is in use' in refused.err
    refused = docker("run", "--rm", "--network", only, IMAGE, "true", check=False)
    assert refused.code == 125 and "cannot create endpoint on configuration-only" in refused.err
    docker("network", "rm", unused_name)
