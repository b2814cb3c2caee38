"""Which names lead where: the rules, as values."""

from __future__ import annotations

from sampan.network.names.table import NetworkNames, Place, View


def place(*names: str, host: int = 1) -> Place:
    return Place(names, bytes((10, 0, 0, host)), b"")


def network(name: str = "net", **containers: Place) -> NetworkNames:
    made = NetworkNames(name)
    for container_id, each in containers.items():
        made.put(container_id, each)
    return made


def view(*networks: NetworkNames, links: dict[str, str] | None = None) -> View:
    made = View()
    made.networks = list(networks)
    made.links = [links or {} for _ in networks]
    return made


def hosts(seen: View, name: str) -> list[int]:
    return [found.address[3] for found in seen.find(name)]


def test_names_and_aliases() -> None:
    seen = view(network(a=place("Web", "www", "0123456789ab", host=7)))
    for name in ("web", "www", "0123456789ab", "web.net"):
        assert hosts(seen, name) == [7], name
    for name in ("we", "web.other", "net", "", "web.net.net"):
        assert hosts(seen, name) == [], name


def test_names_with_dots_are_tried_whole_first() -> None:
    first = network("c", a=place("a.b.c", host=1), b=place("a.b", host=2))
    second = network("b.c", d=place("a", host=3))
    assert hosts(view(first, second), "a.b.c") == [1]
    first.drop("a")
    assert hosts(view(first, second), "a.b.c") == [2]
    first.drop("b")
    assert hosts(view(first, second), "a.b.c") == [3]


def test_the_first_network_that_knows_a_name_has_it() -> None:
    assert hosts(view(network(), network("two", b=place("x", host=2))), "x") == [2]
    assert hosts(view(network(a=place("x")), network("two", b=place("x", host=2))), "x") == [1]


def test_several_containers_behind_one_alias_in_turn() -> None:
    seen = view(network(**{f"c{n}": place(f"c{n}", "all", host=n) for n in range(3)}))
    answers = [hosts(seen, "all") for _ in range(6)]
    assert all(sorted(answer) == [0, 1, 2] for answer in answers)
    assert {answer[0] for answer in answers[:3]} == {0, 1, 2}
    assert answers[:3] == answers[3:]


def test_links_come_first_and_hide_names() -> None:
    net = network(a=place("db", host=1), b=place("other", host=2))
    assert hosts(view(net, links={"db": "other"}), "db") == [2]
    net.drop("b")
    assert hosts(view(net, links={"db": "other"}), "db") == []


def test_reverse() -> None:
    net = network("net", a=place("web", "www"))
    assert view(net).name_of(bytes((10, 0, 0, 1))) == "web.net"
    assert view(net).name_of(bytes((10, 0, 0, 2))) == ""
    net.put("a", place("new"))
    assert view(net).name_of(bytes((10, 0, 0, 1))) == "new.net"
    net.put("b", place("later"))  # the address has gone over before the former one was dropped
    net.drop("a")
    assert view(net).name_of(bytes((10, 0, 0, 1))) == "later.net"
    assert hosts(view(net), "web") == []
