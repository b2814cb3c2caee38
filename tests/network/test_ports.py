"""Published ports with the real daemon: taken, shown, changed while running, kept over its death."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from support.engines import IMAGE, SampanEngine, children
from support.netns import NetworkNamespace, listen, wait_for
from support.world import HOST_ADDRESS, INTERNET_ADDRESS, World

pytestmark = [pytest.mark.root]

HELLO = "while :; do echo hello | nc -l -p 80; done"
ECHO = "nc -l -p 80 -e cat"


def create(engine: SampanEngine, ports: dict[str, Any], script: str = HELLO, **host: Any) -> str:
    """A container that publishes `ports`; each is a host port, or a list of bindings."""
    bindings = {
        port: where if isinstance(where, list) else [{"HostIp": "", "HostPort": str(where)}]
        for port, where in ports.items()
    }
    answer = engine.post(
        "/containers/create",
        {
            "Image": IMAGE,
            "Cmd": ["sh", "-c", script],
            "ExposedPorts": {port: {} for port in bindings},
            "HostConfig": {"PortBindings": bindings, **host},
        },
    )
    assert answer.status == 201, answer
    return str(answer.json["Id"])


def run_container(engine: SampanEngine, ports: dict[str, Any], **options: Any) -> str:
    identity = create(engine, ports, **options)
    started = engine.post(f"/containers/{identity}/start")
    assert started.status == 204, started
    return identity


def shown(engine: SampanEngine, identity: str) -> dict[str, Any]:
    ports: dict[str, Any] = engine.get(f"/containers/{identity}/json").json["NetworkSettings"][
        "Ports"
    ]
    return ports


def number_of(engine: SampanEngine, identity: str, port: str) -> int:
    return int(shown(engine, identity)[port][0]["HostPort"])


def hello_from(where: NetworkNamespace, port: int, address: str = HOST_ADDRESS) -> bool:
    """Whether the container's server greets a client there; the first server may still be starting."""

    def greeted() -> bool:
        with where.entered():
            client = socket.socket()
        with client:
            client.settimeout(30)
            try:
                client.connect((address, port))
                return client.recv(6) == b"hello\n"
            except ConnectionError:
                return False

    wait_for(greeted, f"a greeting at {address}:{port}")
    return True


def refused(where: NetworkNamespace, port: int) -> bool:
    with where.entered():
        client = socket.socket()
    with client:
        client.settimeout(30)
        return client.connect_ex((HOST_ADDRESS, port)) != 0


@pytest.mark.vm
def test_a_stream_and_its_port_outlive_the_daemon(world: World, engine: SampanEngine) -> None:
    """Killed in the middle of it, several times; afterwards the port is known, held and given back."""
    script = f"({ECHO}); {HELLO}"
    identity = run_container(engine, {"80/tcp": 8080}, script=script)
    client = connected(world.internet, 8080)
    with client:
        for number in range(3):
            message = f"message {number}".encode()
            client.sendall(message)
            assert client.recv(100) == message
            engine.kill()
            client.sendall(message)
            assert client.recv(100) == message
            engine.start()
            assert shown(engine, identity) == {
                "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]
            }
    assert hello_from(world.internet, 8080)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("0.0.0.0", 8080))
    engine.delete(f"/containers/{identity}", force=True)
    assert refused(world.internet, 8080)
    listen("0.0.0.0", 8080).close()


def connected(where: NetworkNamespace, port: int) -> socket.socket:
    """A connection that somebody answers on."""
    found: list[socket.socket] = []

    def connect() -> bool:
        with where.entered():
            client = socket.socket()
        client.settimeout(30)
        try:
            client.connect((HOST_ADDRESS, port))
        except ConnectionRefusedError:
            client.close()
            return False
        found.append(client)
        return True

    wait_for(connect, f"port {port} answers")
    return found[0]


def test_a_port_is_had_once(world: World, engine: SampanEngine) -> None:
    """By a container, or by the host; the start is undone and succeeds when the port is free."""
    first = run_container(engine, {"80/tcp": 8080})
    second = create(engine, {"80/tcp": 8080})
    answer = engine.post(f"/containers/{second}/start")
    assert answer.status == 500
    assert answer.json["message"].startswith(
        "driver failed programming external connectivity on endpoint "
    )
    assert answer.json["message"].endswith(
        ": Bind for 0.0.0.0:8080 failed: port is already allocated"
    )
    state = engine.get(f"/containers/{second}/json").json
    assert state["State"]["Status"] == "created"
    assert state["NetworkSettings"]["Ports"] == {}
    engine.delete(f"/containers/{first}", force=True)
    assert engine.post(f"/containers/{second}/start").status == 204
    assert hello_from(world.internet, 8080)
    engine.post(f"/containers/{second}/stop", t=0)

    taken = listen("0.0.0.0", 8080)
    with taken:
        answer = engine.post(f"/containers/{second}/start")
        assert answer.status == 500 and "address already in use" in answer.json["message"]
    assert engine.post(f"/containers/{second}/start").status == 204
    assert hello_from(world.internet, 8080)


def test_addresses_ranges_and_ports_of_the_engines_choice(
    world: World, engine: SampanEngine
) -> None:
    identity = run_container(
        engine,
        {
            "80/tcp": [
                {"HostIp": "", "HostPort": ""},
                {"HostIp": "127.0.0.1", "HostPort": "9000-9009"},
                {"HostIp": HOST_ADDRESS, "HostPort": "9000"},
            ],
            "80/udp": [{"HostIp": "", "HostPort": "9000"}],
        },
    )
    ports = shown(engine, identity)
    assert ports["80/udp"] == [{"HostIp": "0.0.0.0", "HostPort": "9000"}]
    chosen, loopback, outside = sorted(ports["80/tcp"], key=lambda place: place["HostIp"])
    assert (loopback["HostIp"], loopback["HostPort"]) == ("127.0.0.1", "9000")
    assert (outside["HostIp"], outside["HostPort"]) == (HOST_ADDRESS, "9000")
    assert hello_from(world.internet, int(chosen["HostPort"]))
    assert hello_from(world.internet, 9000)
    assert hello_from(world.host, 9000, "127.0.0.1")

    second = run_container(engine, {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "9000-9001"}]})
    assert number_of(engine, second, "80/tcp") == 9001
    third = create(engine, {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "9000-9001"}]})
    assert engine.post(f"/containers/{third}/start").status == 500


def test_all_exposed_ports(world: World, engine: SampanEngine) -> None:
    identity = create(engine, {}, PublishAllPorts=True)
    assert engine.post(f"/containers/{identity}/start").status == 204
    assert shown(engine, identity) == {}
    other = engine.post(
        "/containers/create",
        {
            "Image": IMAGE,
            "Cmd": ["sh", "-c", HELLO],
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "HostConfig": {"PublishAllPorts": True},
        },
    ).json["Id"]
    assert engine.post(f"/containers/{other}/start").status == 204
    assert set(shown(engine, other)) == {"80/tcp", "53/udp"}
    assert hello_from(world.internet, number_of(engine, other, "80/tcp"))
    listed = next(item for item in engine.get("/containers/json").json if item["Id"] == other)
    assert {(port["PrivatePort"], port["Type"]) for port in listed["Ports"]} == {
        (80, "tcp"),
        (53, "udp"),
    }


def test_ports_of_a_running_container_change(world: World, engine: SampanEngine) -> None:
    """Added and taken back by an update; the next start has them, and so has the next daemon."""
    identity = run_container(engine, {"80/tcp": 8080})
    assert hello_from(world.internet, 8080)
    place = {"80/tcp": [{"HostIp": "", "HostPort": "8081"}]}
    answer = engine.post(f"/containers/{identity}/update", {"PublishAdd": place})
    assert answer.status == 200, answer
    assert hello_from(world.internet, 8081)
    assert hello_from(world.internet, 8080)
    first = {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    assert engine.post(f"/containers/{identity}/update", {"PublishRemove": first}).status == 200
    assert refused(world.internet, 8080)
    again = engine.post(f"/containers/{identity}/update", {"PublishRemove": first})
    assert again.status == 400, again

    other = run_container(engine, {"80/tcp": 8080})
    refusal = engine.post(f"/containers/{identity}/update", {"PublishAdd": first})
    assert refusal.status == 500 and "port is already allocated" in refusal.json["message"]
    assert shown(engine, identity) == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8081"}]}
    engine.delete(f"/containers/{other}", force=True)

    engine.kill()
    engine.start()
    assert engine.post(f"/containers/{identity}/restart", t=0).status == 204
    assert shown(engine, identity) == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8081"}]}
    assert hello_from(world.internet, 8081)


@pytest.mark.parametrize("filtered", ["0", "1"], ids=["bridged", "bridged and filtered"])
@pytest.mark.parametrize("live", [False, True], ids=["from its start", "while it runs"])
def test_a_container_calls_itself_and_its_neighbour_by_the_hosts_address(
    world: World, engine: SampanEngine, filtered: str, live: bool
) -> None:
    """Where frames between the bridge's ports pass the packet filter, and where not."""
    try:
        with open("/proc/sys/net/bridge/bridge-nf-call-iptables", "w") as setting:
            setting.write(filtered)
    except FileNotFoundError:
        if filtered == "1":
            pytest.skip("needs a kernel with br_netfilter")
    call = f'until [ "$(nc -w 5 {HOST_ADDRESS} 8080 </dev/null)" = hello ]; do :; done; touch /done'
    ports = {} if live else {"80/tcp": 8080}
    identity = run_container(engine, ports, script=f"({call}) & {HELLO}")
    if live:
        change = {"PublishAdd": {"80/tcp": [{"HostPort": "8080"}]}}
        assert engine.post(f"/containers/{identity}/update", change).status == 200
    neighbour = create(engine, {}, script=call)
    assert engine.post(f"/containers/{neighbour}/start").status == 204
    assert engine.post(f"/containers/{neighbour}/wait").json["StatusCode"] == 0
    wait_for(
        lambda: (
            engine.request(
                "HEAD", f"/containers/{identity}/archive", query={"path": "/done"}
            ).status
            == 200
        ),
        "the container has called itself",
    )


def test_ports_that_cannot_be(engine: SampanEngine) -> None:
    for port, place, text in (
        ("80/tcp", {"HostIp": "nowhere", "HostPort": "80"}, "invalid IP address"),
        ("80/tcp", {"HostIp": "", "HostPort": "80000"}, "invalid port specification"),
        ("80/icmp", {"HostIp": "", "HostPort": "80"}, "invalid port specification"),
        ("0/tcp", {"HostIp": "", "HostPort": "80"}, "invalid port specification"),
        ("80/tcp", {"HostIp": "", "HostPort": "9" * 5000}, "invalid port specification"),
        ("9" * 5000, {"HostIp": "", "HostPort": "80"}, "invalid port specification"),
    ):
        answer = engine.post(
            "/containers/create",
            {"Image": IMAGE, "HostConfig": {"PortBindings": {port: [place]}}},
        )
        assert answer.status == 400 and text in answer.json["message"], answer
    identity = create(engine, {"80/tcp": [{"HostIp": "203.0.113.9", "HostPort": "80"}]})
    answer = engine.post(f"/containers/{identity}/start")
    assert answer.status == 500 and "cannot assign requested address" in answer.json["message"]


@pytest.mark.vm
def test_the_clients_address(world: World, engine: SampanEngine) -> None:
    """The container's own view: netstat shows the client of the internet."""
    script = "nc -l -p 80 -e sh -c 'netstat -tn | grep :80'"
    run_container(engine, {"80/tcp": 8080}, script=script)
    with connected(world.internet, 8080) as client:
        seen = client.makefile().read()
    assert INTERNET_ADDRESS in seen


def test_a_thousand_ports(world: World, engine: SampanEngine) -> None:
    """Of one container, without a process for any; changed while it runs, and all given back."""
    numbers = range(20000, 21000)
    assert engine.process is not None
    before = len(descendants(engine.process.pid))
    identity = run_container(
        engine, {"80/tcp": [{"HostIp": "", "HostPort": str(number)} for number in numbers]}
    )
    for number in (numbers[0], numbers[500], numbers[-1]):
        assert hello_from(world.internet, number)
    assert len(descendants(engine.process.pid)) - before < 10, "a container's own processes"
    change = {"PublishRemove": {"80/tcp": [{"HostPort": str(numbers[500])}]}}
    assert engine.post(f"/containers/{identity}/update", change).status == 200
    assert refused(world.internet, numbers[500])
    assert hello_from(world.internet, numbers[501])
    assert engine.delete(f"/containers/{identity}?force=1").status == 204
    assert refused(world.internet, numbers[0])


def descendants(pid: int) -> set[int]:
    """All processes below a daemon."""
    found = set(children(pid))
    for child in list(found):
        found |= descendants(child)
    return found
