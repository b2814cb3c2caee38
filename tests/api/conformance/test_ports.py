"""Published ports by the docker command: shown, had once, refused where they cannot be."""

from __future__ import annotations

import json

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine


def published(docker: DockerCLI, name: str) -> dict[str, list[tuple[str, str]]]:
    """Places of IPv4 by the container's port; dockerd has those of IPv6 beside them."""
    ports = json.loads(docker("inspect", name, "-f", "{{json .NetworkSettings.Ports}}").line)
    return {
        port: [(p["HostIp"], p["HostPort"]) for p in places or () if ":" not in p["HostIp"]]
        for port, places in ports.items()
    }


def test_shown(docker: DockerCLI, unused_name: str) -> None:
    """In inspect, in `docker port` and in the list."""
    docker("run", "-d", "--name", unused_name, "-p", "80", "-p", "127.0.0.1::81/udp", "--expose", "82",
           IMAGE, "sleep", "60")  # fmt: skip
    ports = published(docker, unused_name)
    [(address, number)] = ports["80/tcp"]
    [(loopback, udp)] = ports["81/udp"]
    assert (address, loopback) == ("0.0.0.0", "127.0.0.1")
    assert ports["82/tcp"] == []
    assert f"80/tcp -> 0.0.0.0:{number}" in docker("port", unused_name).out
    assert docker("port", unused_name, "81/udp").line == f"127.0.0.1:{udp}"
    done = docker("port", unused_name, "82", check=False)
    assert done.code == 1 and "o public port '82" in done.err
    listed = docker("ps", "--filter", f"name={unused_name}", "--format", "{{.Ports}}").line
    assert f"0.0.0.0:{number}->80/tcp" in listed
    assert f"127.0.0.1:{udp}->81/udp" in listed
    assert "82/tcp" in listed
    docker("stop", "-t", "0", unused_name)
    assert published(docker, unused_name) == {}
    assert docker("port", unused_name).out == ""


def test_had_once(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, "-p", "127.0.0.1::80", IMAGE, "sleep", "60")
    [(_, number)] = published(docker, unused_name)["80/tcp"]
    other = f"{unused_name}-2"
    done = docker("run", "-d", "--name", other, "-p", f"127.0.0.1:{number}:80", IMAGE, "sleep", "60", check=False)  # fmt: skip
    assert done.code == 125
    assert f"driver failed programming external connectivity on endpoint {other} (" in done.err
    assert f"): Bind for 127.0.0.1:{number} failed: port is already allocated" in done.err
    assert docker("inspect", other, "-f", "{{.State.Status}}").line == "created"
    docker("rm", "-f", unused_name)
    docker("start", other)
    assert published(docker, other)["80/tcp"] == [("127.0.0.1", number)]


def test_a_range(docker: DockerCLI, unused_name: str) -> None:
    """One port of the container at the first free of several; several at as many."""
    docker(
        "run", "-d", "--name", unused_name, "-p", "127.0.0.1:21780-21790:80", IMAGE, "sleep", "60"
    )
    docker("run", "-d", "--name", f"{unused_name}-2", "-p", "127.0.0.1:21780-21790:80", IMAGE, "sleep", "60")  # fmt: skip
    [(_, first)] = published(docker, unused_name)["80/tcp"]
    [(_, second)] = published(docker, f"{unused_name}-2")["80/tcp"]
    assert 21780 <= int(first) < int(second) <= 21790
    docker("run", "-d", "--name", f"{unused_name}-3", "-p", "127.0.0.1:21791-21793:80-82", IMAGE, "sleep", "60")  # fmt: skip
    assert published(docker, f"{unused_name}-3") == {
        f"{80 + offset}/tcp": [("127.0.0.1", str(21791 + offset))] for offset in range(3)
    }


def test_all_exposed(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, "-P", "--expose", "80", "--expose", "53/udp", IMAGE, "sleep", "60")  # fmt: skip
    ports = published(docker, unused_name)
    assert set(ports) == {"80/tcp", "53/udp"}
    assert all(len(places) == 1 and places[0][0] == "0.0.0.0" for places in ports.values())


@pytest.mark.parametrize("network", ["host", "none"])
def test_of_no_meaning(docker: DockerCLI, unused_name: str, network: str) -> None:
    docker("run", "-d", "--name", unused_name, "--network", network, "-p", "21795:80", IMAGE, "sleep", "60")  # fmt: skip
    assert not any(published(docker, unused_name).values())


def test_of_another_containers_network(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, "sleep", "60")
    done = docker("run", "--network", f"container:{unused_name}", "-p", "21796:80", IMAGE, "true", check=False)  # fmt: skip
    assert done.code == 125
    assert "conflicting options: port publishing and the container type network mode" in done.err
    done = docker("run", "--network", f"container:{unused_name}", "--expose", "80", IMAGE, "true", check=False)  # fmt: skip
    assert "conflicting options: port exposing and the container type network mode" in done.err


def test_by_filter(docker: DockerCLI, unused_name: str) -> None:
    """The filter means the host's port."""
    docker("run", "-d", "--name", unused_name, "-p", "127.0.0.1::7777", IMAGE, "sleep", "60")
    [(_, number)] = published(docker, unused_name)["7777/tcp"]
    for wanted, found in ((number, unused_name), (f"{number}/tcp", unused_name), ("7777", "")):
        listed = docker("ps", "--filter", f"publish={wanted}", "--format", "{{.Names}}").out
        assert listed.strip() == found
