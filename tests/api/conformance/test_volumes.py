"""Volumes through the docker command: made, mounted, filled, listed, removed."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine

pytestmark = pytest.mark.usefixtures("no_volumes_left")

FILLED = "filled:test"


@pytest.fixture
def filled(docker: DockerCLI, target: Engine) -> str:
    """An image with something in the place of its volume, behind a link."""
    script = (
        "mkdir -p /real/data/sub && echo hi >/real/data/f && ln -s f /real/data/l && ln /real/data/f "
        "/real/data/h && chown -R 1000:1001 /real/data && chmod 750 /real/data && chmod 4711 "
        "/real/data/f && ln -s real /data && touch -d @1000000000 /real/data/sub"
    )
    docker("run", "--name", "maker", IMAGE, "sh", "-c", script)
    docker("commit", "-c", "VOLUME /data/data", "maker", FILLED)
    docker("rm", "maker")
    return FILLED


def mounts(docker: DockerCLI, name: str) -> dict[str, Any]:
    found = json.loads(docker("inspect", name, "-f", "{{json .Mounts}}").line)
    return {mount["Destination"]: mount for mount in found}


def volume(docker: DockerCLI, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(docker("volume", "inspect", name).out)[0]
    return document


@pytest.mark.vm
def test_keeps_what_a_container_wrote(docker: DockerCLI) -> None:
    docker("run", "--rm", "-v", "kept:/data", IMAGE, "sh", "-c", "echo one >/data/f")
    assert docker("run", "--rm", "-v", "kept:/other:ro", IMAGE, "cat", "/other/f").out == "one\n"
    result = docker("run", "--rm", "-v", "kept:/d:ro", IMAGE, "touch", "/d/x", check=False)
    assert "Read-only file system" in result.err
    found = volume(docker, "kept")
    assert (found["Driver"], found["Scope"], found["Options"]) == ("local", "local", None)


def test_inspect(docker: DockerCLI, unused_name: str) -> None:
    docker("create", "--name", unused_name, "-v", "a1:/a", "-v", "b1:/b:ro,nocopy", "-v", "/c",
           "--mount", "type=volume,source=d1,target=/d,readonly", IMAGE)  # fmt: skip
    found = mounts(docker, unused_name)
    for path, name, mode, writable in (
        ("/a", "a1", "z", True),
        ("/b", "b1", "ro,nocopy", False),
        ("/d", "d1", "z", False),
    ):
        mount = found[path]
        assert (mount["Type"], mount["Name"], mount["Driver"]) == ("volume", name, "local")
        assert (mount["Mode"], mount["RW"], mount["Propagation"]) == (mode, writable, "")
        assert mount["Source"] == volume(docker, name)["Mountpoint"]
    assert len(found["/c"]["Name"]) == 64
    shown = docker("ps", "-a", "--format", "{{.LocalVolumes}}").line
    assert shown == "4"
    assert docker("ps", "-aq", "--filter", "volume=a1").out
    assert not docker("ps", "-aq", "--filter", "volume=other").out


@pytest.mark.vm
def test_filled_from_the_image(docker: DockerCLI, filled: str) -> None:
    """With owners, modes, links and times; also through a link of the image's; only while empty."""
    look = "cd /data/data; stat -c '%n %u:%g %a %h' . f h l sub; readlink l; stat -c %Y sub; cat f"
    want = docker(
        "run", "--rm", "--entrypoint", "sh", "-v", "n1:/data/data", filled, "-c", look
    ).out
    assert want.splitlines() == [
        ". 1000:1001 750 3", "f 1000:1001 4711 2", "h 1000:1001 4711 2", "l 1000:1001 777 1",
        "sub 1000:1001 755 2", "f", "1000000000", "hi",
    ]  # fmt: skip
    docker("run", "--rm", "-v", "n1:/x", IMAGE, "rm", "/x/f")
    assert "f\n" not in docker("run", "--rm", "-v", "n1:/data/data", filled, "ls", "/data/data").out
    empty = docker("run", "--rm", "-v", "n2:/data/data:nocopy", filled, "ls", "/data/data").out
    assert empty == ""


def test_an_images_own_volume(docker: DockerCLI, filled: str, unused_name: str) -> None:
    docker("run", "--name", unused_name, filled, "ls", "/data/data")
    assert docker("logs", unused_name).out.split() == ["f", "h", "l", "sub"]
    assert list(mounts(docker, unused_name)) == ["/data/data"]
    assert len(docker("volume", "ls", "-q").out.split()) == 1
    docker("rm", unused_name)
    assert len(docker("volume", "ls", "-q").out.split()) == 1
    docker("run", "--rm", filled, "true")
    assert len(docker("volume", "ls", "-q").out.split()) == 1


def test_anonymous_ones_go_with_their_container(docker: DockerCLI, unused_name: str) -> None:
    docker("create", "--name", unused_name, "-v", "/a", "-v", "named:/b", IMAGE)
    docker("rm", "-v", unused_name)
    assert docker("volume", "ls", "-q").out.split() == ["named"]
    docker("create", "--name", unused_name, "-v", "/a", IMAGE)
    docker("create", "--name", unused_name + "2", "--volumes-from", unused_name, IMAGE)
    docker("rm", "-v", unused_name)
    assert len(docker("volume", "ls", "-q").out.split()) == 2


def test_volumes_from(docker: DockerCLI, unused_name: str) -> None:
    docker(
        "run",
        "--name",
        unused_name,
        "-v",
        "s1:/s",
        "-v",
        "/anon",
        IMAGE,
        "touch",
        "/s/x",
        "/anon/y",
    )
    run = ("run", "--rm", "--volumes-from")
    assert docker(*run, unused_name, IMAGE, "ls", "/s", "/anon").out.split() == [
        "/anon:", "y", "/s:", "x"]  # fmt: skip
    result = docker(*run, f"{unused_name}:ro", IMAGE, "touch", "/s/z", check=False)
    assert "Read-only file system" in result.err
    own = docker(*run, unused_name, "-v", "other:/s", IMAGE, "ls", "/s").out
    assert own == ""
    assert "No such container: nosuch" in docker.fails(*run, "nosuch", IMAGE, "true").err


def test_options_of_the_local_driver(docker: DockerCLI) -> None:
    """Mounted while a container that uses it runs, for all of them the same."""
    docker(
        "volume",
        "create",
        "-o",
        "type=tmpfs",
        "-o",
        "device=tmpfs",
        "-o",
        "o=size=1m,uid=1000",
        "mem",
    )
    docker("run", "-d", "--name", "first", "-v", "mem:/m", IMAGE, "sleep", "600")
    docker("exec", "first", "touch", "/m/here")
    shown = docker(
        "run", "--rm", "-v", "mem:/m", IMAGE, "sh", "-c", "ls /m; stat -c %u /m; df -k /m | tail -1"
    )
    assert shown.out.split()[:2] == ["here", "1000"]
    assert shown.out.split()[3] == "1024"
    docker("rm", "-f", "first")
    assert docker("run", "--rm", "-v", "mem:/m", IMAGE, "ls", "/m").out == ""
    docker("volume", "create", "-o", "type=nosuch", "-o", "device=x", "bad")
    result = docker.fails("run", "--rm", "-v", "bad:/m", IMAGE, "true")
    assert "failed to mount local volume: mount x:" in result.err
    assert "no such device" in result.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("create", "--driver", "nosuch", "x1"), 'error looking up volume plugin nosuch: plugin "nosuch" not found'),
        (("create", "bad/name"), "includes invalid characters for a local volume name"),
        (("create", "-o", "foo=bar", "xx"), 'create xx: invalid option: "foo"'),
        (("create", "-o", "type=tmpfs", "xx"), 'create xx: missing required option: "device"'),
        (("create", "-o", "device=tmpfs", "xx"), 'create xx: missing required option: "type"'),
        (("create", "x"), "volume name is too short"),
        (("rm", "nosuch"), "o such volume"),
        (("inspect", "nosuch"), "o such volume"),
        (("ls", "-f", "nosuch=1"), "nvalid filter 'nosuch'"),
    ],
)  # fmt: skip
def test_refusals(docker: DockerCLI, arguments: tuple[str, ...], text: str) -> None:
    assert text in docker.fails("volume", *arguments).err


def test_one_in_use_stays(docker: DockerCLI, unused_name: str) -> None:
    identity = docker("create", "--name", unused_name, "-v", "used:/u", IMAGE).line
    refused = docker.fails("volume", "rm", "used").err
    assert f"remove used: volume is in use - [{identity}]" in refused
    docker("rm", unused_name)
    assert docker("volume", "rm", "used").line == "used"


def test_lists(docker: DockerCLI, unused_name: str) -> None:
    docker("volume", "create", "--label", "a=b", "l1")
    docker("volume", "create", "l2")
    docker("create", "--name", unused_name, "-v", "l2:/x", IMAGE)

    def names(*filters: str) -> list[str]:
        return docker("volume", "ls", "-q", *[w for f in filters for w in ("-f", f)]).out.split()

    assert names() == ["l1", "l2"]
    assert names("dangling=true") == ["l1"]
    assert names("dangling=false") == ["l2"]
    assert names("label=a=b") == names("label=a") == ["l1"]
    assert names("name=2") == ["l2"]
    assert names("driver=local", "name=l") == ["l1", "l2"]
    assert names("driver=other") == []


def test_events(target: Engine, docker: DockerCLI) -> None:
    since = time.time()
    docker("run", "--rm", "-v", "ev:/e", IMAGE, "true")
    docker("volume", "rm", "ev")
    answer = target.get(
        "/events", since=f"{since:.9f}", until=f"{time.time():.9f}", filters={"type": ["volume"]}
    )
    told = [json.loads(line) for line in answer.body.splitlines()]
    assert [event["Action"] for event in told] == ["create", "mount", "unmount", "destroy"]
    attributes = told[1]["Actor"]["Attributes"]
    assert (attributes["destination"], attributes["read/write"]) == ("/e", "true")


def test_prune(docker: DockerCLI, target: Engine) -> None:
    """The old API's: all that nobody uses."""
    docker(
        "run", "--rm", "-v", "p1:/p", IMAGE, "sh", "-c", "dd if=/dev/zero of=/p/f bs=1k count=100"
    )
    docker("create", "-v", "p2:/p", IMAGE)
    answer = target.post("/v1.41/volumes/prune", {})
    assert answer.status == 200
    assert answer.json["VolumesDeleted"] == ["p1"]
    assert answer.json["SpaceReclaimed"] >= 100 << 10


def test_prune_leaves_names_alone(docker: DockerCLI, target: Engine, only_sampan: None) -> None:
    """Since API 1.42."""
    docker("volume", "create", "kept")
    anonymous = docker("volume", "create").line
    assert target.post("/v1.51/volumes/prune", {}).json["VolumesDeleted"] == [anonymous]
    everything = target.request("POST", "/v1.51/volumes/prune", query={"filters": '{"all":["1"]}'})
    assert everything.json["VolumesDeleted"] == ["kept"]


def test_a_place_in_a_volume(newest_docker: DockerCLI, only_sampan: None) -> None:
    """Which whoever writes to the volume cannot lead out of it."""
    docker = newest_docker
    docker(
        "run",
        "--rm",
        "-v",
        "sub:/v",
        IMAGE,
        "sh",
        "-c",
        "mkdir /v/in; echo x >/v/in/f; ln -s / /v/out",
    )
    mount = "type=volume,source=sub,target=/m,volume-subpath="
    assert docker("run", "--rm", "--mount", mount + "in", IMAGE, "cat", "/m/f").out == "x\n"
    out = docker("run", "--rm", "--mount", mount + "out", IMAGE, "ls", "/m").out
    assert out.split() == ["in", "out"]
    assert (
        "cannot access path"
        in docker.fails("run", "--rm", "--mount", mount + "no", IMAGE, "true").err
    )


def test_disk_usage(docker: DockerCLI, target: Engine) -> None:
    docker(
        "run", "--rm", "-v", "d1:/p", IMAGE, "sh", "-c", "dd if=/dev/zero of=/p/f bs=1k count=100"
    )
    docker("create", "-v", "d2:/p", IMAGE)
    found = {
        item["Name"]: item["UsageData"] for item in target.get("/v1.41/system/df").json["Volumes"]
    }
    assert found == {"d1": {"RefCount": 0, "Size": 102400}, "d2": {"RefCount": 1, "Size": 0}}
    [line] = [line for line in docker("system", "df").out.splitlines() if "Local Volumes" in line]
    assert line.split()[2:6] == ["2", "1", "102.4kB", "102.4kB"]
