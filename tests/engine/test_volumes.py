"""Volumes over a directory and a database: what a crash leaves, what names are taken."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sampan.engine.container import BoundMount
from sampan.engine.events import EventBus
from sampan.engine.volumes import Volumes
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.state.database import Database
from sampan.state.volumes import VolumeRows


class World:
    """The volumes of one data root, opened as often as a test likes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.containers: list[Any] = []
        self.database = Database(str(root / "engine.db"))

    def open(self) -> Volumes:
        volumes = Volumes(
            VolumeRows(self.database),
            self.containers,  # type: ignore[arg-type]
            EventBus(),
            directory=str(self.root / "volumes"),
            places=str(self.root / "places"),
        )
        volumes.open()
        volumes.tidy()
        return volumes

    def use(self, name: str, *, running: bool = False) -> Any:
        container = SimpleNamespace(
            id="c" * 64,
            record=SimpleNamespace(mounts=[mount(name)]),
            state=SimpleNamespace(running=running),
        )
        self.containers.append(container)
        return container


def mount(name: str, destination: str = "/d") -> BoundMount:
    return BoundMount(type="volume", source="", destination=destination, name=name)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_kept_over_a_restart(world: World) -> None:
    volume = world.open().create("kept", labels={"a": "b"}, options={})
    Path(volume.path, "f").write_text("x")
    again = world.open().get("kept")
    assert again.document() == volume.document()
    assert Path(again.path, "f").read_text() == "x"


async def test_what_a_crash_left_goes(world: World) -> None:
    """A directory without a row, a deletion under way, content half copied."""
    volumes = world.open()
    staged = Path(volumes.create("kept").path).parent / ".copying"
    staged.mkdir()
    for name in ("rowless/_data", ".deadbeef/_data"):
        (world.root / "volumes" / name).mkdir(parents=True)
    world.open()
    assert os.listdir(world.root / "volumes") == ["kept"]
    assert not staged.exists()


async def test_removed(world: World) -> None:
    volumes = world.open()
    Path(volumes.create("gone").path, "f").write_text("x")
    volumes.remove("gone")
    with pytest.raises(NotFound, match="get gone: no such volume"):
        volumes.get("gone")
    assert volumes.create("gone").path
    await volumes.close()
    assert os.listdir(volumes.get("gone").path) == []
    assert os.listdir(world.root / "volumes") == ["gone"]
    world.use("gone")
    with pytest.raises(Conflict, match="volume is in use"):
        volumes.remove("gone", force=True)


async def test_anonymous_ones_only(world: World) -> None:
    volumes = world.open()
    anonymous, named = volumes.create(), volumes.create("named")
    assert anonymous.record.labels == {"com.docker.volume.anonymous": ""}
    volumes.remove_anonymous([mount(anonymous.name), mount("named"), mount("never")])
    assert volumes.list({}) == [named]
    await volumes.close()


async def test_filled_once_and_whole(world: World, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d/f").write_text("x")
    volumes = world.open()
    volume = volumes.create("vv")
    await volumes.fill(mount("vv", "/nosuch"), [str(tree)])
    assert os.listdir(volume.path) == []
    before = os.stat(volume.path).st_ino
    await volumes.fill(mount("vv"), [str(tree)])
    assert (os.listdir(volume.path), os.stat(volume.path).st_ino != before) == (["f"], True)
    os.unlink(f"{volume.path}/f")
    Path(volume.path, "own").write_text("")
    await volumes.fill(mount("vv"), [str(tree)])
    assert os.listdir(volume.path) == ["own"]


async def test_filled_in_place_under_a_running_container(world: World, tmp_path: Path) -> None:
    """It has the directory itself mounted."""
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d/f").write_text("x")
    volumes = world.open()
    volume = volumes.create("vv")
    world.use("vv", running=True)
    before = os.stat(volume.path).st_ino
    await volumes.fill(mount("vv"), [str(tree)])
    assert (os.listdir(volume.path), os.stat(volume.path).st_ino) == (["f"], before)


@pytest.mark.parametrize("name", ["..", "a/b", "-x", "x" * 256, "a\nb", ".hidden"])
async def test_bad_names(world: World, name: str) -> None:
    with pytest.raises(InvalidArgument):
        world.open().create(name)
