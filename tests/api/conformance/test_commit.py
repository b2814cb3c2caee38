"""Containers' changes through the docker command: diff, commit, history, export, import."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import secrets
import tarfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine
from support.rootfs import image_tar, rootfs_tar

CHANGING = """
set -e
mkdir -p /new/sub; echo x > /new/sub/f; ln /new/sub/f /new/sub/g
rm /etc/group; echo more >> /etc/passwd; mkdir /etc/d
rm -rf /home/user; mkdir /home/user; echo 1 > /home/user/q
rm -rf /usr/sbin; chmod 700 /var; ln -s a /link; mknod /tmp/null c 1 3
chmod 700 /root; chmod 755 /root; mv /bin/vi /bin/vi2; touch /gone; rm /gone
chmod 4755 /bin/busybox; chown -h 1000:29 /link
"""
CHANGED = (
    """
A /bin/vi2|A /etc/d|A /home/user/q|A /link|A /new|A /new/sub|A /new/sub/f|A /new/sub/g|A /tmp/null
C /bin|C /bin/busybox|C /etc|C /etc/passwd|C /home|C /home/user|C /tmp|C /usr|C /var
D /bin/vi|D /etc/group|D /usr/sbin
""".strip()
    .replace("\n", "|")
    .split("|")
)


@pytest.fixture
def name(target: Engine) -> Iterator[str]:
    """A name for a container and for images, which are gone afterwards."""
    made = "c" + secrets.token_hex(4)
    yield made
    target.remove_containers()
    images = target.get("/images/json", all=True).json
    own = [i for i in images if any(made in tag for tag in i["RepoTags"] or [])]
    dangling = [i for i in images if (i["RepoTags"] or ["<none>:<none>"]) == ["<none>:<none>"]]
    for image in [*own, *dangling]:
        for tag in image["RepoTags"] or [image["Id"]]:
            target.delete(f"/images/{image['Id'] if tag == '<none>:<none>' else tag}", force=True)


def members(data: bytes) -> dict[str, tuple[object, ...]]:
    """What an exported tree holds, without the mount points that engines make differently."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            path = member.name.removeprefix("./").strip("/")
            if path in (".", "", ".dockerenv", "etc") or path.split("/")[0] in (
                "dev",
                "proc",
                "sys",
            ):
                continue
            if path in ("etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"):
                continue
            content = tar.extractfile(member) if member.isreg() else None
            digest = hashlib.sha256(content.read()).hexdigest() if content else ""
            found[path] = (
                member.type, member.mode & 0o7777, member.uid, member.gid, int(member.mtime), member.linkname,
                member.devmajor, member.devminor, digest,
            )  # fmt: skip
    return found


def run_changes(docker: DockerCLI, name: str) -> None:
    docker("run", "--name", name, "--network", "none", IMAGE, "sh", "-c", CHANGING)


def test_diff(docker: DockerCLI, name: str) -> None:
    run_changes(docker, name)
    lines = docker("diff", name).out.splitlines()
    assert sorted(lines) == sorted(CHANGED)
    for path in ("/bin", "/etc", "/home", "/new"):
        at = next(number for number, line in enumerate(lines) if line.endswith(f" {path}"))
        assert f" {path}/" in lines[at + 1], "a directory is followed by what is in it"


def test_diff_of_a_running_container(docker: DockerCLI, name: str) -> None:
    docker(
        "run", "-d", "--name", name, "--network", "none", IMAGE, "sh", "-c", "echo 1 > /a; sleep 60"
    )
    wait_for_line(docker, name, "A /a")
    docker("exec", name, "rm", "/a")
    assert docker("diff", name).out == ""


def wait_for_line(docker: DockerCLI, name: str, line: str) -> None:
    from support.waiting import wait_for

    wait_for(lambda: line in docker("diff", name).out, line)


def test_diff_of_nothing(docker: DockerCLI, target: Engine, name: str) -> None:
    docker("create", "--name", name, IMAGE)
    assert docker("diff", name).out == ""
    assert target.get(f"/containers/{name}/changes").json is None


def test_a_mounted_directory_is_no_change_inside(
    docker: DockerCLI, target: Engine, name: str
) -> None:
    folder = os.path.join(target.directory, "mounted")
    os.makedirs(folder, exist_ok=True)
    docker(
        "run",
        "--name",
        name,
        "--network",
        "none",
        "-v",
        f"{folder}:/data",
        IMAGE,
        "touch",
        "/data/x",
    )
    assert docker("diff", name).out == "A /data\n"
    exported = members(docker("export", name).raw)
    assert "data" in exported and "data/x" not in exported


def test_commit_runs_as_the_container_was(docker: DockerCLI, name: str) -> None:
    run_changes(docker, name)
    identity = docker(
        "commit",
        "-a",
        "Me <me@x>",
        "-m",
        "words",
        "-c",
        "ENV A=b",
        "-c",
        "CMD cat /etc/passwd",
        name,
        f"{name}:v1",
    ).line
    found = json.loads(docker("image", "inspect", f"{name}:v1").out)[0]
    parent = json.loads(docker("image", "inspect", IMAGE).out)[0]
    assert (found["Id"], found["Author"], found["Comment"]) == (identity, "Me <me@x>", "words")
    assert found["Config"]["Env"] == [*parent["Config"]["Env"], "A=b"]
    assert found["Config"]["Cmd"] == ["/bin/sh", "-c", "cat /etc/passwd"]
    assert found["RootFS"]["Layers"][:-1] == parent["RootFS"]["Layers"]
    assert found["Size"] > parent["Size"]
    script = "ls -d /usr/sbin /etc/group; ls /home/user; stat -c %a /var; stat -c %h /new/sub/f"
    out = docker("run", "--rm", "--network", "none", f"{name}:v1", "sh", "-c", script).out
    assert out.split() == ["q", "700", "2"]
    assert "more\n" in docker("run", "--rm", "--network", "none", f"{name}:v1").out


def test_commit_keeps_the_parent(docker: DockerCLI, target: Engine, name: str) -> None:
    docker("run", "--name", name, "--network", "none", IMAGE, "touch", "/one")
    identity = docker("commit", name, f"{name}:v1").line
    parent = target.get(f"/v1.41/images/{IMAGE}/json").json["Id"]
    assert target.get(f"/v1.41/images/{identity}/json").json["Parent"] == parent
    summaries = target.get("/v1.41/images/json", all=True).json
    assert [s["ParentId"] for s in summaries if s["Id"] == identity] == [parent]


@pytest.mark.parametrize(("changes", "config"), [
    (['ENTRYPOINT ["x"]'], {"Entrypoint": ["x"], "Cmd": None}),
    (['CMD ["q"]', 'ENTRYPOINT ["e"]'], {"Entrypoint": ["e"], "Cmd": ["q"]}),
    (["CMD z"], {"Cmd": ["/bin/sh", "-c", "z"], "Entrypoint": ["/bin/sh"]}),
    (["CMD []"], {"Cmd": None}),
    (["ENV P=$A:${B}:${C:-d}:${A:+yes}:\\$A:$UNSET"], {"Env": ["A=1", "B=x y", "PATH=/usr/bin:/bin", "P=1:x y:d:yes:$A:"]}),
    (["ENV P='$A' Q=\"$B\" R=\\$A"], {"Env": ["A=1", "B=x y", "PATH=/usr/bin:/bin", "P=$A", "Q=x y", "R=$A"]}),
    (["ENV A=2 D=$A", "ENV E=$A"], {"Env": ["A=2", "B=x y", "PATH=/usr/bin:/bin", "D=1", "E=2"]}),
    (["WORKDIR $A/sub"], {"WorkingDir": "/w/1/sub"}),
    (["WORKDIR /abs/../x/"], {"WorkingDir": "/abs/../x/"}),
    (["USER $A:$B"], {"User": "1:x y"}),
    (["EXPOSE $A 90/udp 100-102"], {"ExposedPorts": {port: {} for port in ("1/tcp", "100/tcp", "101/tcp", "102/tcp", "80/tcp", "90/udp")}}),
    (['VOLUME ["/v$A", "/w"]'], {"Volumes": {"/v1": {}, "/w": {}}}),
    (['LABEL a=$A "b c"=d own=2'], {"Labels": {"a": "1", "b c": "d", "own": "2"}}),
    (["ONBUILD RUN x"], {"OnBuild": ["RUN x"]}),
    (["HEALTHCHECK --interval=5s CMD echo $A"], {"Healthcheck": {"Test": ["CMD-SHELL", "echo $A"], "Interval": 5 * 10**9}}),
])  # fmt: skip
def test_changes(
    docker: DockerCLI, target: Engine, name: str, changes: list[str], config: dict[str, Any]
) -> None:
    docker(
        "create",
        "--name",
        name,
        "--label",
        "own=1",
        "-e",
        "A=1",
        "-e",
        "B=x y",
        "-w",
        "/w",
        "--expose",
        "80",
        "--entrypoint",
        "/bin/sh",
        IMAGE,
        "-c",
        "ls",
    )
    options = [word for change in changes for word in ("-c", change)]
    identity = docker("commit", *options, name, f"{name}:c").line
    found = target.get(f"/v1.41/images/{identity}/json").json["Config"]
    shown = {key: found.get(key) or None for key in config}
    for either in (shown, config):  # the command sends `-e` in no order
        if "Env" in either:
            either["Env"] = sorted(either["Env"])
    assert shown == config


@pytest.mark.parametrize(("change", "message"), [
    ("RUN x", "run is not a valid change command"),
    ("NOPE x", "nope is not a valid change command"),
    ("ENV A", "ENV must have two arguments"),
    ("ENV =x", "ENV names can not be blank"),
    ("ENV X=${A", "failed to process \"${A\": missing ':' in substitution"),
    ("ENV X=${Z:?err}", 'failed to process "${Z:?err}": Z: err'),
    ("EXPOSE x", "Invalid containerPort: x"),
    ("USER", "USER requires exactly one argument"),
    ("# nothing", "file with no instructions"),
])  # fmt: skip
def test_bad_changes(docker: DockerCLI, name: str, change: str, message: str) -> None:
    docker("create", "--name", name, IMAGE)
    assert message in docker.fails("commit", "-c", change, name).err


def test_commit_by_the_api(target: Engine, docker: DockerCLI, name: str) -> None:
    docker("create", "--name", name, "-e", "A=1", "--label", "a=b", IMAGE)
    body = {"Cmd": ["x"], "Env": ["Q=1"], "Labels": {"l": "m"}}
    answer = target.post(
        "/v1.41/commit", body, container=name, repo=name, tag="api", comment="said"
    )
    assert answer.status == 201
    found = target.get(f"/v1.41/images/{name}:api/json").json
    assert (found["Id"], found["Comment"]) == (answer.json["Id"], "said")
    assert found["Config"]["Cmd"] == ["x"]
    assert found["Config"]["Labels"] == {"a": "b", "l": "m"}
    assert found["Config"]["Env"][:2] == ["Q=1", "A=1"]
    assert target.post("/commit", container="nosuch").status == 404
    assert target.post("/commit", None, container=name, repo="Foo").status in (400, 500)
    assert target.post("/commit", None, container=name, repo=f"a@sha256:{'0' * 64}").status == 400


def test_commit_pauses(docker: DockerCLI, target: Engine, name: str) -> None:
    docker("run", "-d", "--name", name, "--network", "none", IMAGE, "sleep", "60")
    since = str(int(time.time()) - 1)
    docker("commit", name, f"{name}:p")
    docker("commit", "--pause=false", name, f"{name}:q")
    docker("commit", name)
    found = actions(docker, since, name)
    assert found == ["pause", "commit", "unpause", "commit", "pause", "commit", "unpause"]
    assert docker("inspect", "-f", "{{.State.Status}}", name).line == "running"
    docker("pause", name)
    docker("commit", name, f"{name}:r")
    assert docker("inspect", "-f", "{{.State.Status}}", name).line == "paused"
    docker("unpause", name)


def actions(docker: DockerCLI, since: str, name: str) -> list[str]:
    kept = ("pause", "unpause", "commit", "export")
    out = docker(
        "events",
        "--since",
        since,
        "--until",
        str(int(time.time()) + 1),
        "--filter",
        f"container={name}",
        "--format",
        "{{.Action}}",
    ).out
    return [line for line in out.split() if line in kept]


def test_events(docker: DockerCLI, target: Engine, name: str) -> None:
    docker("create", "--name", name, "--label", "a=b", IMAGE)
    since = str(int(time.time()) - 1)
    identity = docker("commit", "-m", "said", name, f"{name}:e").line
    docker("export", name)
    imported = docker("import", "-", f"{name}:i", stdin=rootfs_tar()).line
    docker("save", "-o", os.path.join(target.directory, "saved.tar"), f"{name}:e")
    docker("load", "-i", os.path.join(target.directory, "saved.tar"))
    os.unlink(os.path.join(target.directory, "saved.tar"))
    docker("tag", f"{name}:e", f"{name}:f")
    docker("rmi", f"{name}:f")
    out = docker(
        "events", "--since", since, "--until", str(int(time.time()) + 1), "--format", "{{json .}}"
    ).out
    events = [json.loads(line) for line in out.splitlines()]
    told = [
        (e["Type"], e["Action"], e["Actor"]["Attributes"])
        for e in events
        if e["Actor"]["ID"] in (identity, imported) or e["Actor"]["Attributes"].get("name") == name
    ]
    labels = {"a": "b"}
    container = {"name": name, "image": IMAGE, **labels}
    assert told[-8:] == [
        ("image", "tag", {"name": f"{name}:e", **labels}),
        ("container", "commit", {"comment": "said", "imageID": identity, "imageRef": f"{name}:e", **container}),
        ("container", "export", container),
        ("image", "tag", {"name": f"{name}:i"}),
        ("image", "import", {"name": imported}),
        ("image", "save", {"name": identity, **labels}),
        ("image", "load", {"name": identity, **labels}),
        ("image", "tag", {"name": f"{name}:f", **labels}),
        ("image", "untag", {"name": identity, **labels}),
    ][-8:]  # fmt: skip


def test_commit_of_nothing_adds_no_layer(docker: DockerCLI, name: str) -> None:
    docker("create", "--name", name, IMAGE)
    docker("commit", "-m", "empty", name, f"{name}:n")
    layers = ["{{len .RootFS.Layers}}", "{{.Size}}"]
    assert (
        docker("image", "inspect", "-f", " ".join(layers), f"{name}:n").line
        == docker("image", "inspect", "-f", " ".join(layers), IMAGE).line
    )
    lines = docker(
        "history", "--format", "{{.Size}}|{{.Comment}}|{{.CreatedBy}}", f"{name}:n"
    ).out.splitlines()
    assert lines[0] == "0B|empty|sh" and len(lines) == 2


def test_history(docker: DockerCLI, target: Engine, name: str) -> None:
    docker("run", "--name", name, "--network", "none", IMAGE, "sh", "-c", "echo 12345 > /a")
    identity = docker("commit", "-m", "first", name, f"{name}:one").line
    docker("rm", name)
    docker("tag", f"{name}:one", f"{name}:other")
    docker("run", "--name", name, "--network", "none", f"{name}:one", "sh", "-c", "echo 1 > /b")
    second = docker("commit", name, f"{name}:two").line
    lines = target.get(f"/v1.41/images/{name}:two/history").json
    parent = target.get(f"/v1.41/images/{IMAGE}/json").json["Id"]
    assert [line["Id"] for line in lines] == [second, identity, parent]
    assert [line["Tags"] for line in lines] == [
        [f"{name}:two"],
        [f"{name}:one", f"{name}:other"],
        [IMAGE],
    ]
    assert [line["Size"] for line in lines[:2]] == [2, 6]
    assert [line["CreatedBy"] for line in lines[:2]] == [
        "sh -c echo 1 > /b",
        "sh -c echo 12345 > /a",
    ]
    assert [line["Comment"] for line in lines] == ["", "first", "Imported from -"]
    assert all(abs(line["Created"] - time.time()) < 1000 for line in lines[:2])
    table = docker("history", f"{name}:two").out.splitlines()
    assert table[0].split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert docker("history", "-q", "--no-trunc", f"{name}:two").out.split() == [
        second,
        identity,
        parent,
    ]
    assert "No such image: nope:latest" in docker.fails("history", "nope").err


def test_history_of_what_came_from_elsewhere(docker: DockerCLI, name: str) -> None:
    extra = io.BytesIO()
    with tarfile.open(fileobj=extra, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("x"), io.BytesIO())
    docker("load", stdin=image_tar(f"{name}:l", [rootfs_tar(), extra.getvalue()], {"Cmd": ["sh"]}))
    lines = docker(
        "history", "--no-trunc", "--format", "{{.ID}} {{.CreatedBy}}", f"{name}:l"
    ).out.splitlines()
    identity = docker("images", "-q", "--no-trunc", f"{name}:l").line
    assert lines == [f"{identity} layer 1", "<missing> layer 0"]


def test_export_and_import_give_the_same_tree(docker: DockerCLI, name: str) -> None:
    run_changes(docker, name)
    exported = docker("export", name).raw
    docker("import", "-c", "CMD sh", "-", f"{name}:flat", stdin=exported)
    docker("rm", name)
    docker("create", "--name", name, f"{name}:flat")
    again = docker("export", name).raw
    assert members(again) == members(exported)
    assert "home/user/old" not in members(exported) and "new/sub/g" in members(exported)


def test_save_and_load_of_a_commit_give_the_same_tree(
    docker: DockerCLI, target: Engine, name: str
) -> None:
    run_changes(docker, name)
    identity = docker("commit", name, f"{name}:v").line
    before = exported(docker, name, f"{name}:v")
    path = os.path.join(target.directory, "saved.tar")
    docker("save", "-o", path, f"{name}:v")
    docker("rmi", f"{name}:v")
    docker("load", "-i", path)
    os.unlink(path)
    assert docker("images", "-q", "--no-trunc", f"{name}:v").line == identity
    assert exported(docker, name, f"{name}:v") == before


def exported(docker: DockerCLI, name: str, image: str) -> dict[str, tuple[object, ...]]:
    docker("create", "--name", f"{name}-copy", image)
    try:
        return members(docker("export", f"{name}-copy").raw)
    finally:
        docker("rm", f"{name}-copy")


def test_export_of_a_running_container(docker: DockerCLI, target: Engine, name: str) -> None:
    docker(
        "run",
        "-d",
        "--name",
        name,
        "--network",
        "none",
        "--tmpfs",
        "/tmp",
        IMAGE,
        "sh",
        "-c",
        "echo 1 > /a; echo 2 > /tmp/b; sleep 60",
    )
    wait_for_line(docker, name, "A /a")
    path = os.path.join(target.directory, "exported.tar")
    docker("export", "-o", path, name)
    with open(path, "rb") as file:
        found = members(file.read())
    os.unlink(path)
    assert "a" in found and "tmp" in found and "tmp/b" not in found
    assert "No such container: nope" in docker.fails("export", "nope", "-o", path).err


def test_children_hold_their_parents(docker: DockerCLI, target: Engine, name: str) -> None:
    """An image that others were committed on stays; nameless, it goes with the last of them."""
    docker("import", "-c", 'CMD ["sh"]', "-", f"{name}:base", stdin=rootfs_tar())
    base = docker("images", "-q", "--no-trunc", f"{name}:base").line
    docker("run", "--name", name, "--network", "none", f"{name}:base", "touch", "/a")
    child = docker("commit", name, f"{name}:child").line
    docker("rm", name)
    assert (
        f"unable to delete {base[7:19]} (cannot be forced) - image has dependent child images"
        in docker.fails("rmi", "-f", base).err
    )
    assert docker("rmi", f"{name}:base").out == f"Untagged: {name}:base\n"
    assert docker("images", "-q", "--no-trunc").out.count(base) == 0
    assert docker("images", "-aq", "--no-trunc").out.count(base) == 1
    assert docker("images", "-q", "--no-trunc", "-f", "dangling=true").out == ""
    ids = [line["Id"] for line in target.get(f"/v1.41/images/{name}:child/history").json]
    assert ids == [child, base]
    out = docker("rmi", f"{name}:child").out.splitlines()
    assert out[0] == f"Untagged: {name}:child"
    deleted = [line.removeprefix("Deleted: ") for line in out[1:]]
    assert deleted[0] == child and deleted[-1] == base and len(deleted) == 3
    assert docker("images", "-aq", "--no-trunc").out.count(base) == 0


def test_without_prune_parents_stay(docker: DockerCLI, name: str) -> None:
    docker("import", "-c", 'CMD ["sh"]', "-", f"{name}:base", stdin=rootfs_tar())
    base = docker("images", "-q", "--no-trunc", f"{name}:base").line
    docker("create", "--name", name, f"{name}:base")
    docker("commit", "-m", "x", name, f"{name}:child")
    docker("rm", name)
    docker("rmi", f"{name}:base")
    docker("rmi", "--no-prune", f"{name}:child")
    assert base in docker("images", "-q", "--no-trunc", "-f", "dangling=true").out
    docker("rmi", base)


def test_where_the_layers_are(docker: DockerCLI, target: Engine, name: str) -> None:
    docker("run", "--name", name, "--network", "none", IMAGE, "sh", "-c", "echo 12345 > /a")
    docker("commit", name, f"{name}:g")
    document = target.get(f"/v1.41/images/{name}:g/json").json
    driver = document["GraphDriver"]
    assert driver["Name"] == "overlay2"
    assert set(driver["Data"]) == {"LowerDir", "MergedDir", "UpperDir", "WorkDir"}
    assert os.listdir(driver["Data"]["UpperDir"]) == ["a"]
    assert os.path.exists(os.path.join(driver["Data"]["LowerDir"].split(":")[0], "bin/busybox"))
    assert "LowerDir" not in target.get(f"/v1.41/images/{IMAGE}/json").json["GraphDriver"]["Data"]
    assert document["Metadata"]["LastTagTime"].startswith("20")


@pytest.mark.parametrize(("filters", "expected"), [
    (["reference=NAME:*"], ["a", "b"]),
    (["reference=NAME:a"], ["a"]),
    (["reference=NAME"], ["a", "b"]),
    (["reference=NAM*"], ["a", "b"]),
    (["reference=NAME:a", "reference=NAME:b"], ["a", "b"]),
    (["reference=NAME:*", "before=NAME:b"], ["a"]),
    (["reference=NAME:*", "since=NAME:a"], ["b"]),
    (["reference=NAME:*", "label=made"], ["b"]),
    (["reference=NAME:*", "label=made=here"], ["b"]),
    (["reference=NAME:*", "label=made=there"], []),
    (["reference=NAME:*", "dangling=true"], []),
    (["reference=NAME:*", "dangling=false"], ["a", "b"]),
])  # fmt: skip
def test_filters(docker: DockerCLI, name: str, filters: list[str], expected: list[str]) -> None:
    docker("import", "-c", 'CMD ["sh"]', "-", f"{name}:a", stdin=rootfs_tar())
    docker("create", "--name", name, f"{name}:a")
    docker("commit", "-c", "LABEL made=here", name, f"{name}:b")
    options = [
        w for f in filters for w in ("-f", f.replace("NAME", name).replace("NAM*", name[:-1] + "*"))
    ]
    assert sorted(docker("images", "--format", "{{.Tag}}", *options).out.split()) == expected


def test_refused_filters(docker: DockerCLI) -> None:
    assert "nvalid filter 'nope'" in docker.fails("images", "-f", "nope=1").err
    assert "nvalid filter 'dangling" in docker.fails("images", "-f", "dangling=x").err
    assert "No such image: nope:latest" in docker.fails("images", "-f", "since=nope").err


def test_until_and_shared_size(
    docker: DockerCLI, target: Engine, only_sampan: None, name: str
) -> None:
    """dockerd 20.10 knows neither."""
    docker("run", "--name", name, "--network", "none", IMAGE, "sh", "-c", "echo 12345 > /a")
    docker("commit", name, f"{name}:s")
    assert docker("images", "-q", "-f", "until=1h", f"{name}:s").out == ""
    assert docker("images", "-q", "-f", f"until={int(time.time()) + 5}", f"{name}:s").out != ""
    answer = {i["Id"]: i for i in target.get("/images/json", **{"shared-size": "1"}).json}
    image, base = (target.get(f"/images/{n}/json").json for n in (f"{name}:s", IMAGE))
    assert answer[image["Id"]]["SharedSize"] == base["Size"] == answer[base["Id"]]["SharedSize"]
    assert answer[image["Id"]]["Size"] == base["Size"] + 6


def test_platforms(docker: DockerCLI, target: Engine, only_sampan: None, name: str) -> None:
    """The manifests behind a name, since 1.47: `docker images --tree` draws them."""
    docker("create", "--name", name, IMAGE)
    docker("commit", "-m", "x", name, f"{name}:t")
    (summary,) = [
        i
        for i in target.get("/v1.50/images/json", manifests="1").json
        if f"{name}:t" in i["RepoTags"]
    ]
    (manifest,) = summary["Manifests"]
    assert (manifest["Kind"], manifest["Available"]) == ("image", True)
    assert manifest["ImageData"]["Platform"]["os"] == "linux"
    assert manifest["Size"]["Total"] == manifest["Size"]["Content"] + summary["Size"]
    assert "Manifests" not in target.get("/v1.46/images/json", manifests="1").json[0]
    inspected = target.get(f"/v1.50/images/{name}:t/json", manifests="1").json
    assert (
        inspected["Manifests"] == [manifest] and inspected["Descriptor"]["digest"] == manifest["ID"]
    )
    assert "Descriptor" not in target.get(f"/v1.47/images/{name}:t/json").json


class Archives(http.server.BaseHTTPRequestHandler):
    """Serves a root file system, and what goes wrong."""

    protocol_version = "HTTP/1.1"
    data = rootfs_tar()

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404, "Not here")
        elif self.path in ("/moved", "/circle"):
            self.send_response(302)
            self.send_header("Location", "/rootfs.tar" if self.path == "/moved" else "/circle")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.data)))
            self.end_headers()
            self.wfile.write(self.data[:100_000] if self.path == "/cut" else self.data)
            self.close_connection = self.path == "/cut"


@pytest.fixture
def archives(only_sampan: None) -> Iterator[str]:
    """The oracle is in a network of its own; the expectations were taken from it by hand."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Archives)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_import_from_a_url(docker: DockerCLI, target: Engine, archives: str, name: str) -> None:
    query = {"fromSrc": f"{archives}/moved", "repo": name, "tag": "u", "changes": 'CMD ["sh"]'}
    answer = target.post("/images/create", **query)
    messages = [json.loads(line) for line in answer.body.splitlines()]
    assert messages[0] == {"status": f"Downloading from {archives}/moved"}
    total = len(Archives.data)
    assert messages[-2]["progressDetail"] == {"current": total, "total": total}
    assert messages[-2]["progress"].startswith("[====") and messages[-2]["status"] == "Importing"
    identity = messages[-1]["status"]
    assert docker("run", "--rm", "--network", "none", f"{name}:u", "echo", "hi").out == "hi\n"
    assert (
        docker("history", "--format", "{{.Comment}}", identity).line
        == f"Imported from {archives}/moved"
    )
    out = docker("import", "-m", "said", f"{archives}/rootfs.tar", f"{name}:v").out
    assert out.splitlines()[0] == f"Downloading from {archives}/rootfs.tar"
    assert docker("history", "--format", "{{.Comment}}", f"{name}:v").line == "said"


@pytest.mark.parametrize(("path", "status", "message"), [
    ("/missing", 404, "failed to GET URL/missing with status 404 Not here: <!DOCTYPE HTML>"),
    ("/circle", 500, "stopped after 10 redirects"),
    ("/cut", 200, 'Get \\"URL/cut\\": unexpected EOF'),
])  # fmt: skip
def test_import_from_a_bad_url(
    target: Engine, archives: str, name: str, path: str, status: int, message: str
) -> None:
    answer = target.post("/images/create", fromSrc=archives + path, repo=name, tag="u")
    assert answer.status == status
    assert message.replace("URL", archives) in answer.body.decode()
    assert target.get(f"/images/{name}:u/json").status == 404


def test_import_from_what_is_no_url(target: Engine, only_sampan: None) -> None:
    for source, message in (
        ("ftp://127.0.0.1/x", 'unsupported protocol scheme \\"ftp\\"'),
        ("http:///x", "no Host in request URL"),
        ("127.0.0.1:1/x", "dial tcp 127.0.0.1:1: connect: connection refused"),
    ):
        answer = target.post("/images/create", fromSrc=source, repo="x")
        assert answer.status >= 400 and message in answer.body.decode()
