"""macvlan and ipvlan: what their containers reach, and whose the parents are.

Skipped where the kernel has none of the kind; that of `make test-vm` has both.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.errors import Forbidden, InvalidArgument, NotFound, Unavailable
from sampan.linux import interfaces, netlink
from sampan.network.addressing import SubnetPlan
from sampan.network.machine import Machine
from sampan.network.on_parent import OnParent
from support.command import run
from support.engines import IMAGE, SampanEngine
from support.http import Answer
from support.netns import NetworkNamespace, wait_for
from support.world import World

pytestmark = [pytest.mark.root, pytest.mark.vm]

PARENT = "wire0"
NEIGHBOUR = "192.0.2.200"  # a machine on the parent's wire
NEIGHBOUR6 = "fd00:2::200"
PLANS = (
    SubnetPlan("192.0.2.0/24", gateway=NEIGHBOUR),
    SubnetPlan("fd00:2::/64", gateway=NEIGHBOUR6),
)
OWNER = "owner"


class Wire:
    """The interface `wire0` of the world's host, and what is at the wire's other end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.far = NetworkNamespace()
        with self.far.entered():
            netlink.configure_inside([])
            end = netlink.VethEndpoint(
                host_name=PARENT,
                bridge="trunk",
                bridge_index=0,
                mac="02:42:c0:00:02:c8",
                name="far0",
                addresses=[f"{NEIGHBOUR}/24", f"{NEIGHBOUR6}/64"],
            )
        with world.host.entered():
            trunk = interfaces.create_bridge("trunk", mac="02:42:c0:00:02:01", mtu=1500)
            netlink.create_veth(end, netns_fd=self.far.fd)
            world.run("ip", "link", "set", PARENT, "nomaster")
            assert trunk
        with self.far.entered():
            netlink.configure_inside([end])

    def close(self) -> None:
        self.far.close()


@pytest.fixture
def wire(world: World) -> Iterator[Wire]:
    wire = Wire(world)
    yield wire
    wire.close()


def need(world: World, *kinds: str) -> None:
    """Skip the test where the kernel has no such interfaces."""
    for kind in kinds:
        with world.host.entered():
            try:
                make_one(kind)
            except OSError as error:
                assert error.errno == errno.EOPNOTSUPP, error
                pytest.skip(f"this kernel has no {kind} interfaces (make test-vm has them)")


def make_one(kind: str) -> None:
    """One interface of the kind, and away with it."""
    upper = netlink.index_of("wan0")
    if kind in ("macvlan", "ipvlan"):
        interfaces.probe_on_parent(kind, upper, 1, 0)
        return
    if kind == "vlan":
        interfaces.create_vlan("try0", upper, 9)
    else:
        interfaces.create_link("try0", kind)
    netlink.delete_link("try0")


def network(world: World, driver: str = "macvlan", /, number: int = 1, **options: str) -> OnParent:
    """One that hangs on the wire, ready."""
    need(world, driver)
    options.setdefault("parent", PARENT)
    made = OnParent(driver, f"net{number}", f"{number:02x}" * 32, PLANS, options, owner=OWNER)
    with world.host.entered():
        made.ensure(Machine())
    return made


def reaches(where: NetworkNamespace, address: str) -> bool:
    with where.entered():
        return run(["ping", "-c", "1", "-W", "2", address], check=False).code == 0


def wait_to_reach(where: NetworkNamespace, address: str) -> None:
    """A link that has just come up carries nothing until the kernel has taken note of it."""
    wait_for(lambda: reaches(where, address), f"{address} to be reached")


def container(world: World, on: OnParent, name: str) -> tuple[NetworkNamespace, str, str]:
    namespace = world.container(on, name)
    attachment = on.attachment(name)
    assert attachment is not None
    return namespace, attachment.address, attachment.address6


# (driver, options, do neighbours on the same host reach each other?)
@pytest.mark.parametrize(
    ("driver", "options", "together"),
    [
        ("macvlan", {}, True),
        ("macvlan", {"macvlan_mode": "private"}, False),
        ("macvlan", {"macvlan_mode": "vepa"}, False),  # the far end is no switch that sends back
        ("ipvlan", {}, True),
        ("ipvlan", {"ipvlan_flag": "private"}, False),
        ("ipvlan", {"ipvlan_flag": "vepa"}, False),
        ("ipvlan", {"ipvlan_mode": "l3"}, True),
        ("ipvlan", {"ipvlan_mode": "l3s"}, True),
    ],
)
def test_who_reaches_whom(
    world: World, wire: Wire, driver: str, options: dict[str, str], together: bool
) -> None:
    """Each other as the mode says, and the machines of the wire, in both families."""
    on = network(world, driver, **options)
    one, _, _ = container(world, on, "one")
    _two, address, address6 = container(world, on, "two")
    l3 = options.get("ipvlan_mode", "l2") != "l2"
    if not l3:
        wait_to_reach(one, NEIGHBOUR)
        wait_to_reach(one, NEIGHBOUR6)
    for each in (address, address6):
        if together:
            wait_to_reach(one, each)
        else:
            assert not reaches(one, each)
    with one.entered():
        routes = json.loads(run(["ip", "-json", "route", "show", "default"]).out)
    [route] = routes
    assert route.get("gateway") == (None if l3 else NEIGHBOUR)
    assert route["dev"] == "eth0"


def test_passthru_has_the_parent_for_itself(world: World, wire: Wire) -> None:
    on = network(world, macvlan_mode="passthru")
    one, _, _ = container(world, on, "one")
    wait_to_reach(one, NEIGHBOUR)
    with pytest.raises(OSError, match="Invalid argument"):
        world.container(on, "two")
    on.release("two")
    with world.host.entered():
        on.ensure(Machine())  # as the next daemon does
    wait_to_reach(one, NEIGHBOUR)


def test_an_ipvlan_that_is_looked_at_keeps_its_mode(world: World, wire: Wire) -> None:
    on = network(world, "ipvlan")
    one, _, _ = container(world, on, "one")
    with world.host.entered():
        on.ensure(Machine())
    with one.entered():
        [link] = json.loads(run(["ip", "-json", "-details", "link", "show", "eth0"]).out)
    assert link["linkinfo"]["info_data"]["mode"] == "l2"
    wait_to_reach(one, NEIGHBOUR)


def test_no_parent_is_a_dummy(world: World, wire: Wire) -> None:
    """Containers reach each other, and nothing else; the dummy goes with the network."""
    need(world, "dummy")
    on = network(world, parent="")
    assert on.parent == "dm-" + "01" * 6
    assert on.parent in world.links()
    one, _, _ = container(world, on, "one")
    _two, address, _ = container(world, on, "two")
    wait_to_reach(one, address)
    with one.entered():
        assert run(["ip", "route", "show", "default"]).out == ""
    with world.host.entered():
        on.remove()
    assert on.parent not in world.links()


def test_vlans_are_made_shared_and_inherited(world: World, wire: Wire) -> None:
    need(world, "vlan")
    name = f"{PARENT}.20"
    first = network(world, number=1, parent=name)
    second = network(world, number=2, parent=name)
    second.check_beside([first, second])
    [link] = json.loads(world.run("ip", "-json", "-details", "link", "show", name))
    assert link["linkinfo"]["info_kind"] == "vlan"
    assert (link["linkinfo"]["info_data"]["id"], link["link"]) == (20, PARENT)
    one, _, _ = container(world, first, "one")
    assert not reaches(one, NEIGHBOUR)  # which listens to no VLAN
    with wire.far.entered():
        run(["ip", "link", "add", "far0.20", "link", "far0", "type", "vlan", "id", "20"])
        run(["ip", "address", "flush", "dev", "far0"])
        run(["ip", "address", "add", f"{NEIGHBOUR}/24", "dev", "far0.20"])
        run(["ip", "link", "set", "far0.20", "up"])
    wait_to_reach(one, NEIGHBOUR)
    with world.host.entered():
        first.remove([first, second])
        assert name in world.links()
        second.remove([second])
    assert name not in world.links()


def test_a_parent_that_was_there_stays(world: World, wire: Wire) -> None:
    need(world, "vlan")
    world.run("ip", "link", "add", f"{PARENT}.30", "link", PARENT, "type", "vlan", "id", "30")
    on = network(world, parent=f"{PARENT}.30")
    with world.host.entered():
        on.remove()
    assert {PARENT, f"{PARENT}.30"} <= set(world.links())


@pytest.mark.parametrize(
    ("parent", "error", "text"),
    [
        ("nosuch", InvalidArgument, "invalid subinterface vlan name nosuch, example formatting"),
        ("nosuch.10", NotFound, "-o parent interface was not found on the host: nosuch"),
        (f"{PARENT}.x", InvalidArgument, "unable to parse a valid vlan id from: x"),
        (f"{PARENT}.5000", InvalidArgument, "vlan id must be between 1-4094, received: 5000"),
        (f"{PARENT}.1.2", InvalidArgument, "required interface name format is: name.vlan_id"),
    ],
)
def test_parents_that_cannot_be(
    world: World, wire: Wire, parent: str, error: type[Exception], text: str
) -> None:
    before = world.links()
    with pytest.raises(error, match=text):
        network(world, parent=parent)
    assert world.links() == before


def test_a_parent_of_another_kind_of_interfaces(world: World, wire: Wire) -> None:
    """What the kernel refuses is said when the network is made, not at the first container."""
    need(world, "ipvlan")
    taken = network(world, "macvlan")
    _held = container(world, taken, "one")
    with pytest.raises(Unavailable, match=f"{PARENT} cannot be the parent of a ipvlan: .*busy"):
        network(world, "ipvlan", number=2)


def test_a_parent_that_is_gone_and_comes_again(world: World, wire: Wire) -> None:
    need(world, "dummy")
    world.run("ip", "link", "add", "dummy7", "type", "dummy")
    on = network(world, parent="dummy7")
    world.run("ip", "link", "delete", "dummy7")
    with world.host.entered(), pytest.raises(Unavailable, match="dummy7 was not found on the host"):
        on.attach("one")
    world.run("ip", "link", "add", "dummy7", "up", "type", "dummy")
    world.container(on, "one")


# -- with the daemon -------------------------------------------------------------------------------


def create_network(
    engine: SampanEngine,
    name: str,
    driver: str,
    *subnets: str,
    internal: bool = False,
    **options: str,
) -> Answer:
    config = [{"Subnet": subnet} for subnet in subnets]
    body: dict[str, Any] = {
        "Name": name,
        "Driver": driver,
        "Options": options,
        "Internal": internal,
        "EnableIPv6": any(":" in subnet for subnet in subnets),
        "IPAM": {"Config": config},
    }
    return engine.post("/networks/create", body)


def start(engine: SampanEngine, network: str, **endpoint: Any) -> str:
    body = {
        "Image": IMAGE,
        "Cmd": ["sleep", "600"],
        "HostConfig": {"NetworkMode": network},
        "NetworkingConfig": {"EndpointsConfig": {network: endpoint}},
    }
    created = engine.post("/containers/create", body)
    assert created.status == 201, created
    identity: str = created.json["Id"]
    started = engine.post(f"/containers/{identity}/start")
    assert started.status == 204, started
    return identity


def said(engine: SampanEngine, identity: str, *command: str) -> tuple[int, str]:
    body = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True, "Tty": True}
    made = engine.post(f"/containers/{identity}/exec", body).json["Id"]
    out = engine.post(f"/exec/{made}/start", {"Detach": False, "Tty": True}).body
    code: int = engine.get(f"/exec/{made}/json").json["ExitCode"]
    return code, out.decode(errors="replace")


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_life_on_a_parent(wire: Wire, request: pytest.FixtureRequest, driver: str) -> None:
    """Static addresses, names, connect and disconnect while running, the daemon's death, the end."""
    world = wire.world
    need(world, driver)
    engine: SampanEngine = request.getfixturevalue("engine")
    made = create_network(engine, "net", driver, "192.0.2.0/24", "fd00:2::/64", parent=PARENT)
    assert made.status == 201, made
    wish = {"IPAMConfig": {"IPv4Address": "192.0.2.77", "IPv6Address": "fd00:2::77"}}
    first = start(engine, "net", **wish, Aliases=["alias"])
    second = start(engine, "net")
    place = engine.get(f"/containers/{first}/json").json["NetworkSettings"]["Networks"]["net"]
    assert (place["IPAddress"], place["GlobalIPv6Address"]) == ("192.0.2.77", "fd00:2::77")
    for target in ("192.0.2.77", "fd00:2::77", "alias", NEIGHBOUR):
        code, out = said(engine, second, "ping", "-c", "1", "-W", "5", target)
        assert code == 0, (target, out)

    engine.kill()
    engine.start()
    assert said(engine, second, "ping", "-c", "1", "-W", "5", "alias")[0] == 0

    assert engine.post("/networks/net/disconnect", {"Container": second}).status == 200
    assert said(engine, second, "ip", "link", "show", "eth0")[0] != 0
    assert engine.post("/networks/net/connect", {"Container": second}).status == 200
    assert said(engine, second, "ping", "-c", "1", "-W", "5", "alias")[0] == 0
    assert engine.delete("/networks/net").status == 403
    engine.remove_containers()
    assert engine.delete("/networks/net").status == 204
    assert PARENT in world.links()


def test_what_is_made_goes_with_the_networks(wire: Wire, request: pytest.FixtureRequest) -> None:
    """A VLAN that two networks share, and dummies of internal ones; also after the daemon's death."""
    world = wire.world
    need(world, "macvlan", "ipvlan", "vlan", "dummy")
    engine: SampanEngine = request.getfixturevalue("engine")
    before = set(world.links())
    vlan = f"{PARENT}.10"
    assert create_network(engine, "one", "macvlan", "10.1.0.0/24", parent=vlan).status == 201
    assert create_network(engine, "two", "macvlan", "10.2.0.0/24", parent=vlan).status == 201
    assert create_network(engine, "alone", "macvlan", "10.3.0.0/24").status == 201
    assert create_network(engine, "alone2", "ipvlan", "10.4.0.0/24", ipvlan_mode="l3").status == 201
    made = set(world.links()) - before
    assert vlan in made and len(made) == 3
    first = start(engine, "alone2")
    second = start(engine, "alone2")
    place = engine.get(f"/containers/{first}/json").json["NetworkSettings"]["Networks"]["alone2"]
    assert said(engine, second, "ping", "-c", "1", "-W", "5", place["IPAddress"])[0] == 0
    engine.remove_containers()
    engine.kill()
    engine.start()
    for name in ("one", "two", "alone", "alone2"):
        assert vlan in world.links() or name not in ("one", "two")
        assert engine.delete(f"/networks/{name}").status == 204
    wait_for(lambda: set(world.links()) <= before, "what was made to go")


def test_internal_has_no_way_out(wire: Wire, request: pytest.FixtureRequest) -> None:
    need(wire.world, "macvlan")
    engine: SampanEngine = request.getfixturevalue("engine")
    made = create_network(engine, "net", "macvlan", "192.0.2.0/24", internal=True, parent=PARENT)
    assert made.status == 201, made
    inside = start(engine, "net")
    assert "default" not in said(engine, inside, "ip", "route")[1]


@pytest.mark.parametrize(
    ("driver", "options", "text"),
    [
        ("macvlan", {"macvlan_mode": "x"}, "requested macvlan mode 'x' is not valid, 'bridge' mode is the macvlan driver default"),
        ("ipvlan", {"ipvlan_mode": "l4"}, "requested ipvlan mode 'l4' is not valid, 'l2' mode is the ipvlan driver default"),
        ("ipvlan", {"ipvlan_flag": "x"}, "requested ipvlan flag 'x' is not valid, 'bridge' is the ipvlan driver default"),
        ("macvlan", {"parent": "lo"}, "loopback interface is not a valid macvlan parent link"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(driver: str, options: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        OnParent(driver, "net", "01" * 32, PLANS, options)
    assert caught.value.message == text


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (("macvlan", ""), ("macvlan", ""), ""),
        (("macvlan", ""), ("macvlan", "passthru"), "cannot use mode passthru, macvlan network 0101"),
        (("macvlan", "passthru"), ("macvlan", ""), "is already using parent interface eth7 in mode passthru"),
        (("ipvlan", "l2"), ("ipvlan", "l3"), "network dm-010101010101 is already using parent interface eth7"),
        (("macvlan", ""), ("ipvlan", "l2"), "network dm-010101010101 is already using parent interface eth7"),
    ],
)  # fmt: skip
def test_two_networks_on_one_parent(
    first: tuple[str, str], second: tuple[str, str], text: str
) -> None:
    made = [
        OnParent(
            driver, "net", f"{number:02x}" * 32, PLANS, {"parent": "eth7", f"{driver}_mode": mode}
        )
        for number, (driver, mode) in enumerate((first, second), 1)
    ]
    if not text:
        made[1].check_beside(made)
        return
    with pytest.raises(Forbidden, match=text):
        made[1].check_beside(made)
