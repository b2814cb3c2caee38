"""`sampan image from-host`: programs of this machine become an image in which they run."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from sampan.cli.failures import CommandError
from sampan.cli.making.archive import Archive
from sampan.cli.making.collection import Collection
from sampan.cli.making.programs import Programs
from support import elves
from support.command import Result, run
from support.engines import SampanEngine

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")
SEARCHED = "/usr/bin:/bin"


def sampan_cli(engine: SampanEngine | None, *arguments: str, check: bool = True, **environ: str) -> Result:  # fmt: skip
    environment = {"PATH": SEARCHED, **environ}
    if engine is not None:
        environment["SAMPAN_HOST"] = f"unix://{engine.socket}"
    return run([SAMPAN, *arguments], env=environment, check=check)


def members(*programs: str, include: tuple[str, ...] = ()) -> dict[str, tarfile.TarInfo]:
    collecting = Programs(SEARCHED)
    collecting.add(programs)
    for path in include:
        collecting.include(path)
    return listed(Archive(collecting.finish()))


def listed(archive: Archive) -> dict[str, tarfile.TarInfo]:
    data = b"".join(archive.blocks())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar}


@pytest.mark.root
def test_an_image_to_run(sampan: SampanEngine) -> None:
    """Named, with the first program as its command; scripts find their shell, names are looked up."""
    made = sampan_cli(
        sampan, "image", "from-host", "sh,ls,id", "cat,egrep,grep,getent", "-t", "tools:1"
    )
    note, line = made.err.splitlines()
    assert note == "note: /usr/bin/egrep is a script: programs that it runs have to be named too"
    assert line.startswith("sh, ls, id, cat, egrep, grep, getent: ")
    found = sampan.get("/images/tools:1/json").json
    assert found["Id"] == made.line
    assert found["Config"]["Cmd"] == ["/usr/bin/sh"]
    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in found["Config"]["Env"]  # fmt: skip
    script = "id -un; getent passwd 65534; echo one | egrep -c one; ls /bin/sh /tmp; cat /etc/group"
    ran = sampan_cli(sampan, "run", "--rm", "--network", "none", "tools:1", "sh", "-c", script)
    assert ran.out.splitlines()[:4] == ["root", "nobody:x:65534:65534:nobody:/nonexistent:/bin/false", "1", "/bin/sh"]  # fmt: skip


@pytest.mark.root
def test_the_same_files_give_the_same_layer(sampan: SampanEngine) -> None:
    layers = set()
    for tag in ("again:1", "again:2"):
        sampan_cli(sampan, "image", "from-host", "cat", "-q", "-t", tag)
        layers.add(tuple(sampan.get(f"/images/{tag}/json").json["RootFS"]["Layers"]))
    assert len(layers) == 1


@pytest.mark.root
def test_changes_come_last(sampan: SampanEngine) -> None:
    made = sampan_cli(sampan, "image", "from-host", "cat", "-q", "-c", 'CMD ["cat", "/etc/group"]', "-c", "ENV A=1")  # fmt: skip
    assert made.err == ""
    assert sampan_cli(sampan, "run", "--rm", "--network", "none", made.line).out.startswith("root:x:0:")  # fmt: skip


@pytest.mark.root
def test_a_library_outside_of_the_usual_directories(sampan: SampanEngine, tmp_path: Path) -> None:
    """Only the machine's ld.so.cache leads there; so the image has a cache, too."""
    real = next(line.split()[-1] for line in run(["/sbin/ldconfig", "-p"]).out.splitlines() if "libz.so.1 (libc6,x86-64" in line)  # fmt: skip
    moved = tmp_path / "lib" / "libz.so.1"
    moved.parent.mkdir()
    shutil.copy(real, moved)
    program = Programs(SEARCHED)
    program._loader._cache["libz.so.1"] = [str(moved)]
    program.add(["/usr/bin/git" if os.path.exists("/usr/bin/git") else "/usr/bin/dpkg-deb"])
    collection = program.finish()
    assert str(moved) in collection and real not in collection
    assert str(moved).encode() in (collection.made["/etc/ld.so.cache"][1] or b"")
    answer = sampan.request("POST", "/images/create", raw=b"".join(Archive(collection).blocks()), query={"fromSrc": "-", "repo": "cached"})  # fmt: skip
    assert answer.status == 200
    ran = sampan_cli(sampan, "run", "--rm", "--network", "none", "cached", program.paths[0], "--version")  # fmt: skip
    assert "version" in ran.out


def test_what_is_in_it() -> None:
    """Links stay links, and only what is needed is there."""
    found = members("sh")
    assert found["usr/bin/sh"].issym() and found["usr/bin/sh"].linkname == "dash"
    assert found["usr/bin/dash"].isreg() and found["usr/bin/dash"].mode == 0o755
    if os.path.islink("/bin"):
        assert found["bin"].issym()
    assert found["tmp"].mode == 0o1777 and found["root"].mode == 0o700
    assert found["usr/bin"].mtime == found["etc/passwd"].mtime == 0
    assert found["usr/bin/dash"].mtime == int(os.stat("/usr/bin/dash").st_mtime)
    programs = [name for name in found if name.startswith(("usr/bin/", "usr/sbin/"))]
    assert sorted(programs) == ["usr/bin/dash", "usr/bin/sh"]


def test_script_interpreters(tmp_path: Path) -> None:
    for name, line in (("one", "#! /bin/sh -e"), ("two", "#!/usr/bin/env -S A=1 bash -e")):
        (tmp_path / name).write_text(f"{line}\ntrue\n")
        (tmp_path / name).chmod(0o755)
    found = members(f"{tmp_path}/one", f"{tmp_path}/two")
    assert {"usr/bin/dash", "usr/bin/env", "usr/bin/bash"} <= set(found)


def test_included_directories(tmp_path: Path) -> None:
    """With what their links lead to, hard links as such, plugins with their libraries."""
    top = tmp_path / "top"
    (top / "deep").mkdir(parents=True)
    (top / "a").write_text("a")
    os.link(top / "a", top / "b")
    outside = tmp_path / "outside"
    outside.write_text("outside")
    (top / "deep/link").symlink_to("../../outside")
    (top / "deep/nowhere").symlink_to("/no/such/thing")
    (top / "plugin.so").write_bytes(elves.elf(needed=["libc.so.6"]))
    found = members(include=(str(top),))
    here = str(top)[1:]
    assert found[f"{here}/b"].islnk() and found[f"{here}/b"].linkname == f"{here}/a"
    assert found[str(outside)[1:]].isreg()
    assert found[f"{here}/deep/nowhere"].issym()
    assert any(name.endswith("/libc.so.6") for name in found)


def test_certificates() -> None:
    if not os.path.isdir("/etc/ssl/certs"):
        pytest.skip("needs ca-certificates")
    found = members(include=("/etc/ssl/certs",))
    assert any(name.startswith("usr/share/ca-certificates/") for name in found)
    assert not os.path.lexists("/usr/lib/ssl/certs") or "usr/lib/ssl/certs" in found


def test_failures(tmp_path: Path) -> None:
    """What cannot be made says what is missing, all of it, and makes nothing."""
    missing = sampan_cli(None, "image", "from-host", "sh,no-such-1,no-such-2", check=False)
    assert (missing.code, missing.out) == (1, "")
    assert missing.err == f"not found in PATH: no-such-1, no-such-2\nPATH is {SEARCHED}\n"
    assert sampan_cli(None, "image", "from-host", check=False).err == "no program is named\n"
    lacking = tmp_path / "lacking"
    lacking.write_bytes(elves.elf(needed=["libnosuch.so.9"]))
    collecting = Programs(SEARCHED)
    collecting.add([str(lacking)])
    with pytest.raises(CommandError, match=f"{lacking} needs libnosuch.so.9, which is not on this"):
        collecting.finish()
    lost = tmp_path / "lost"
    lost.write_text("#!/no/such/interpreter\n")
    with pytest.raises(CommandError, match="cannot read /no: no such file"):  # fmt: skip
        Programs(SEARCHED).add([str(lost)])
    loop = tmp_path / "loop"
    loop.write_text(f"#!{loop}\n")
    with pytest.raises(CommandError, match="too many interpreters"):
        Programs(SEARCHED).add([str(loop)])


def test_a_plugin_that_lacks_a_library_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "plugin.so").write_bytes(elves.elf(needed=["libnosuch.so.9"]))
    (tmp_path / "broken.so").write_bytes(elves.elf()[:70])
    collecting = Programs(SEARCHED)
    collecting.include(str(tmp_path))
    collecting.finish()
    assert any("needs libnosuch.so.9" in note for note in collecting.notes)
    assert any("damaged ELF" in note for note in collecting.notes)


def test_a_file_that_changes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    collection = Collection()
    collection.add(str(path))
    archive = Archive(collection)
    path.write_bytes(b"x" * 10)
    with pytest.raises(CommandError, match="changed while it was read"):
        b"".join(archive.blocks())


def test_paths_with_links(tmp_path: Path) -> None:
    """Each link on the way is taken, loops are found, `..` is where the link leads."""
    (tmp_path / "real/deep").mkdir(parents=True)
    (tmp_path / "real/file").write_text("x")
    (tmp_path / "one").symlink_to("real/deep")
    (tmp_path / "loop").symlink_to("loop")
    collection = Collection(str(tmp_path))
    assert collection.add("/one/../file") == "/real/file"
    assert set(collection.found) == {"/one", "/real", "/real/deep", "/real/file"}
    with pytest.raises(OSError, match="Too many levels"):
        collection.add("/loop/x")
    with pytest.raises(NotADirectoryError):
        collection.add("/real/file/x")


def test_a_tar_in_a_file(tmp_path: Path) -> None:
    """No engine is needed for it; SOURCE_DATE_EPOCH is the latest time."""
    path = tmp_path / "out.tar"
    done = sampan_cli(None, "image", "from-host", "cat", "-o", str(path), SOURCE_DATE_EPOCH="1000000000")  # fmt: skip
    assert done.out == ""
    with tarfile.open(path) as tar:
        assert max(member.mtime for member in tar) == 1000000000
    bad = sampan_cli(None, "image", "from-host", "cat", "-o", "-", check=False, SOURCE_DATE_EPOCH="x")  # fmt: skip
    assert "SOURCE_DATE_EPOCH is no number" in bad.err
