"""Mounts of type image: dockerd since 28; API 1.48."""

from __future__ import annotations

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine

pytestmark = pytest.mark.usefixtures("only_sampan")


@pytest.mark.vm
def test_image_in_a_container(target: Engine, newest_docker: DockerCLI, unused_name: str) -> None:
    """Read-only, whole or a place in it, also over a restart; the image stays while it is mounted."""
    layer = target.post("/containers/create", {"Image": IMAGE, "Cmd": ["sh", "-c", "mkdir /d; echo text > /d/f"]}).json["Id"]  # fmt: skip
    newest_docker("start", "-a", layer)
    newest_docker("commit", layer, unused_name)
    newest_docker("rm", layer)
    newest_docker(
        "run", "-d", "--name", unused_name, "--network", "none",
        "--mount", f"type=image,source={unused_name},target=/whole",
        "--mount", f"type=image,source={IMAGE},target=/one",
        "--mount", f"type=image,source={unused_name},target=/part,image-subpath=d", IMAGE, "sleep", "100",
    )  # fmt: skip

    def look() -> None:
        shown = newest_docker("exec", unused_name, "cat", "/whole/d/f", "/part/f").out
        assert shown == "text\ntext\n"
        assert "sh" in newest_docker("exec", unused_name, "ls", "/one/bin").out.split()
        for path in ("/whole/x", "/one/x", "/part/x"):
            refused = newest_docker("exec", unused_name, "touch", path, check=False)
            assert "Read-only file system" in refused.err

    look()
    newest_docker("restart", "-t", "0", unused_name)
    look()
    mounts = target.get(f"/containers/{unused_name}/json").json["Mounts"]
    assert {(mount["Type"], mount["Source"], mount["RW"]) for mount in mounts} == {
        ("image", unused_name, False),
        ("image", IMAGE, False),
    }
    identity = target.get(f"/images/{unused_name}/json").json["Id"]
    assert target.delete(f"/images/{unused_name}").status == 409
    assert target.delete(f"/images/{unused_name}", force=True).status == 200  # of its name only
    assert target.delete(f"/images/{identity}", force=True).status == 409
    newest_docker("restart", "-t", "0", unused_name)
    look()
    newest_docker("rm", "-f", unused_name)
    assert target.delete(f"/images/{identity}").status == 200


@pytest.mark.parametrize(
    ("mount", "version", "status", "text"),
    [
        ({"Source": "nosuch"}, "1.55", 404, "No such image: nosuch:latest"),
        ({"Source": ""}, "1.55", 400, "field Source must not be empty"),
        ({"Source": IMAGE}, "1.47", 400, 'Mount type "Image" needs API v1.48 or newer'),
    ],
)
def test_refused(
    target: Engine, mount: dict[str, str], version: str, status: int, text: str
) -> None:
    host = {"Mounts": [{"Type": "image", "Target": "/x", **mount}]}
    body = {"Image": IMAGE, "HostConfig": host}
    answer = target.request("POST", f"/v{version}/containers/create", body=body)
    assert (answer.status, text in answer.message) == (status, True)


def test_a_place_that_is_not_there(target: Engine) -> None:
    options = {
        "Type": "image",
        "Source": IMAGE,
        "Target": "/x",
        "ImageOptions": {"Subpath": "nosuch"},
    }
    created = target.post(
        "/containers/create", {"Image": IMAGE, "HostConfig": {"Mounts": [options]}}
    )
    answer = target.post(f"/containers/{created.json['Id']}/start")
    assert (answer.status, "cannot access path nosuch in image" in answer.message) == (404, True)
