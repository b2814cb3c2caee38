"""What inspect shows, against the API's description and what dockerd shows."""

from __future__ import annotations

import os
import pathlib
import re

import pytest

from sampan.linux.netlink import VethEndpoint
from sampan.network import inspect
from sampan.network.driver import Attachment
from sampan.network.unbridged import host_network, none_network

SPEC = pathlib.Path(__file__).parents[3] / "shared/specs/docker/engine-api-v1.55.yaml"

ATTACHMENT = Attachment(
    container_id="c" * 64,
    network_id="n" * 64,
    network_name="bridge",
    endpoint_id="e" * 64,
    endpoint=VethEndpoint(
        host_name="veth1",
        bridge="sampan0",
        bridge_index=3,
        mac="02:42:ac:1e:00:02",
        addresses=["172.30.0.2/16", "fd00::2/64"],
        gateway="172.30.0.1",
        gateway6="fd00::1",
    ),
)


@pytest.fixture(scope="module")
def definitions() -> dict[str, set[str]]:
    """Names of the properties of each definition, read off the description's indentation."""
    if not os.path.exists(SPEC):
        pytest.skip(f"needs {SPEC}")
    found: dict[str, set[str]] = {}
    name, inside = "", False
    for line in SPEC.read_text().partition("\ndefinitions:\n")[2].splitlines():
        if match := re.match(r"(\s*)([A-Za-z0-9]+):", line):
            indent, word = len(match[1]), match[2]
            if indent == 2:
                name, inside = word, False
                found[name] = set()
            elif indent == 4:
                inside = word == "properties"
            elif indent == 6 and inside:
                found[name].add(word)
    return found


def test_a_running_containers_settings(definitions: dict[str, set[str]]) -> None:
    shown = inspect.endpoint_settings(ATTACHMENT, configured={"Aliases": ["web"]})
    assert set(shown) == definitions["EndpointSettings"]
    assert shown["Aliases"] == ["web"]
    assert (shown["IPAddress"], shown["IPPrefixLen"]) == ("172.30.0.2", 16)
    assert (shown["GlobalIPv6Address"], shown["GlobalIPv6PrefixLen"]) == ("fd00::2", 64)
    assert (shown["Gateway"], shown["IPv6Gateway"]) == ("172.30.0.1", "fd00::1")
    assert (shown["EndpointID"], shown["NetworkID"]) == ("e" * 64, "n" * 64)

    settings = inspect.network_settings({"bridge": shown}, sandbox_id="s", sandbox_key="/k")
    assert definitions["NetworkSettings"] <= set(settings)
    assert settings["IPAddress"] == "172.30.0.2"
    assert settings["MacAddress"] == "02:42:ac:1e:00:02"
    assert settings["Networks"]["bridge"] == shown


def test_a_stopped_containers_settings() -> None:
    shown = inspect.endpoint_settings(None, network_id="n" * 64)
    filled = {key: value for key, value in shown.items() if value}
    assert filled == {"NetworkID": "n" * 64}
    settings = inspect.network_settings({"bridge": shown})
    assert settings["IPAddress"] == "" and settings["Ports"] == {}


def test_the_flat_fields_are_the_default_bridges_alone() -> None:
    """As dockerd: a container on `host` or `none` has an endpoint, but not in the flat fields."""
    shown = inspect.endpoint_settings(none_network().attach("c"))
    assert len(shown["EndpointID"]) == 64
    settings = inspect.network_settings({"none": shown})
    assert settings["EndpointID"] == "" and settings["Networks"]["none"] == shown


def test_a_network_and_its_containers(definitions: dict[str, set[str]]) -> None:
    network = host_network()
    network.attach("c" * 64)
    shown = inspect.network_resource(network, created="2026-11-23T00:00:00Z", names={"c" * 64: "x"})
    assert (shown["Name"], shown["Driver"], shown["Id"]) == ("host", "host", network.id)
    assert shown["IPAM"] == {"Driver": "default", "Options": None, "Config": []}
    assert shown["Containers"]["c" * 64]["Name"] == "x"
    assert shown["Containers"]["c" * 64]["IPv4Address"] == ""
    assert set(shown) - {"Containers"} <= definitions["Network"]
    assert inspect.network_resource(network, created="")["Containers"] == {}
