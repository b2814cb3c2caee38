"""`sampan search` and `sampan manifest inspect` beside docker's."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from support.command import DockerCLI, docker_clis
from support.engines import SampanEngine
from support.faulty_proxy import Answer, FaultyProxy
from support.registries import PASSWORD, USER, Registry
from support.registry_images import layer, put_image, put_index

pytestmark = [pytest.mark.root, pytest.mark.docker_cli]

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")
FOUND = {
    "results": [
        {"name": "one", "description": "The first\nof all", "star_count": 30, "is_official": True},
        {"name": "a/b", "description": "long " * 30, "star_count": 2, "is_automated": True},
        {"name": "c/d", "description": None, "star_count": 0},
    ]
}


@pytest.fixture
def sampan_cli(sampan: SampanEngine) -> DockerCLI:
    return sampan.cli(SAMPAN)


@pytest.fixture
def docker_cli(sampan: SampanEngine) -> DockerCLI:
    path = docker_clis().get("28.2.2")
    if path is None:
        pytest.skip("needs docker 28.2.2")
    return sampan.cli(path)


@pytest.fixture
def index(registry: Registry) -> Iterator[str]:
    with closing(FaultyProxy(registry)) as proxy:
        body = json.dumps(FOUND).encode()
        proxy.fault(Answer(200, {}, body), path="^/v1/search", times=None)
        yield proxy.address


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--no-trunc"],
        ["--limit", "2"],
        ["--filter", "is-official=true"],
        ["-f", "stars=2"],
        ["--format", "json"],
        ["--format", "{{.Name}}|{{.Description}}|{{.StarCount}}|{{.IsOfficial}}"],
        ["--format", "table {{.Name}}\\t{{.IsOfficial}}"],
        ["--limit", "101"],
        ["--filter", "bad=1"],
        ["--filter", "bad"],
    ],
    ids=" ".join,
)
def test_search(sampan_cli: DockerCLI, docker_cli: DockerCLI, index: str, words: list[str]) -> None:
    ours = sampan_cli("search", *words, f"{index}/x", check=False)
    theirs = docker_cli("search", *words, f"{index}/x", check=False)
    assert (ours.code, ours.out) == (theirs.code, theirs.out)
    assert ours.err.splitlines()[:1] == theirs.err.splitlines()[:1]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("words", [[], ["-v"]], ids=["plain", "verbose"])
def test_manifest_inspect(
    sampan_cli: DockerCLI, docker_cli: DockerCLI, registry: Registry, old: bool, words: list[str]
) -> None:
    one = put_image(registry, "a", "one", [layer(1000), layer(2000)], docker=old)
    two = put_image(registry, "a", "two", [layer(3000)], docker=old, platform=("linux", "arm64"))
    put_index(registry, "a", "both", {"linux/amd64": one, "linux/arm64/v8": two}, docker=old)
    for tag in ("one", "two", "both"):
        name = f"{registry.address}/a:{tag}"
        ours = sampan_cli("manifest", "inspect", *words, name)
        theirs = docker_cli(
            "manifest", "inspect", "--insecure", *words, name,
            env={"DOCKER_CLI_EXPERIMENTAL": "enabled"},
        )  # fmt: skip
        assert ours.out == theirs.out


def test_no_manifest(sampan_cli: DockerCLI, registry: Registry) -> None:
    name = f"{registry.address}/none"
    assert sampan_cli.fails("manifest", "inspect", name).err == f"no such manifest: {name}:latest\n"


def test_credentials_go_along(sampan_cli: DockerCLI, password_registry: Registry) -> None:
    """Of login, for pull, manifest inspect and search alike."""
    address = password_registry.address
    put_image(password_registry, "a", "one", [layer(1000)])
    name = f"{address}/a:one"
    assert "no basic auth credentials" in sampan_cli.fails("manifest", "inspect", name).err
    sampan_cli("login", "-u", USER, "--password-stdin", address, stdin=PASSWORD)
    assert json.loads(sampan_cli("manifest", "inspect", name).out)["schemaVersion"] == 2
    sampan_cli("pull", "-q", name)
    sampan_cli("rmi", name)
    sampan_cli("logout", address)
    assert "no basic auth credentials" in sampan_cli.fails("pull", "-q", name).err
