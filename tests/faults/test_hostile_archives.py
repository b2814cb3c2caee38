"""Archives that try to write outside: nothing there is touched, whatever becomes of the image."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator

import pytest

from support.engines import SampanEngine
from support.rootfs import image_tar
from support.waiting import wait_for

Entry = tuple[str, bytes, str, bytes]  # name, type, link name, content


def tar(*entries: Entry) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind, link, content in entries:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size, member.mode = kind, link, len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def outside(sampan: SampanEngine) -> Iterator[str]:
    """A directory that no archive may touch."""
    path = os.path.join(sampan.directory, "outside")
    os.mkdir(path)
    with open(os.path.join(path, "victim"), "w") as file:
        file.write("untouched")
    yield path
    assert os.listdir(path) == ["victim"]
    with open(os.path.join(path, "victim")) as file:
        assert file.read() == "untouched"
    assert os.stat(os.path.join(path, "victim")).st_nlink == 1
    os.unlink(os.path.join(path, "victim"))
    os.rmdir(path)


FILE, LINK, HARD, DIRECTORY, DEVICE = (
    tarfile.REGTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.DIRTYPE,
    tarfile.CHRTYPE,
)

ATTACKS: dict[str, Callable[[str], bytes]] = {
    "dot dot": lambda out: tar(("../" * 20 + out.lstrip("/") + "/new", FILE, "", b"x")),
    "absolute": lambda out: tar((f"{out}/new", FILE, "", b"x")),
    "through an absolute link": lambda out: tar(("link", LINK, out, b""), ("link/new", FILE, "", b"x")),
    "through a relative link": lambda out: tar(("link", LINK, "../" * 20 + out.lstrip("/"), b""), ("link/new", FILE, "", b"x")),
    "through link to link": lambda out: tar(("a", LINK, out, b""), ("b", LINK, "a", b""), ("b/new", FILE, "", b"x")),
    "through .. of a link": lambda out: tar(("d", DIRECTORY, "", b""), ("d/up", LINK, "../..", b""), (f"d/up{out}/new", FILE, "", b"x")),
    "over a link": lambda out: tar(("victim", LINK, f"{out}/victim", b""), ("victim", FILE, "", b"touched")),
    "hard link out": lambda out: tar(("hard", HARD, f"{out}/victim", b""), ("hard", FILE, "", b"touched")),
    "hard link out by dots": lambda out: tar(("hard", HARD, "../" * 20 + out.lstrip("/") + "/victim", b""), ("hard", FILE, "", b"touched")),
    "hard link through a link": lambda out: tar(("l", LINK, out, b""), ("hard", HARD, "l/victim", b""), ("hard", FILE, "", b"touched")),
    "whiteout of the parent": lambda out: tar(("../" * 20 + out.lstrip("/") + "/.wh.victim", FILE, "", b"")),
    "whiteout through a link": lambda out: tar(("l", LINK, out, b""), ("l/.wh.victim", FILE, "", b"")),
    "opaque through a link": lambda out: tar(("l", LINK, out, b""), ("l/.wh..wh..opq", FILE, "", b"")),
    "directory over a link": lambda out: tar(("l", LINK, out, b""), ("l", DIRECTORY, "", b""), ("l/new", FILE, "", b"x")),
    "device node": lambda out: tar(("dev/evil", DEVICE, "", b"")),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("way", ["import", "load"])
def test_nothing_outside_is_touched(
    engine: SampanEngine, outside: str, unused_name: str, attack: str, way: str
) -> None:
    layer = ATTACKS[attack](outside)
    if way == "import":
        answer = engine.request(
            "POST", "/images/create", raw=layer, query={"fromSrc": "-", "repo": unused_name}
        )
    else:
        answer = engine.request(
            "POST", "/images/load", raw=image_tar(f"{unused_name}:latest", [layer])
        )
    assert answer.status in (200, 400, 500), answer
    assert b"Traceback" not in answer.body
    removed = engine.delete(f"/images/{unused_name}")
    assert removed.status in (200, 404)


@pytest.mark.parametrize(
    "body",
    [
        image_tar(None, []),
        tar(("manifest.json", FILE, "", b"[]")),
        tar(("manifest.json", FILE, "", b"{}")),
        tar(
            (
                "manifest.json",
                FILE,
                "",
                b'[{"Config": "../../../../etc/passwd", "RepoTags": ["a:b"], "Layers": []}]',
            )
        ),
        tar(("manifest.json", LINK, "/etc/passwd", b"")),
        tar(
            (
                "manifest.json",
                FILE,
                "",
                b'[{"Config": "c", "RepoTags": ["a:b"], "Layers": ["/etc/passwd"]}]',
            ),
            ("c", FILE, "", b"{}"),
        ),
        tar(
            ("index.json", FILE, "", b"{}"),
            ("oci-layout", FILE, "", b'{"imageLayoutVersion": "9"}'),
        ),
        image_tar("x:y", [b"not a tar" * 100]),
        image_tar("x:y", [tar(("a", FILE, "", b"x"))[:700]]),
        b"\x1f\x8b" + b"rubbish" * 1000,
        b"\x28\xb5\x2f\xfd" + b"rubbish" * 1000,
        b"",
    ],
    ids=range(12),
)
def test_broken_archives_are_refused(engine: SampanEngine, body: bytes) -> None:
    before = {entry["Id"] for entry in engine.get("/images/json", all=1).json}
    answer = engine.request("POST", "/images/load", raw=body)
    assert answer.status in (200, 400, 500), answer
    assert b"Traceback" not in answer.body
    assert b"root:x:0" not in answer.body
    for entry in engine.get("/images/json", all=1).json:
        if entry["Id"] not in before:
            engine.delete(f"/images/{entry['Id']}", force=1)


def test_a_load_that_breaks_off_leaves_no_blob(engine: SampanEngine) -> None:
    blobs = os.path.join(engine.data_root, "blobs", "sha256")
    before = set(os.listdir(blobs))
    whole = image_tar("broken:off", [tar(("file", FILE, "", os.urandom(1 << 20)))])
    with engine.connect() as connection:
        connection.send_head("POST", "/images/load", {"Content-Length": str(len(whole))})
        connection.sock.sendall(whole[: len(whole) // 2])
    wait_for(lambda: set(os.listdir(blobs)) == before, "the half blob to be gone")
    assert engine.get("/images/broken:off/json").status == 404
