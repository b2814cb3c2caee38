"""`sampan push` beside `docker push`, on the same engine and registry."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, SampanEngine
from support.registries import Registry

pytestmark = [pytest.mark.root, pytest.mark.docker_cli]

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")


@pytest.fixture
def sampan_cli(sampan: SampanEngine) -> DockerCLI:
    return sampan.cli(SAMPAN)


@pytest.fixture
def place(sampan: SampanEngine, registry: Registry) -> Iterator[str]:
    """A repository with two tags, of an image with one layer."""
    name = f"{registry.address}/team/app"
    for tag in ("1", "2"):
        assert sampan.post(f"/images/{IMAGE}/tag", repo=name, tag=tag).status == 201
    yield name
    for tag in ("1", "2"):
        sampan.delete(f"/images/{name}:{tag}")


@pytest.fixture
def target(sampan: SampanEngine) -> SampanEngine:
    return sampan


def test_the_same_lines(
    place: str, registry: Registry, sampan_cli: DockerCLI, newest_docker: DockerCLI
) -> None:
    for arguments in (
        (f"{place}:1",),
        (f"{place}:1",),
        ("-q", f"{place}:2"),
        ("-a", place),
        ("--all-tags", "--quiet", place),
    ):
        theirs = newest_docker("push", *arguments)
        registry_after = registry.tags("team/app")
        if theirs.out.count("Pushed"):
            registry.clear()
        ours = sampan_cli("push", *arguments)
        assert ours.out == theirs.out
        assert registry.tags("team/app") == registry_after


def test_the_same_refusals(place: str, sampan_cli: DockerCLI, newest_docker: DockerCLI) -> None:
    for arguments in (
        (place,),
        (f"{place}:none",),
        (f"{place}none:1",),
        ("-a", f"{place}:1"),
        (f"{place}@sha256:{'a' * 64}",),
        ("UPPER",),
        ("a:b:c",),
        ("-q", "a b"),
    ):
        theirs, ours = newest_docker.fails("push", *arguments), sampan_cli.fails("push", *arguments)
        assert (ours.out, ours.code) == (theirs.out, theirs.code)
        assert ours.err.splitlines()[0] == theirs.err.splitlines()[0]


def test_a_platform_that_the_image_is_not_for(
    place: str, sampan_cli: DockerCLI, newest_docker: DockerCLI
) -> None:
    arguments = ("push", "--platform", "linux/s390x", f"{place}:1")
    theirs, ours = newest_docker.fails(*arguments), sampan_cli.fails(*arguments)
    assert ours.err.splitlines()[0] == theirs.err.splitlines()[0]


def test_on_a_terminal_it_draws(place: str, sampan_cli: DockerCLI) -> None:
    """A row for the layer, then the result; nothing of what is for programs."""
    with sampan_cli.terminal("push", f"{place}:1") as terminal:
        assert terminal.wait() == 0
        screen = terminal.screen.decode()
    assert "Pushed" in screen and "1: digest: sha256:" in screen
    assert screen.endswith("\r\n") and not screen.endswith("\r\n\r\n")
