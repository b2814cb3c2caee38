"""Files in and out of containers that fight back, of clients that go away, of a daemon that is killed."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import hostile
from support.engines import IMAGE, SampanEngine
from support.http import Answer
from support.waiting import wait_for

pytestmark = pytest.mark.root

RACE_S = 2.5


def start(engine: SampanEngine, name: str, script: str, **host: Any) -> str:
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], "HostConfig": host}
    assert engine.post("/containers/create", body, name=name).status == 201
    assert engine.post(f"/containers/{name}/start").status == 204
    return name


def create(engine: SampanEngine, name: str, **config: Any) -> str:
    body = {"Image": IMAGE, "Cmd": ["sleep", "1000"], **config}
    assert engine.post("/containers/create", body, name=name).status == 201
    return name


def archive(engine: SampanEngine, method: str, name: str, path: str, **options: Any) -> Answer:
    query = {"path": path, **options.pop("query", {})}
    return engine.request(method, f"/containers/{name}/archive", query=query, **options)


def put(engine: SampanEngine, name: str, path: str, body: bytes, **query: str) -> Answer:
    return archive(engine, "PUT", name, path, raw=body, query=query)


def packed(*entries: tuple[str, bytes, bytes, dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, data, fields in entries:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mode = kind, len(data), 0o777
            for field, value in fields.items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory of the machine that no container may reach, with a secret."""
    path = tmp_path / "outside"
    (path / "sub").mkdir(parents=True)
    (path / "secret").write_bytes(b"the secret")
    (path / "secret").chmod(0o600)
    before = picture(path)
    yield path
    assert picture(path) == before


def picture(top: Path) -> list[tuple[object, ...]]:
    seen = []
    for path in [top, *sorted(top.rglob("*"))]:
        found = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        seen.append(
            (str(path), found.st_mode, found.st_uid, found.st_mtime_ns, found.st_nlink, data)
        )
    return seen


def test_directories_exchanged_for_links(
    engine: SampanEngine, unused_name: str, outside: Path
) -> None:
    """While a container puts links to the machine's files where directories were."""
    script = (
        f"mkdir -p /t/d/sub; echo mine >/t/d/secret; touch /ready; while :; do mv /t/d /t/e; "
        f"ln -s {outside} /t/d; mv -T /t/d /t/x 2>/dev/null; rm -rf /t/x /t/d; mv /t/e /t/d; done"
    )
    start(engine, unused_name, script)
    wait_for(lambda: archive(engine, "HEAD", unused_name, "/ready").status == 200, "the tree")
    fields = {"uid": 1, "gid": 2}
    body = packed(
        ("d", tarfile.DIRTYPE, b"", fields),
        ("d/sub/deep", tarfile.REGTYPE, b"data", fields),
        ("d/made", tarfile.REGTYPE, b"data", fields),
        ("d/secret", tarfile.REGTYPE, b"data", fields),
        ("d/pipe", tarfile.FIFOTYPE, b"", fields),
        ("d/sub", tarfile.DIRTYPE, b"", fields),
        ("d/link", tarfile.LNKTYPE, b"", {"linkname": "d/secret"}),
    )
    statuses = set()
    end = time.monotonic() + RACE_S
    while time.monotonic() < end:
        statuses.add(put(engine, unused_name, "/t", body).status)
        statuses.add(put(engine, unused_name, "/t/d", packed(("x", b"0", b"x", {}))).status)
        for path in ("/t/d/secret", "/t/d/", "/t"):
            answer = archive(engine, "GET", unused_name, path)
            statuses.add(answer.status)
            assert b"the secret" not in answer.body
    assert 200 in statuses and 500 not in statuses, statuses


def test_nodes_exchanged_for_links(engine: SampanEngine, unused_name: str, outside: Path) -> None:
    """A node gets its mode, and not what has taken its place."""
    script = f"mkdir /t; touch /ready; while :; do rm -f /t/n; ln -s {outside}/secret /t/n; done"
    start(engine, unused_name, script)
    wait_for(lambda: archive(engine, "HEAD", unused_name, "/ready").status == 200, "the tree")
    body = packed(*(("n", tarfile.FIFOTYPE, b"", {"uid": 5}) for _ in range(200)))
    end = time.monotonic() + RACE_S
    while time.monotonic() < end:
        put(engine, unused_name, "/t", body)


@pytest.mark.parametrize("running", [True, False])
def test_hostile_archives(
    engine: SampanEngine, unused_name: str, outside: Path, running: bool
) -> None:
    """The corpus of layers: taken or refused, and nothing outside changes."""
    create(engine, unused_name)
    if running:
        engine.post(f"/containers/{unused_name}/start")
    for file_name in sorted(os.listdir(hostile.CORPUS))[:: 1 if running else 5]:
        with gzip.open(os.path.join(hostile.CORPUS, file_name)) as file:
            data = file.read()
        answer = put(engine, unused_name, "/tmp", data)
        assert answer.status in (200, 400, 403, 503), (file_name, answer)
    assert engine.get("/_ping").status == 200


def test_a_passwd_that_is_a_pipe(engine: SampanEngine, unused_name: str) -> None:
    create(engine, unused_name, User="user")
    body = packed(("etc/passwd", tarfile.FIFOTYPE, b"", {}))
    assert put(engine, unused_name, "/", body).status == 200
    answer = put(engine, unused_name, "/", packed(("x", b"0", b"", {})), copyUIDGID="1")
    assert "unable to find user" in answer.message


def test_a_tree_too_deep_for_a_tar(engine: SampanEngine, unused_name: str) -> None:
    """The answer breaks off, the engine goes on."""
    long = "n" * 200
    script = (
        f"cd /tmp; for i in $(seq 30); do mkdir {long}; cd {long}; done; touch /ready; sleep 1000"
    )
    start(engine, unused_name, script)
    wait_for(lambda: archive(engine, "HEAD", unused_name, "/ready").status == 200, "the tree")
    try:
        answer = archive(engine, "GET", unused_name, "/tmp")
        assert answer.status == 500 and "file name too long" in answer.message
    except ConnectionError:
        pass
    assert archive(engine, "GET", unused_name, f"/tmp/{long}/{long}/{long}").status in (200, 500)


def test_a_full_disk(engine: SampanEngine, unused_name: str) -> None:
    start(engine, unused_name, "sleep 1000", Tmpfs={"/small": "size=65536"})
    body = packed(("big", tarfile.REGTYPE, b"x" * (1 << 20), {}))
    answer = put(engine, unused_name, "/small", body)
    assert (answer.status, answer.message) == (503, "/small/big: no space left on device")
    assert put(engine, unused_name, "/tmp", body).status == 200


def test_a_container_that_ends_meanwhile(engine: SampanEngine, unused_name: str) -> None:
    """Its volumes went with it: what follows must not land below their mount points."""
    start(engine, unused_name, "sleep 1000", Binds=["cpgone:/v"])
    body = packed(("a", b"0", b"1", {}), ("big", b"0", b"x" * (1 << 20), {}), ("b", b"0", b"2", {}))

    def pieces() -> Iterator[bytes]:
        yield body[:4096]
        path = "/v/a"
        wait_for(lambda: archive(engine, "HEAD", unused_name, path).status == 200, "the first file")
        assert engine.post(f"/containers/{unused_name}/kill").status == 204
        wait_for(
            lambda: not engine.get(f"/containers/{unused_name}/json").json["State"]["Running"],
            "the container to end",
        )
        yield body[4096:]

    answer = archive(engine, "PUT", unused_name, "/v", raw=pieces())
    assert (answer.status, "ended meanwhile" in answer.message) == (409, True)
    assert archive(engine, "HEAD", unused_name, "/v/b").status == 404
    assert engine.delete(f"/containers/{unused_name}", v=True).status == 204
    assert engine.delete("/volumes/cpgone").status == 204


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_client_that_goes_away(engine: SampanEngine, unused_name: str, method: str) -> None:
    """The container, which was not to be started meanwhile, can be started then."""
    create(engine, unused_name)
    big = packed(("big", tarfile.REGTYPE, os.urandom(1 << 20) * 32, {}))
    assert put(engine, unused_name, "/", big).status == 200
    path = f"/containers/{unused_name}/archive?path=/"
    with engine.connect() as connection:
        if method == "GET":
            connection.start("GET", path)
            connection.read_head()
        else:
            connection.send_head("PUT", path, {"Content-Length": str(len(big))})
            connection.sock.sendall(big[: 1 << 20])
            partial = f"/containers/{unused_name}/json"
            assert engine.get(partial).status == 200, "others are answered"
    assert engine.post(f"/containers/{unused_name}/start").status == 204


def mounts_below(directory: str) -> list[str]:
    with open("/proc/self/mountinfo") as file:
        return [line.split()[4] for line in file if line.split()[4].startswith(directory + "/")]


def test_the_daemon_killed_in_the_middle(own_sampan: SampanEngine, unused_name: str) -> None:
    """Nothing stays mounted, the container is as usable as before."""
    engine = own_sampan
    create(engine, unused_name, HostConfig={"Binds": ["cpvol:/v"]})
    big = packed(("first", b"0", b"1", {}), ("big", b"0", bytes(1 << 20), {}))
    with engine.connect() as connection:
        path = f"/containers/{unused_name}/archive?path=/v"
        connection.send_head("PUT", path, {"Content-Length": str(len(big))})
        connection.sock.sendall(big[: 1 << 19])
        written = f"{engine.data_root}/volumes/cpvol/_data/big"
        wait_for(lambda: os.path.exists(written), "the file to be begun")
        assert mounts_below(engine.directory) == [], "the machine sees no mount of it"
        engine.kill()
    assert mounts_below(engine.directory) == []
    engine.start()
    assert archive(engine, "HEAD", unused_name, "/v/first").status == 200
    assert put(engine, unused_name, "/v", big).status == 200
    assert engine.post(f"/containers/{unused_name}/start").status == 204
