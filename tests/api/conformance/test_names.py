"""Names of containers on networks of the user's own, by the docker command."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine
from support.waiting import wait_for

NETWORK = "names-net"
OTHER = "names-other"


@pytest.fixture(autouse=True)
def networks(target: Engine, docker: DockerCLI) -> Iterator[None]:
    for name in (NETWORK, OTHER):
        docker("network", "create", name)
    yield
    target.remove_containers()
    docker("network", "rm", NETWORK, OTHER)


def start(docker: DockerCLI, name: str, *options: str, network: str = NETWORK) -> str:
    """Start a container that sleeps; its address in the network."""
    docker("run", "-d", "--name", name, "--network", network, *options, IMAGE, "sleep", "1000")
    return address(docker, name, network)


def address(docker: DockerCLI, name: str, network: str = NETWORK) -> str:
    template = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
    return docker("inspect", "-f", template, name).line


def lookup(docker: DockerCLI, name: str, *, asking: str) -> list[str]:
    """The addresses that a container finds behind a name, in the order of the answer."""
    out = docker("exec", asking, "busybox", "nslookup", name, check=False).out
    _, _, answers = out.partition("\n\n")
    return [line.split()[-1] for line in answers.splitlines() if line.startswith("Address")]


def resolv_conf(docker: DockerCLI, name: str) -> str:
    return docker("exec", name, "cat", "/etc/resolv.conf").out


@pytest.mark.vm
def test_names(docker: DockerCLI) -> None:
    """Its name, aliases, short ID and host name; in any case, also with the network's name."""
    web = start(docker, "Web", "--network-alias", "www", "--hostname", "hosty")
    start(docker, "asking")
    short = docker("inspect", "-f", "{{.Id}}", "Web").line[:12]
    for name in ("Web", "web", "www", short, "hosty", f"Web.{NETWORK}", f"www.{NETWORK}"):
        assert lookup(docker, name, asking="asking") == [web], name
    assert lookup(docker, "asking", asking="Web") == [address(docker, "asking")]


def test_addresses_have_names(docker: DockerCLI) -> None:
    web = start(docker, "web", "--network-alias", "www")
    out = docker("exec", "web", "busybox", "nslookup", web).out
    assert f"name = web.{NETWORK}\n" in out


def test_a_name_without_such_records_is_nobody_elses_business(docker: DockerCLI) -> None:
    start(docker, "web")
    for kind in ("AAAA", "MX"):
        done = docker("exec", "web", "busybox", "nslookup", f"-type={kind}", "web")
        assert "can't find" not in done.out


def test_one_alias_of_several(docker: DockerCLI) -> None:
    """All are found, each one first some time; one that ends is found no more."""
    addresses = {start(docker, f"w{n}", "--network-alias", "all") for n in range(3)}
    start(docker, "asking")
    firsts = set()
    for _ in range(40):
        found = lookup(docker, "all", asking="asking")
        assert set(found) == addresses
        firsts.add(found[0])
        if firsts == addresses:
            break
    assert firsts == addresses
    gone = address(docker, "w1")
    docker("kill", "w1")
    docker("wait", "w1")
    wait_for(
        lambda: set(lookup(docker, "all", asking="asking")) == addresses - {gone}, "it to be gone"
    )


def test_rename(docker: DockerCLI) -> None:
    web = start(docker, "web")
    docker("rename", "web", "other")
    assert lookup(docker, "other", asking="other") == [web]


def test_the_first_moment(docker: DockerCLI) -> None:
    """The first thing that a container does is to look itself up, and another one."""
    web = start(docker, "web")
    script = "busybox nslookup web && exec busybox nslookup first"
    out = docker("run", "--name", "first", "--network", NETWORK, IMAGE, "sh", "-c", script).out
    assert f"Address: {web}" in out


def test_networks_of_ones_own(docker: DockerCLI) -> None:
    """Names of a network are found in it alone; by who is connected later, from then on."""
    web = start(docker, "web")
    start(docker, "asking", network=OTHER)
    docker("network", "connect", "--alias", "late", NETWORK, "asking")
    assert lookup(docker, "web", asking="asking") == [web]
    assert lookup(docker, "late", asking="web") == [address(docker, "asking")]
    assert lookup(docker, f"asking.{OTHER}", asking="asking") == [address(docker, "asking", OTHER)]


def test_connected_from_the_default_network(docker: DockerCLI) -> None:
    """A container that runs on the default network gets the resolver with its first own network."""
    web = start(docker, "web")
    docker("run", "-d", "--name", "late", IMAGE, "sleep", "1000")
    assert "127.0.0.11" not in resolv_conf(docker, "late")
    docker("network", "connect", NETWORK, "late")
    assert resolv_conf(docker, "late").startswith("nameserver 127.0.0.11\n")
    assert lookup(docker, "web", asking="late") == [web]
    assert lookup(docker, "late", asking="web") == [address(docker, "late")]


def test_in_another_containers_network(docker: DockerCLI) -> None:
    web = start(docker, "web")
    docker("run", "-d", "--name", "guest", "--network", "container:web", IMAGE, "sleep", "1000")
    assert lookup(docker, "web", asking="guest") == [web]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "nameserver 127.0.0.11\noptions ndots:0"),
        (("--dns-search", "a.b"), "search a.b\nnameserver 127.0.0.11\noptions ndots:0"),
        (("--dns-search", ".", "--dns", "192.0.2.1"), "nameserver 127.0.0.11\noptions ndots:0"),
        (("--dns-opt", "timeout:1"), "nameserver 127.0.0.11\noptions timeout:1 ndots:0"),
        (("--dns-opt", "ndots:2", "--dns-opt", "rotate"), "nameserver 127.0.0.11\noptions ndots:2 rotate"),
    ],
)  # fmt: skip
def test_resolv_conf(docker: DockerCLI, options: tuple[str, ...], text: str) -> None:
    run = docker("run", "--network", NETWORK, *options, IMAGE, "cat", "/etc/resolv.conf")
    assert run.out.rstrip("\n") == text


def test_a_name_server_of_ones_own(docker: DockerCLI) -> None:
    """Port 53 is free on all addresses; names of others are found beside what listens there."""
    serve = "while nc -l -p 53 -e cat; do :; done"
    docker("run", "-d", "--name", "own", "--network", NETWORK, IMAGE, "sh", "-c", serve)
    own = address(docker, "own")
    start(docker, "asking")
    ask = ("exec", "asking", "sh", "-c", f"echo hello | nc {own} 53")
    wait_for(lambda: docker(*ask, check=False).out == "hello\n", "its own server")
    assert lookup(docker, "asking", asking="own") == [address(docker, "asking")]
    assert lookup(docker, "own", asking="own") == [own]


def test_under_another_runtime(docker: DockerCLI) -> None:
    """Found, and finding others from the first moment on, whoever starts the process."""
    if shutil.which("runc") is None:
        pytest.skip("needs the command runc")
    web = start(docker, "web", "--runtime", "runc")
    script = "busybox nslookup web && exec busybox nslookup first"
    options = ["--name", "first", "--runtime", "runc", "--network", NETWORK]
    assert f"Address: {web}" in docker("run", *options, IMAGE, "sh", "-c", script).out
    start(docker, "asking")
    assert lookup(docker, "web", asking="asking") == [web]
