"""Images through the docker command: load, save, import, tag, inspect, remove."""

from __future__ import annotations

import io
import json
import os
import secrets
import subprocess
import tarfile
from collections.abc import Iterator

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine
from support.rootfs import image_tar, rootfs_tar


def layer(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def repository(target: Engine) -> Iterator[str]:
    """A repository name of the test's own; its images are gone afterwards."""
    name = "r" + secrets.token_hex(4)
    yield name
    target.remove_containers()
    for image in target.get("/images/json", all=True).json:
        for reference in image["RepoTags"] or []:
            if name in reference:
                target.delete(f"/images/{reference}", force=True)


def archive(repository: str) -> bytes:
    layers = [
        rootfs_tar(),
        layer({"etc/one": "1", "etc/two": "2"}),
        layer({"etc/.wh.one": "", "etc/two": "two"}),
    ]
    config = {
        "Cmd": ["cat", "/etc/two"],
        "Env": ["PATH=/bin", "X=from image"],
        "WorkingDir": "/etc",
        "Labels": {"a": "b"},
    }
    return image_tar(f"{repository}:v1", layers, config)


def test_load_and_run(docker: DockerCLI, repository: str) -> None:
    assert docker("load", stdin=archive(repository)).line == f"Loaded image: {repository}:v1"
    assert docker("run", "--rm", f"{repository}:v1").out == "two"
    assert (
        docker(
            "run", "--rm", f"{repository}:v1", "sh", "-c", "echo $X; pwd; ls one", check=False
        ).out
        == "from image\n/etc\n"
    )


def test_load_from_a_compressed_file(docker: DockerCLI, target: Engine, repository: str) -> None:
    path = os.path.join(target.directory, "image.tar")
    with open(path, "wb") as file:
        file.write(archive(repository))
    subprocess.run(["gzip", "-f", path], check=True)
    assert docker("load", "-q", "-i", path + ".gz").line == f"Loaded image: {repository}:v1"
    os.unlink(path + ".gz")


def test_save_and_load_keep_the_id(docker: DockerCLI, target: Engine, repository: str) -> None:
    docker("load", stdin=archive(repository))
    before = docker("images", "-q", "--no-trunc", repository).line
    path = os.path.join(target.directory, "saved.tar")
    docker("save", "-o", path, f"{repository}:v1")
    docker("rmi", f"{repository}:v1")
    assert docker("images", "-q", repository).out == ""
    assert f"Loaded image: {repository}:v1" in docker("load", "-i", path).out
    os.unlink(path)
    assert docker("images", "-q", "--no-trunc", repository).line == before
    assert docker("run", "--rm", f"{repository}:v1").out == "two"


def test_skopeo_reads_what_save_writes(docker: DockerCLI, target: Engine, repository: str) -> None:
    path = os.path.join(target.directory, "saved.tar")
    docker("tag", IMAGE, f"{repository}:v1")
    docker("save", "-o", path, f"{repository}:v1")
    done = subprocess.run(
        ["skopeo", "inspect", "--config", f"docker-archive:{path}"], capture_output=True, check=True
    )
    assert json.loads(done.stdout)["config"]["Cmd"] == ["sh"]
    os.unlink(path)


def test_import(docker: DockerCLI, repository: str) -> None:
    identity = docker(
        "import",
        "-c",
        'CMD ["echo", "hi"]',
        "-c",
        "ENV PATH=/bin",
        "-m",
        "made",
        "-",
        f"{repository}:i",
        stdin=rootfs_tar(),
    ).line
    assert identity.startswith("sha256:")
    assert docker("run", "--rm", f"{repository}:i").out == "hi\n"
    found = json.loads(docker("image", "inspect", f"{repository}:i").out)[0]
    assert (found["Id"], found["Comment"], found["Os"]) == (identity, "made", "linux")
    assert found["Config"]["Cmd"] == ["echo", "hi"]
    assert len(found["RootFS"]["Layers"]) == 1


def test_images_table(docker: DockerCLI, repository: str) -> None:
    docker("tag", IMAGE, f"{repository}:t")
    head, line = docker("images", repository).out.splitlines()
    assert head.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert line.split()[:2] == [repository, "t"]
    assert docker("images", "-q", "--filter", f"reference={repository}:*").line == line.split()[2]
    assert docker("images", "-q", "--filter", "label=nosuch").out == ""


def test_tag_and_remove(docker: DockerCLI, repository: str) -> None:
    docker("import", "-", f"{repository}:a", stdin=rootfs_tar())
    docker("tag", f"{repository}:a", f"{repository}:b")
    assert docker("rmi", f"{repository}:a").line == f"Untagged: {repository}:a"
    lines = docker("rmi", f"{repository}:b").out.splitlines()
    assert lines[0] == f"Untagged: {repository}:b"
    assert {line.split(":")[0] for line in lines[1:]} == {"Deleted"}
    assert f"No such image: {repository}:b" in docker.fails("rmi", f"{repository}:b").err


@pytest.mark.parametrize(("reference", "message"), [
    ("Upper:tag", "must be lowercase"),
    ("a:b:c", "invalid reference format"),
    ("", "invalid reference format"),
])  # fmt: skip
def test_bad_references(docker: DockerCLI, reference: str, message: str) -> None:
    assert message in docker.fails("tag", IMAGE, reference).err


def test_remove_of_an_image_in_use(docker: DockerCLI, repository: str) -> None:
    docker("import", "-c", 'CMD ["sh"]', "-", f"{repository}:u", stdin=rootfs_tar())
    identity = docker("create", f"{repository}:u").line
    err = docker.fails("rmi", f"{repository}:u").err
    assert (
        f'unable to remove repository reference "{repository}:u" (must force) - container {identity[:12]} is using its referenced image'
        in err
    )
    docker("rmi", "-f", f"{repository}:u")
    docker("rm", identity)


def test_images_by_id(docker: DockerCLI) -> None:
    identity = docker("images", "-q", "--no-trunc", IMAGE).line
    assert docker("run", "--rm", identity, "echo", "a").out == "a\n"
    assert docker("run", "--rm", identity.removeprefix("sha256:")[:10], "echo", "b").out == "b\n"


def test_history_of_entrypoint_and_cmd(docker: DockerCLI, repository: str) -> None:
    docker(
        "load",
        stdin=image_tar(
            f"{repository}:e",
            [rootfs_tar()],
            {"Entrypoint": ["echo", "entry"], "Cmd": ["cmd"], "Env": ["PATH=/bin"]},
        ),
    )
    assert docker("run", "--rm", f"{repository}:e").out == "entry cmd\n"
    assert docker("run", "--rm", f"{repository}:e", "args").out == "entry args\n"
    assert docker("run", "--rm", "--entrypoint", "echo", f"{repository}:e", "x").out == "x\n"
    assert docker("run", "--rm", "--entrypoint", "true", f"{repository}:e").out == ""


def test_no_command(docker: DockerCLI, repository: str) -> None:
    docker("import", "-", f"{repository}:n", stdin=rootfs_tar())
    result = docker("run", "--rm", f"{repository}:n", check=False)
    assert result.code == 125
    assert "o command specified" in result.err


def test_load_of_rubbish(docker: DockerCLI) -> None:
    docker.fails("load", stdin=b"this is no tar" * 1000)
