"""Which files a program needs: ELF files read, libraries found as ld.so(8) finds them."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.cli.making import elf, ldcache
from sampan.cli.making.loader import DLOPENED, Loader
from support import elves

LOADER = "/lib64/ld-linux-x86-64.so.2"
PROGRAMS = ("bash", "ls", "curl", "git", "perl", "ssh", "python3", "podman", "dpkg", "ip", "nft")


def put(path: Path, data: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("order", ["<", ">"])
def test_reading(tmp_path: Path, bits: int, order: str) -> None:
    data = elves.elf(
        interpreter="/lib/ld.so", needed=["liba.so.1", "libb.so"], soname="me.so",
        rpath="/r:$ORIGIN/x", runpath="/u::/v", machine=8, bits=bits, order=order,
    )  # fmt: skip
    found = elf.read(put(tmp_path / "f", data))
    assert found is not None
    assert (found.interpreter, found.needed) == ("/lib/ld.so", ["liba.so.1", "libb.so"])
    assert (found.rpath, found.runpath) == (["/r", "$ORIGIN/x"], ["/u", "/v"])
    assert (found.soname, found.bits, found.kind[2]) == ("me.so", bits, 8)


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fEL", b"MZ"])
def test_other_files(tmp_path: Path, data: bytes) -> None:
    assert elf.read(put(tmp_path / "f", data)) is None


GOOD = elves.elf(interpreter="/lib/ld.so", needed=["liba.so.1"], runpath="/u")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    changes=st.lists(
        st.tuples(st.integers(4, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=8
    ),
    length=st.integers(0, len(GOOD)),
)
def test_damaged_files(tmp_path: Path, changes: list[tuple[int, int]], length: int) -> None:
    """Whatever is wrong with one, it is BadElf, nothing else, and costs no memory."""
    data = bytearray(GOOD)
    for position, byte in changes:
        data[position] = byte
    path = put(tmp_path / "f", bytes(data[: length or None]))
    try:
        elf.read(path)
    except elf.BadElf as error:
        assert path in str(error)


def test_huge_numbers(tmp_path: Path) -> None:
    """A table said to be at the end of the address space, or of 4 GiB."""
    data = bytearray(GOOD)
    struct.pack_into("<Q", data, 32, 0xFFFFFFFFFFFFFF00)
    with pytest.raises(elf.BadElf):
        elf.read(put(tmp_path / "f", bytes(data)))
    data = bytearray(GOOD)
    struct.pack_into("<Q", data, 64 + 56 + 32, 1 << 40)  # the dynamic section's length
    with pytest.raises(elf.BadElf):
        elf.read(put(tmp_path / "g", bytes(data)))


def test_where_libraries_are_looked_for(tmp_path: Path) -> None:
    """RPATH of the program reaches its libraries' libraries; RUNPATH does not, and hides RPATH."""
    top = str(tmp_path)
    put(tmp_path / "r/liba.so", elves.elf(soname="liba.so", needed=["libb.so"]))
    put(tmp_path / "r/libb.so", elves.elf(soname="libb.so"))
    put(tmp_path / "u/libu.so", elves.elf(needed=["libb.so"], runpath=f"{top}/empty"))
    inherits = put(tmp_path / "p1", elves.elf(needed=["liba.so"], rpath=f"{top}/r"))
    loader = Loader(cache={})
    loader.add(inherits)
    assert list(loader.needs.files) == [f"{top}/r/liba.so", f"{top}/r/libb.so"]
    assert not loader.needs.missing and not loader.needs.named

    hides = put(tmp_path / "p2", elves.elf(needed=["libu.so"], runpath=f"{top}/u", rpath=f"{top}/r"))  # fmt: skip
    loader = Loader(cache={})
    loader.add(hides)
    assert loader.needs.missing == [("libb.so", f"{top}/u/libu.so")]

    origin = put(tmp_path / "bin/p3", elves.elf(needed=["liba.so"], rpath="$ORIGIN/../r"))
    os.symlink(origin, tmp_path / "p3")  # $ORIGIN is where the program really is
    loader = Loader(cache={})
    loader.add(str(tmp_path / "p3"))
    assert list(loader.needs.files) == [f"{top}/r/liba.so", f"{top}/r/libb.so"]

    relative = put(tmp_path / "p4", elves.elf(needed=["liba.so"], rpath="r"))
    loader = Loader(cache={})
    loader.add(relative)
    assert loader.needs.missing, "a relative directory means another one each time"


def test_libraries_of_another_machine_are_passed_over(tmp_path: Path) -> None:
    top = str(tmp_path)
    put(tmp_path / "one/lib.so", elves.elf(machine=183))
    put(tmp_path / "two/lib.so", b"INPUT(-lc)")  # a linker script
    put(tmp_path / "three/lib.so", elves.elf())
    program = put(tmp_path / "p", elves.elf(needed=["lib.so"]))
    cache = {"lib.so": [f"{top}/one/lib.so", f"{top}/two/lib.so", f"{top}/three/lib.so"]}
    loader = Loader(cache=cache)
    loader.add(program)
    assert list(loader.needs.files) == [f"{top}/three/lib.so"]
    assert loader.needs.named == {("lib.so", 0x0303): f"{top}/three/lib.so"}


def test_libraries_that_need_each_other(tmp_path: Path) -> None:
    top = str(tmp_path)
    put(tmp_path / "a.so", elves.elf(needed=["b.so"]))
    put(tmp_path / "b.so", elves.elf(needed=["a.so"]))
    program = put(tmp_path / "p", elves.elf(needed=["a.so", f"{top}/b.so"], rpath=top))
    loader = Loader(cache={})
    loader.add(program)
    assert set(loader.needs.files) == {f"{top}/a.so", f"{top}/b.so"}


def test_musl(tmp_path: Path) -> None:
    """The C library is the loader itself, by whatever name."""
    interpreter = put(tmp_path / "ld-musl-x86_64.so.1", elves.elf())
    put(tmp_path / "libz.so.1", elves.elf(needed=["libc.musl-x86_64.so.1"]))
    program = put(
        tmp_path / "p",
        elves.elf(
            interpreter=interpreter,
            needed=["libc.musl-x86_64.so.1", "libz.so.1"],
            rpath=str(tmp_path),
        ),
    )
    loader = Loader(cache={})
    loader.add(program)
    assert list(loader.needs.files) == [interpreter, f"{tmp_path}/libz.so.1"]
    assert not loader.needs.missing


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_ldd_says(name: str) -> None:
    """The same files as the loader itself names, for programs that are on every machine here."""
    path = shutil.which(name, path="/usr/bin:/usr/sbin")
    if path is None:
        pytest.skip(f"needs {name}")
    told = subprocess.run(
        ["ldd", path],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
    ).stdout
    wanted = {os.path.realpath(item) for item in re.findall(r"(/\S+) \(0x", told)}
    if not wanted:
        pytest.skip(f"{name} is linked statically")
    loader = Loader()
    loader.add(path)
    optional = {item for item in loader.needs.files if os.path.basename(item) in DLOPENED}
    found = {os.path.realpath(item) for item in loader.needs.files}
    assert wanted <= found
    assert found - wanted <= {os.path.realpath(item) for item in optional} | {LOADER}
    assert not loader.needs.missing


# -- the cache --------------------------------------------------------------------------------------


def test_the_machines_cache() -> None:
    """As `ldconfig -p` prints it."""
    printed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True)
    wanted: dict[str, list[str]] = {}
    for line in printed.stdout.splitlines()[1:]:
        match = re.match(r"\t(\S+) \((.*)\) => (\S+)", line)
        if match and "hwcap" not in match[2]:
            wanted.setdefault(match[1], []).append(match[3])
    found = ldcache.read()
    assert wanted and found == wanted
    assert list(found) == sorted(found, key=ldcache._order, reverse=True), "the loader's order"


def test_written_as_ldconfig_writes(tmp_path: Path) -> None:
    """ldconfig reads it, in the order in which it would have written it: the loader searches by that."""
    names = ["libc.so.6", "libz.so.1", "liba.so.10", "liba.so.9", "liba-b.so", "lib1.so", "liba.so"]
    libraries = {(name, 0x0303): f"/opt/{name}" for name in names}
    path = put(tmp_path / "cache", ldcache.encode(libraries))
    printed = subprocess.run(["/sbin/ldconfig", "-C", path, "-p"], capture_output=True, text=True, check=True)  # fmt: skip
    order = re.findall(r"\t(\S+) \(.*x86-64\) => /opt/", printed.stdout)
    assert sorted(order) == sorted(names)
    assert order.index("liba.so.10") < order.index("liba.so.9"), "numbers, not digits"
    assert {name: [f"/opt/{name}"] for name in names} == ldcache.read(path)


@pytest.mark.parametrize("data", [b"", b"junk" * 100, b"glibc-ld.so.cache1.1", b"glibc-ld.so.cache1.1" + b"\xff" * 200])  # fmt: skip
def test_a_damaged_cache(tmp_path: Path, data: bytes) -> None:
    found = ldcache.read(put(tmp_path / "cache", data))
    assert not any(path.startswith("/") for paths in found.values() for path in paths)
