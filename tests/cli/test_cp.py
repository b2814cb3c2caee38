"""`sampan cp` beside `docker cp`: the same files in the same places, the same words when refused."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.command import DockerCLI, docker_clis
from support.engines import IMAGE, SampanEngine

pytestmark = [pytest.mark.root, pytest.mark.docker_cli]

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")

OUT = """
/t/d TOP
/t/d TOP/new
/t/d/ TOP/new/
/t/d/. TOP
/t/d/. TOP/new
/t/d TOP/dir
/t/d TOP/dir/.
/t/d/f TOP
/t/d/f TOP/new
/t/d/f TOP/old
/t/d/f TOP/dir
/t/d/f TOP/to-old
/t/d/f TOP/to-dir
/t/d/f TOP/dangling
/t/d/f TOP/new/
/t/d/f TOP/new/.
/t/d/f TOP/no/where
/t/d TOP/old
/t/d TOP/kinds
/t/d/sub TOP/to-dir/
/t/abs TOP/new
/t/abs/ TOP/new
/t/abs/. TOP/dir
-L /t/abs TOP
-L /t/abs TOP/new
-L /t/file TOP
-L /t/file TOP/dir/
-L /t/dangling TOP
-L /nope TOP
-q /t/d/f TOP
/t/dangling TOP
/nope TOP
/t/d/f/ TOP
/t TOP
/t/d/f -
/t/d -
/nope -
/t/p TOP
/ü TOP
""".strip().splitlines()

IN = """
TOP/src /new
TOP/src /new/
TOP/src/. /new
TOP/src/. /t/d
TOP/src/ /t/d
TOP/src /t/d/sub
TOP/src /t/d/f
TOP/src/a /t/d
TOP/src/a /t/d/f
TOP/src/a /t/d/f/
TOP/src/a /t/d/sub/
TOP/src/a /new
TOP/src/a /new/
TOP/src/a /no/where
TOP/src/a /t/abs
TOP/src/a /t/file
TOP/src/a /t/dangling
TOP/src/a /t/null
TOP/src/ln /new
TOP/src/ln /t
-L TOP/src/ln /new
-L TOP/src/ln /t
-L TOP/to-src /t
-L TOP/to-src/. /t
TOP/to-src /t
TOP/to-src/ /t
TOP/to-src/. /t
TOP/to-src/a /t
-a TOP/src /t
-a TOP/src/a /new
-q TOP/src/a t/d
TOP/nope /t
-L TOP/nope /t
TOP/src/broken /t
-L TOP/src/broken /t
- /t
- /t/d/f
- /nope
TOP/src /
TOP/src/ü /ü
""".strip().splitlines()

REFUSED = [
    ("a", "b"),
    ("a:/x", "b:/y"),
    ("", "b:/y"),
    ("a:/x", ""),
    ("a",),
    ("nope:/x", "-"),
    ("nope:/x", "."),
    ("/etc/passwd", "nope:/x"),
    ("./a:b", "."),
    ("--bad", "a", "b"),
    ("--help",),
]


@pytest.fixture(scope="module")
def engine(sampan: SampanEngine) -> Iterator[SampanEngine]:
    yield sampan
    sampan.remove_containers()


@pytest.fixture
def both(engine: SampanEngine) -> tuple[DockerCLI, DockerCLI]:
    return engine.cli(next(iter(docker_clis().values()))), engine.cli(SAMPAN)


def prepared(engine: SampanEngine, name: str) -> None:
    answer = engine.post("/containers/create", {"Image": IMAGE, "User": "1000"}, name=name)
    assert answer.status == 201, answer
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(path: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> None:
            member = tarfile.TarInfo(path)
            member.type, member.size, member.mtime = kind, len(data), 1_600_000_000
            member.mode = 0o755
            for field, value in fields.items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(data))

        add("t", tarfile.DIRTYPE)
        add("t/d", tarfile.DIRTYPE, mode=0o2750)
        add("t/d/f", data=b"hi\n", mode=0o4751, uid=9)
        add("t/d/h", tarfile.LNKTYPE, linkname="t/d/f", mode=0o4751)
        add("t/d/l", tarfile.SYMTYPE, linkname="f")
        add("t/d/sub", tarfile.DIRTYPE, mode=0o1777)
        add("t/abs", tarfile.SYMTYPE, linkname="/t/d")
        add("t/file", tarfile.SYMTYPE, linkname="d/f")
        add("t/dangling", tarfile.SYMTYPE, linkname="/nowhere/x")
        add("t/p", tarfile.FIFOTYPE)
        add("t/null", tarfile.CHRTYPE, devmajor=1, devminor=3)
        add("ü", data=b"umlaut")
    answer = engine.request(
        "PUT", f"/containers/{name}/archive", query={"path": "/"}, raw=buffer.getvalue()
    )
    assert answer.status == 200, answer


def local_tree(top: Path) -> None:
    (top / "src" / "sub").mkdir(parents=True)
    (top / "src" / "a").write_text("content\n")
    os.chmod(top / "src" / "a", 0o4711)
    os.chown(top / "src" / "a", 7, 8)
    os.link(top / "src" / "a", top / "src" / "sub" / "hard")
    (top / "src" / "ln").symlink_to("a")
    (top / "src" / "broken").symlink_to("nowhere")
    (top / "src" / "ü").write_text("ü")
    (top / "to-src").symlink_to("src")
    (top / "dir").mkdir()
    (top / "old").write_text("old")
    (top / "kinds" / "d" / "sub").mkdir(parents=True)
    (top / "kinds" / "d" / "f").mkdir()
    (top / "to-old").symlink_to("old")
    (top / "to-dir").symlink_to("dir")
    (top / "dangling").symlink_to("made")
    for path in top.rglob("*"):
        os.utime(path, (1_500_000_000, 1_500_000_000), follow_symlinks=False)


def pictured(top: Path) -> dict[str, tuple[object, ...]]:
    """Each path with what copying is to keep."""
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content: object = ""
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        time = 0 if path.is_dir() else int(status.st_mtime)
        found[str(path.relative_to(top))] = (
            oct(status.st_mode), status.st_uid, status.st_gid, status.st_nlink, time, content
        )  # fmt: skip
    return found


def in_container(engine: SampanEngine, name: str) -> list[tuple[object, ...]]:
    answer = engine.request("GET", f"/containers/{name}/archive", query={"path": "/"})
    wanted = ("/t", "/new", "/ü", "/src", "/nowhere")
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        return [
            (m.name, m.type, oct(m.mode), m.uid, m.gid, m.linkname, 0 if m.isdir() else int(m.mtime), m.size)
            for m in tar
            if m.name.startswith(wanted) and not m.name.startswith("/tmp")
        ]  # fmt: skip


def outcome(
    engine: SampanEngine, cli: DockerCLI, line: str, name: str, top: Path, see: Callable[[], object],
    *, out: bool,
) -> tuple[object, ...]:  # fmt: skip
    prepared(engine, name)
    top.mkdir()
    local_tree(top)
    *flags, source, target = line.split()
    source, target = (f"{name}:{source}", target) if out else (source, f"{name}:{target}")
    stdin = None
    if source == "-":
        stdin = engine.request("GET", f"/containers/{name}/archive", query={"path": "/t/d"}).body
    done = cli(
        "cp", *flags, source.replace("TOP", str(top)), target.replace("TOP", str(top)), stdin=stdin,
        check=False,
    )  # fmt: skip
    lines = [line for line in done.err.split("\n") if not line.startswith("time=")]  # docker's log
    error = lines[0].replace(name, "NAME").replace(str(top), "TOP")
    raw = tar_members(done.raw) if target == "-" and done.code == 0 else done.out
    return done.code, raw, error, see()


def tar_members(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


@pytest.mark.parametrize("line", OUT)
def test_out(
    engine: SampanEngine, both: tuple[DockerCLI, DockerCLI], unused_name: str, tmp_path: Path, line: str
) -> None:  # fmt: skip
    told = []
    for number, cli in enumerate(both):
        top = tmp_path / f"top{number}"
        told.append(
            outcome(
                engine,
                cli,
                line,
                f"{unused_name}{number}",
                top,
                lambda top=top: pictured(top),
                out=True,
            )  # type: ignore[misc]
        )
        shutil.rmtree(top)
    assert told[1] == told[0]


@pytest.mark.parametrize("line", IN)
def test_in(
    engine: SampanEngine, both: tuple[DockerCLI, DockerCLI], unused_name: str, tmp_path: Path, line: str
) -> None:  # fmt: skip
    told = []
    for number, cli in enumerate(both):
        name = f"{unused_name}{number}"
        see = lambda name=name: in_container(engine, name)  # noqa: E731
        told.append(outcome(engine, cli, line, name, tmp_path / f"top{number}", see, out=False))
    assert told[1] == told[0]


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_refused(both: tuple[DockerCLI, DockerCLI], arguments: tuple[str, ...]) -> None:
    docker, sampan = (cli("cp", *arguments, check=False) for cli in both)
    assert sampan.code == docker.code
    expected = docker.err.split("\n")[0].replace("docker", "sampan")
    assert sampan.err.split("\n")[0] == expected


def test_progress_on_a_terminal(
    engine: SampanEngine, both: tuple[DockerCLI, DockerCLI], unused_name: str, tmp_path: Path
) -> None:
    prepared(engine, unused_name)
    for cli in both:
        with cli.terminal("cp", f"{unused_name}:/t/d/f", f"{tmp_path}/f") as terminal:
            terminal.expect(f"to {tmp_path}/f")
            assert terminal.wait() == 0
        with cli.terminal("cp", f"{tmp_path}/f", f"{unused_name}:/new") as terminal:
            assert "Successfully copied " in terminal.expect(f"to {unused_name}:/new")
        with cli.terminal("cp", "-q", f"{tmp_path}/f", f"{unused_name}:/new") as terminal:
            assert terminal.wait() == 0
            assert b"Successfully" not in terminal.screen
