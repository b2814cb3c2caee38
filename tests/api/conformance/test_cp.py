"""Files in and out of containers: the archive API, and `docker cp` on top of it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine
from support.http import Answer
from support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("no_volumes_left")

TREE = (
    "mkdir -p /t/d/sub; echo hi >/t/d/f; chmod 4755 /t/d/f; ln /t/d/f /t/d/h; ln -s f /t/d/l; "
    "ln -s /t/d /t/abs; ln -s d /t/rel; ln -s /nowhere/x /t/dangling; ln -s ../../../../etc/passwd /t/up; "
    "mkfifo /t/p; chmod 1777 /t/d/sub; chown 5:6 /t/d/sub; ln -s loop /t/loop; mknod /t/null c 1 3; "
    "touch -d @1000000000 /t/d/f; touch /ready; exec sleep 1000"
)
DIRECTORY, LINK, DEVICE, CHARACTER = 1 << 31, 1 << 27, 1 << 26, 1 << 21
FIFO, SETUID, STICKY = 1 << 25, 1 << 23, 1 << 20
_OLD_NOT_FOUND = "No such container:path: "
"""What a docker command of 20.10 says of its own for every 404."""
Member = tuple[str, bytes, bytes, dict[str, Any]]


@pytest.fixture(params=["running", "stopped"])
def container(
    request: pytest.FixtureRequest, target: Engine, newest_docker: DockerCLI, unused_name: str
) -> str:
    """A container with a tree in /t, a volume on /v and a read-only one on /r."""
    newest_docker(
        *(
            "run",
            "-d",
            "--name",
            unused_name,
            "-v",
            "/v",
            "-v",
            "cpro:/r:ro",
            IMAGE,
            "sh",
            "-c",
            TREE,
        )
    )
    wait_for(lambda: stat(target, unused_name, "/ready") is not None, "the tree to be made")
    if request.param == "stopped":
        newest_docker("stop", "-t", "0", unused_name)
    return unused_name


def archive(engine: Engine, method: str, name: str, path: str, **options: Any) -> Answer:
    query = {"path": path, **options.pop("query", {})}
    return engine.request(method, f"/v1.41/containers/{name}/archive", query=query, **options)


def header(answer: Answer) -> dict[str, Any]:
    headers = {key.lower(): value for key, value in answer.headers.items()}
    document: dict[str, Any] = json.loads(
        base64.b64decode(headers["x-docker-container-path-stat"], validate=True)
    )
    return document


def stat(engine: Engine, name: str, path: str) -> dict[str, Any] | None:
    answer = archive(engine, "HEAD", name, path)
    return header(answer) if answer.status == 200 else None


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return list(tar)


def read(engine: Engine, name: str, path: str) -> list[tarfile.TarInfo]:
    answer = archive(engine, "GET", name, path)
    assert answer.status == 200, answer
    return members(answer.body)


def packed(*entries: Member) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, data, fields in entries:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(data)
            member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            for field, value in fields.items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def file(name: str, data: bytes = b"new", **fields: Any) -> Member:
    return name, tarfile.REGTYPE, data, fields


def put(engine: Engine, name: str, path: str, body: bytes, **query: str) -> Answer:
    kind = {"Content-Type": "application/x-tar"}
    return archive(engine, "PUT", name, path, query=query, raw=body, headers=kind)


STATS: list[tuple[str, str, int, str]] = [
    ("/t/d", "d", DIRECTORY | 0o755, ""),
    ("/t/d/", "d", DIRECTORY | 0o755, ""),
    ("/t/d/.", ".", DIRECTORY | 0o755, ""),
    ("/", "/", DIRECTORY | 0o755, ""),
    ("/.", ".", DIRECTORY | 0o755, ""),
    (".", ".", DIRECTORY | 0o755, ""),
    ("t/d/f", "f", SETUID | 0o755, ""),
    ("/t/../t/d", "d", DIRECTORY | 0o755, ""),
    ("/t/../../../t/d", "d", DIRECTORY | 0o755, ""),
    ("/t/d/sub", "sub", DIRECTORY | STICKY | 0o777, ""),
    ("/t/abs", "abs", LINK | 0o777, "/t/d"),
    ("/t/abs/", "abs", DIRECTORY | 0o755, ""),
    ("/t/abs/.", ".", DIRECTORY | 0o755, ""),
    ("/t/abs/f", "f", SETUID | 0o755, ""),
    ("/t/rel", "rel", LINK | 0o777, "/t/d"),
    ("/t/dangling", "dangling", LINK | 0o777, "/nowhere/x"),
    ("/t/up", "up", LINK | 0o777, "/etc/passwd"),
    ("/t/p", "p", FIFO | 0o644, ""),
    ("/t/null", "null", DEVICE | CHARACTER | 0o644, ""),
    ("/v", "v", DIRECTORY | 0o755, ""),
]


def test_what_is_at_a_path(target: Engine, container: str) -> None:
    for path, name, mode, link in STATS:
        found = stat(target, container, path)
        assert found is not None, path
        assert (found["name"], oct(found["mode"]), found["linkTarget"]) == (
            name,
            oct(mode),
            link,
        ), path
    found = stat(target, container, "/t/d/f")
    assert found is not None
    assert (found["size"], found["mtime"]) == (3, "2001-09-09T01:46:40Z")
    for path in ("/nope", "/t/dangling/", "/t/dangling/y"):
        assert archive(target, "HEAD", container, path).status == 404, path
    for path in ("/t/loop", "/t/loop/", "/t/d/f/", "/t/d/f/x"):
        assert archive(target, "HEAD", container, path).status in (400, 500), path


D, F, L, H, P = (
    tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE
)  # fmt: skip
READ: list[tuple[str, list[tuple[str, bytes, str]]]] = [
    ("/t/d", [("d", D, ""), ("d/f", F, ""), ("d/h", H, "d/f"), ("d/l", L, "f"), ("d/sub", D, "")]),
    ("/t/abs/", [("abs", D, ""), ("abs/f", F, ""), ("abs/h", H, "abs/f"), ("abs/l", L, "f"), ("abs/sub", D, "")]),
    ("/t/d/.", [(".", D, ""), ("./f", F, ""), ("./h", H, "./f"), ("./l", L, "f"), ("./sub", D, "")]),
    ("/t/abs", [("abs", L, "/t/d")]),
    ("/t/d/f", [("f", F, "")]),
    ("/t/d/h", [("h", F, "")]),
    ("/t/d/l", [("l", L, "f")]),
    ("/t/p", [("p", P, "")]),
    ("/v", [("v", D, "")]),
]  # fmt: skip


def test_read(target: Engine, container: str) -> None:
    for path, want in READ:
        found = read(target, container, path)
        assert [(m.name, m.type, m.linkname) for m in found] == want, path
    by_name = {member.name: member for member in read(target, container, "/t/d")}
    assert by_name["d/f"].mode & 0o7777 == 0o4755
    assert (by_name["d/f"].size, int(by_name["d/f"].mtime)) == (3, 1_000_000_000)
    assert (by_name["d/sub"].uid, by_name["d/sub"].gid) == (5, 6)
    answer = archive(target, "GET", container, "/nope")
    assert answer.status == 404
    assert answer.message == f"Could not find the file /nope in container {container}"
    answer = archive(target, "GET", container, "/t/d/f")
    assert header(answer)["size"] == 3
    assert "application/x-tar" in answer.headers.values()


def test_the_whole_tree(target: Engine, container: str) -> None:
    """Of what the kernel mounts in a container there are the mount points alone."""
    names = {member.name for member in read(target, container, "/")}
    assert {"/bin/busybox", "/t/d/f", "/etc/passwd", "/v"} <= names
    assert not [name for name in names if name.startswith(("/proc/", "/sys/"))]


def test_write(target: Engine, container: str) -> None:
    fields = {"uid": 5, "gid": 6, "mode": 0o751, "mtime": 1_000_000_000}
    body = packed(
        file("x", b"abc", **fields),
        file("setuid", mode=0o6755, uid=4, gid=4),
        file("implied/by/name", b"deep"),
        (
            "made",
            tarfile.DIRTYPE,
            b"",
            {"mode": 0o2700, "uid": 7, "gid": 8, "mtime": 1_000_000_001},
        ),
        file("made/in", b""),
        ("link", tarfile.SYMTYPE, b"", {"linkname": "x", "uid": 9}),
        ("hard", tarfile.LNKTYPE, b"", {**fields, "linkname": "x"}),
        ("pipe", tarfile.FIFOTYPE, b"", {"mode": 0o600}),
        file(".wh.kept", b"no whiteout"),
        file("/absolute"),
    )
    assert put(target, container, "/t/d/sub", body).status == 200
    found = {
        member.name.removeprefix("sub/"): member for member in read(target, container, "/t/d/sub")
    }
    assert set(found) == {
        "sub", "x", "implied", "implied/by", "implied/by/name", "made", "made/in", "link", "hard", "pipe",
        ".wh.kept", "setuid", "absolute",
    }  # fmt: skip
    first = found["x"] if found["x"].isreg() else found["hard"]
    assert (first.uid, first.gid, first.mode & 0o7777, int(first.mtime)) == (
        5,
        6,
        0o751,
        1_000_000_000,
    )
    made = found["made"]
    assert (made.uid, made.gid, made.mode & 0o7777, int(made.mtime)) == (
        7,
        8,
        0o2700,
        1_000_000_001,
    )
    assert found["setuid"].mode & 0o7777 == 0o6755
    assert {found["x"].type, found["hard"].type} == {F, H}
    assert (found["link"].linkname, found["link"].uid) == ("x", 9)
    assert found["pipe"].type == P


def test_replacing(target: Engine, container: str) -> None:
    assert put(target, container, "/t/d", packed(file("f", b"other"))).status == 200
    assert read(target, container, "/t/d/f")[0].size == 5
    assert read(target, container, "/t/d/h")[0].size == 3, "the other name keeps the old file"
    assert put(target, container, "/t", packed(file("d/l", b"no link"))).status == 200
    assert read(target, container, "/t/d/l")[0].type == F
    answer = put(target, container, "/t/d", packed(file("sub")), noOverwriteDirNonDir="true")
    assert answer.status in (400, 500)
    assert 'cannot overwrite directory "/t/d/sub" with non-directory "/t/d"' in answer.message
    body = packed(("f", tarfile.DIRTYPE, b"", {}))
    answer = put(target, container, "/t/d", body, noOverwriteDirNonDir="1")
    assert 'cannot overwrite non-directory "/t/d/f" with directory "/t/d"' in answer.message
    assert put(target, container, "/t/d", packed(file("sub/a"), file("sub"))).status == 200
    assert read(target, container, "/t/d/sub")[0].type == F


REFUSED: list[tuple[str, bytes, str]] = [
    ("/t/d/f", packed(file("x")), "extraction point is not a directory"),
    ("/nope", packed(file("x")), "Could not find the file /nope in container NAME"),
    ("/t/dangling", packed(file("x")), "Could not find the file /t/dangling in container NAME"),
    ("/t/d", packed(file("../x")), '"../x" is outside of "/t/d"'),
    ("/t/d", packed(file("a/../../x")), 'outside of "/t/d"'),
    (
        "/t/d",
        packed(("x", tarfile.LNKTYPE, b"", {"linkname": "../../etc/passwd"})),
        '"../../etc/passwd"',
    ),
    ("/r", packed(file("x")), "mounted volume is marked read-only"),
    ("/etc", packed(file("hosts")), "device or resource busy"),
    ("/t", b"garbage" * 200, "archive/tar: invalid tar header"),
    ("", packed(file("x")), "cannot be empty"),
]


def test_refused(target: Engine, container: str) -> None:
    for path, body, message in REFUSED:
        answer = put(target, container, path, body)
        assert answer.status >= 400, (path, answer)
        assert message.replace("NAME", container) in answer.message, path
    assert stat(target, container, "/x") is None and stat(target, container, "/t/x") is None
    assert put(target, container, "/t", b"").status == 200


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_compressed(
    target: Engine, newest_docker: DockerCLI, unused_name: str, compression: str
) -> None:
    newest_docker("create", "--name", unused_name, IMAGE)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as tar:
        member = tarfile.TarInfo("x")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"data"))
    assert put(target, unused_name, "/tmp", buffer.getvalue()).status == 200
    assert read(target, unused_name, "/tmp/x")[0].size == 4


def test_links_lead_into_the_container(
    target: Engine, newest_docker: DockerCLI, container: str, tmp_path: Path
) -> None:
    """Absolute ones and `..` above the root, for reading and for writing."""
    outside = tmp_path / "outside"
    outside.mkdir()
    links = packed(
        ("t/d/host", tarfile.SYMTYPE, b"", {"linkname": str(outside)}),
        ("t/d/up", tarfile.SYMTYPE, b"", {"linkname": "/../../../../../../../.." + str(outside)}),
        ("t/d/passwd", tarfile.SYMTYPE, b"", {"linkname": "/etc/passwd"}),
    )
    assert put(target, container, "/", links).status == 200
    for name in ("host", "up"):
        assert put(target, container, f"/t/d/{name}", packed(file("x"))).status == 404
        assert put(target, container, "/t/d", packed(file(f"{name}/x"))).status != 200
        assert archive(target, "GET", container, f"/t/d/{name}/").status == 404
    made = packed((str(outside), tarfile.DIRTYPE, b"", {}))
    assert put(target, container, "/", made).status == 200
    for name in ("host", "up"):
        assert put(target, container, "/t/d", packed(file(f"{name}/{name}"))).status == 200
    assert stat(target, container, f"{outside}/host") and stat(target, container, f"{outside}/up")
    assert list(outside.iterdir()) == []
    newest_docker("cp", "-L", f"{container}:/t/d/passwd", str(tmp_path / "copy"))
    assert "user:x:1000" in (tmp_path / "copy").read_text(), "the container's, not the machine's"


# -- docker cp --------------------------------------------------------------------------------------


def shown(top: Path) -> dict[str, str]:
    """A tree as text: directories end in a slash, links say where to, files what is in them."""
    found = {}
    for directory, folders, names in os.walk(top):
        for name in (*folders, *names):
            path = Path(directory) / name
            key = str(path.relative_to(top))
            if path.is_symlink():
                found[key] = "-> " + os.readlink(path)
            elif path.is_dir():
                found[key + "/"] = ""
            else:
                found[key] = path.read_text() if path.is_file() else "special"
    return found


TREE_OF_D = {"f": "hi\n", "h": "hi\n", "l": "-> f", "sub/": ""}


def below(name: str) -> dict[str, str]:
    return {f"{name}/": "", **{f"{name}/{key}": value for key, value in TREE_OF_D.items()}}


OUT: list[tuple[str, str, dict[str, str] | str]] = [
    ("/t/d", "", below("d")),
    ("/t/d", "new", below("new")),
    ("/t/d/", "new", below("new")),
    ("/t/d/.", "new", below("new")),
    ("/t/d/.", "", TREE_OF_D),
    ("/t/d", "dir", {"dir/": "", **{f"dir/{key}": text for key, text in below("d").items()}}),
    ("/t/d/f", "", {"f": "hi\n"}),
    ("/t/d/f", "new", {"new": "hi\n"}),
    ("/t/d/f", "dir", {"dir/": "", "dir/f": "hi\n"}),
    ("/t/d/f", "dir/", {"dir/": "", "dir/f": "hi\n"}),
    ("/t/d/f", "old", {"old": "hi\n"}),
    ("/t/d/f", "new/", "no such directory"),
    ("/t/d/f", "no/where/x", "invalid output path: directory"),
    ("/t/d", "old", "cannot copy directory"),
    ("/t/abs", "new", {"new": "-> /t/d"}),
    ("/t/abs/", "new", below("new")),
    ("/t/abs/.", "", TREE_OF_D),
    ("/nope", "", "Could not find the file /nope in container"),
]


@pytest.mark.parametrize(("source", "to", "want"), OUT)
def test_out_of_a_container(
    docker: DockerCLI, unused_name: str, target: Engine, tmp_path: Path,
    source: str, to: str, want: dict[str, str] | str,
) -> None:  # fmt: skip
    make_tree(docker, target, unused_name)
    top = tmp_path / "top"
    top.mkdir()
    if to.startswith("dir"):
        (top / "dir").mkdir()
    if to == "old":
        (top / "old").write_text("old")
    done = docker("cp", f"{unused_name}:{source}", f"{top}/{to}", check=False)
    if isinstance(want, str):
        assert done.code == 1 and (want in done.err or _OLD_NOT_FOUND in done.err), done
    else:
        assert done.code == 0, done
        assert shown(top) == want


def make_tree(docker: DockerCLI, target: Engine, name: str) -> None:
    """The part of the tree that is in /t/d, and the links to it, in a container that never ran."""
    docker("create", "--name", name, "-u", "1000:1001", IMAGE, "sleep", "100")
    body = packed(
        ("t", tarfile.DIRTYPE, b"", {}),
        ("t/d", tarfile.DIRTYPE, b"", {}),
        file("t/d/f", b"hi\n"),
        ("t/d/h", tarfile.LNKTYPE, b"", {"linkname": "t/d/f"}),
        ("t/d/l", tarfile.SYMTYPE, b"", {"linkname": "f"}),
        ("t/d/sub", tarfile.DIRTYPE, b"", {}),
        ("t/abs", tarfile.SYMTYPE, b"", {"linkname": "/t/d"}),
        ("t/dangling", tarfile.SYMTYPE, b"", {"linkname": "/nowhere/x"}),
        ("t/file", tarfile.SYMTYPE, b"", {"linkname": "d/f"}),
    )
    assert put(target, name, "/", body).status == 200


IN: list[tuple[str, str, Sequence[str] | str]] = [
    ("src", "/new", ["new", "new/a", "new/ln", "new/sub", "new/sub/b"]),
    ("src/.", "/new", ["new", "new/a", "new/ln", "new/sub", "new/sub/b"]),
    ("src", "/t/d/sub", ["sub", "sub/src", "sub/src/a", "sub/src/ln", "sub/src/sub", "sub/src/sub/b"]),
    ("src/.", "/t/d/sub", ["sub", "sub/a", "sub/ln", "sub/sub", "sub/sub/b"]),
    ("src/a", "/t/d/sub", ["sub", "sub/a"]),
    ("src/a", "/t/d/sub/", ["sub", "sub/a"]),
    ("src/a", "/t/d/f", ["f"]),
    ("src/a", "/new", ["new"]),
    ("src/ln", "/new", ["new"]),
    ("src/a", "/new/", "no such directory"),
    ("src/a", "/no/where", "Could not find the file /no in container"),
    ("src", "/t/d/f", "cannot copy directory"),
    ("src/a", "/t/abs", ["f", "h", "l", "sub", "a"]),
    ("src/nope", "/t", "no such file or directory"),
    ("src/a", "/t/dangling", "Could not find the file /nowhere in container"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "to", "want"), IN)
def test_into_a_container(
    docker: DockerCLI, unused_name: str, target: Engine, tmp_path: Path,
    source: str, to: str, want: Sequence[str] | str,
) -> None:  # fmt: skip
    make_tree(docker, target, unused_name)
    source_tree(tmp_path)
    done = docker("cp", f"{tmp_path}/{source}", f"{unused_name}:{to}", check=False)
    if isinstance(want, str):
        assert done.code == 1 and (want in done.err or _OLD_NOT_FOUND in done.err), done
        return
    assert done.code == 0, done
    if to == "/t/abs":
        assert {m.name for m in read(target, unused_name, "/t/d")} == {
            "d",
            *(f"d/{x}" for x in want),
        }
        return
    found = read(target, unused_name, to.rstrip("/"))
    assert sorted(member.name for member in found) == list(want)


def source_tree(top: Path) -> None:
    (top / "src" / "sub").mkdir(parents=True)
    (top / "src" / "a").write_text("content\n")
    (top / "src" / "ln").symlink_to("a")
    (top / "src" / "sub" / "b").write_bytes(b"")
    os.chown(top / "src" / "a", 7, 8)


def test_owners(docker: DockerCLI, unused_name: str, target: Engine, tmp_path: Path) -> None:
    """Those of the machine come along; out of a container they do not, and what comes is the caller's."""
    make_tree(docker, target, unused_name)
    source_tree(tmp_path)
    docker("cp", f"{tmp_path}/src/a", f"{unused_name}:/plain")
    member = read(target, unused_name, "/plain")[0]
    assert (member.uid, member.gid) == (7, 8)
    docker("cp", f"{unused_name}:/plain", f"{tmp_path}/back")
    status = os.stat(tmp_path / "back")
    assert (status.st_uid, status.st_gid) == (0, 0)
    docker("create", "--name", unused_name + "u", "-u", "0", IMAGE)
    docker("cp", "-a", f"{tmp_path}/src/a", f"{unused_name}u:/mine")
    member = read(target, unused_name + "u", "/mine")[0]
    assert (member.uid, member.gid) == (0, 0), "given to the container's user"


def test_the_containers_own_user(
    docker: DockerCLI, unused_name: str, target: Engine, only_sampan: None, tmp_path: Path
) -> None:
    """With a group, and by a name of its own passwd: dockerd 20.10 looks in the machine's."""
    source_tree(tmp_path)
    for user, want in (
        ("1000:1001", (1000, 1001)),
        ("user", (1000, 1000)),
        ("nobody:29", (65534, 29)),
    ):
        name = unused_name + user.replace(":", "_")
        docker("create", "--name", name, "-u", user, IMAGE)
        docker("cp", "-a", f"{tmp_path}/src/a", f"{name}:/mine")
        member = read(target, name, "/mine")[0]
        assert (member.uid, member.gid) == want
    docker("create", "--name", unused_name, "-u", "nosuch", IMAGE)
    assert (
        "unable to find user nosuch"
        in docker.fails("cp", "-a", f"{tmp_path}/src", f"{unused_name}:/").err
    )


def test_follow_link(docker: DockerCLI, unused_name: str, target: Engine, tmp_path: Path) -> None:
    make_tree(docker, target, unused_name)
    docker("cp", "-L", f"{unused_name}:/t/file", f"{tmp_path}/")
    assert (tmp_path / "file").read_text() == "hi\n"
    docker("cp", "-L", f"{unused_name}:/t/abs", f"{tmp_path}/out")
    assert shown(tmp_path / "out") == TREE_OF_D
    docker("cp", "-L", f"{unused_name}:/t/abs", f"{tmp_path}/")
    assert shown(tmp_path / "abs") == TREE_OF_D
    source_tree(tmp_path)
    docker("cp", "-L", f"{tmp_path}/src/ln", f"{unused_name}:/followed")
    assert read(target, unused_name, "/followed")[0].isreg()
    docker("cp", "-L", f"{tmp_path}/src/ln", f"{unused_name}:/t")
    assert read(target, unused_name, "/t/ln")[0].isreg()


def test_streams(docker: DockerCLI, unused_name: str, target: Engine) -> None:
    make_tree(docker, target, unused_name)
    done = docker("cp", f"{unused_name}:/t/d", "-")
    assert [member.name for member in members(done.raw)] == ["d", "d/f", "d/h", "d/l", "d/sub"]
    docker("cp", "-", f"{unused_name}:/tmp", stdin=done.raw)
    assert [m.name for m in read(target, unused_name, "/tmp/d")] == [
        "d",
        "d/f",
        "d/h",
        "d/l",
        "d/sub",
    ]
    done = docker.fails("cp", "-", f"{unused_name}:/t/d/f", stdin=b"")
    assert f'destination "{unused_name}:/t/d/f" must be a directory' in done.err


def test_refused_by_the_command(docker: DockerCLI, unused_name: str) -> None:
    for arguments, message in (
        (("a", "b"), "must specify at least one container source"),
        (("a:/x", "b:/y"), "copying between containers is not supported"),
        (("", "b:/y"), "source can not be empty"),
        (("a:/x", ""), "destination can not be empty"),
        ((f"{unused_name}:/x", "-"), f"No such container: {unused_name}"),
    ):
        error = docker.fails("cp", *arguments).err
        assert message in error or _OLD_NOT_FOUND in error


# -- Mounts, states, events --------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["created", "running", "stopped"])
def test_mounts(
    docker: DockerCLI, unused_name: str, target: Engine, tmp_path: Path, state: str
) -> None:
    """What is mounted is read from and written to, also behind a link, but not if it is read-only."""
    for name in ("rw", "ro"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "there").write_text(name)
    (tmp_path / "single").write_text("single")
    docker(
        *("create", "--name", unused_name, "-v", "cpvol:/vol", "-v", f"{tmp_path}/rw:/vol/in/rw"),
        *("-v", f"{tmp_path}/ro:/ro:ro", "-v", f"{tmp_path}/single:/etc/single"),
        *(IMAGE, "sleep", "1000"),
    )
    if state != "created":
        docker("start", unused_name)
    if state == "stopped":
        docker("stop", "-t", "0", unused_name)
    assert read(target, unused_name, "/ro/there")[0].size == 2
    assert [m.name for m in read(target, unused_name, "/vol")] == [
        "vol", "vol/in", "vol/in/rw", "vol/in/rw/there",
    ]  # fmt: skip
    assert read(target, unused_name, "/etc/single")[0].size == 6
    links = packed(("link", tarfile.SYMTYPE, b"", {"linkname": "/vol/in"}))
    assert put(target, unused_name, "/", links).status == 200
    assert put(target, unused_name, "/link/rw", packed(file("written"))).status == 200
    assert (tmp_path / "rw" / "written").read_text() == "new"
    assert put(target, unused_name, "/", packed(file("vol/file", b"volume"))).status == 200
    found = docker("run", "--rm", "-v", "cpvol:/x", IMAGE, "cat", "/x/file").out
    assert found == "volume"
    answer = put(target, unused_name, "/ro", packed(file("x")))
    assert answer.message == "mounted volume is marked read-only"
    assert put(target, unused_name, "/", packed(file("ro/x"))).status >= 400, (
        "by the name of an entry"
    )
    assert sorted(os.listdir(tmp_path / "ro")) == ["there"]
    answer = put(target, unused_name, "/etc", packed(file("single")))
    assert "device or resource busy" in answer.message
    assert (tmp_path / "single").read_text() == "single"


def test_read_only_root(docker: DockerCLI, unused_name: str, target: Engine) -> None:
    docker("create", "--name", unused_name, "--read-only", "-v", "/v", IMAGE, "sleep", "1000")
    for _ in range(2):
        answer = put(target, unused_name, "/tmp", packed(file("x")))
        assert answer.message == "container rootfs is marked read-only"
        assert put(target, unused_name, "/v", packed(file("x"))).status == 200
        assert put(target, unused_name, "/v", packed(file("../etc/x"))).status >= 400
        assert stat(target, unused_name, "/bin/busybox") is not None
        docker("start", unused_name)


def test_tmpfs_of_a_running_container(
    docker: DockerCLI, unused_name: str, target: Engine, only_sampan: None
) -> None:
    """dockerd 20.10 writes below what is mounted only in the container."""
    docker(
        "run", "-d", "--name", unused_name, "--read-only", "--tmpfs", "/tm", IMAGE, "sleep", "1000"
    )
    assert put(target, unused_name, "/tm", packed(file("x"))).status == 200
    assert docker("exec", unused_name, "cat", "/tm/x").out == "new"
    assert read(target, unused_name, "/tm/x")[0].size == 3


def test_written_files_are_the_containers(
    docker: DockerCLI, unused_name: str, target: Engine
) -> None:
    """They are seen in it, in its changes and its size, and by its next start."""
    docker("create", "--name", unused_name, IMAGE, "cat", "/data")
    assert "0B (virtual" in docker("ps", "-as", "--format", "{{.Size}}").out
    assert put(target, unused_name, "/", packed(file("data", b"d" * 1000))).status == 200
    assert docker("diff", unused_name).out == "A /data\n"
    assert "1kB (virtual" in docker("ps", "-as", "--format", "{{.Size}}").out
    assert docker("start", "-a", unused_name).out == "d" * 1000


def test_paused(docker: DockerCLI, unused_name: str, target: Engine) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, "sleep", "1000")
    docker("pause", unused_name)
    assert put(target, unused_name, "/tmp", packed(file("x"))).status == 200
    assert read(target, unused_name, "/tmp/x")[0].size == 3


def test_events(docker: DockerCLI, unused_name: str, target: Engine) -> None:
    docker("create", "--name", unused_name, IMAGE)
    stat(target, unused_name, "/")
    read(target, unused_name, "/etc")
    put(target, unused_name, "/", packed(file("x")))
    now = target.get("/info").json["SystemTime"]
    events = docker(
        *("events", "--since", "0", "--until", now, "--filter", f"container={unused_name}"),
        *("--format", "{{.Action}}"),
    ).out.split()
    assert events == ["create", "archive-path", "extract-to-dir"]


def test_the_old_copy(docker: DockerCLI, unused_name: str, target: Engine) -> None:
    """`POST /containers/{id}/copy` of the API before 1.24."""
    docker("create", "--name", unused_name, IMAGE)
    path = f"/containers/{unused_name}/copy"
    answer = target.post(f"/v1.20{path}", {"Resource": "/etc/passwd"})
    assert [member.name for member in members(answer.body)] == ["passwd"]
    assert target.post(f"/v1.41{path}", {"Resource": "/etc/passwd"}).status == 404
    assert target.post(f"/v1.20{path}", {"Resource": ""}).status == 400


def test_a_large_file_both_ways(
    newest_docker: DockerCLI, unused_name: str, target: Engine, tmp_path: Path
) -> None:
    newest_docker("create", "--name", unused_name, IMAGE)
    digest = hashlib.sha256()
    with open(tmp_path / "big", "wb") as big:
        for _ in range(48):
            block = os.urandom(1 << 20)
            digest.update(block)
            big.write(block)
        big.truncate(big.tell() + (8 << 20))
        digest.update(bytes(8 << 20))
    newest_docker("cp", str(tmp_path / "big"), f"{unused_name}:/big")
    os.unlink(tmp_path / "big")
    newest_docker("cp", f"{unused_name}:/big", str(tmp_path / "back"))
    with open(tmp_path / "back", "rb") as back:
        assert hashlib.file_digest(back, "sha256").digest() == digest.digest()
