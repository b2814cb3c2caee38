"""Hostile layers: a table of small archives, each bad in its own way, and the files made of it.

    python -m support.hostile        (in tests/) writes tests/snapshots/corpus/*.tar.gz

A case is the archive's bytes and what must come of it: REFUSED, an error that is BadArchive or
BadLayer; CONTAINED, a tree with nothing outside of it; EITHER, one of the two. Absolute names are those
of files that are on every machine, relative ones lead to `outside/` beside the tree.
"""

from __future__ import annotations

import gzip
import os
import sys

from sampan.oci import tar, tar_writer
from support.tars import archive, device, directory, entry, file, hard_link, symlink

REFUSED, CONTAINED, EITHER = "refused", "contained", "either"
CORPUS = os.path.join(os.path.dirname(os.path.dirname(__file__)), "snapshots", "corpus")
_UP = "../" * 12


def base256(number: int, width: int = 12) -> bytes:
    """GNU's form of a number that has no octal one."""
    data = bytearray((number & ((1 << (8 * width - 1)) - 1)).to_bytes(width, "big"))
    data[0] |= 0x80
    return bytes(data)


def patched(block: bytes, at: int, data: bytes) -> bytes:
    """A header with other bytes somewhere, its checksum made right again."""
    made = bytearray(block)
    made[at : at + len(data)] = data
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made[:512])
    return bytes(made)


def record(key: bytes, value: bytes) -> bytes:
    return tar_writer._record(key, value)


def extended(data: bytes, member: bytes, *, size: int | None = None, kind: bytes = tar.PAX_HEADER) -> bytes:  # fmt: skip
    """An extended header with these bytes before a member; `size` is what it says of itself."""
    head = tar_writer._ustar(entry("x", kind, size=len(data)), tar.PAX_HEADER)
    head = patched(head, 156, kind)
    if size is not None:
        head = patched(head, 124, base256(size))
    return head + data + tar_writer.padding(len(data)) + member


def pax(member: bytes, **records: bytes) -> bytes:
    data = b"".join(record(key.replace("_", ".").encode(), value) for key, value in records.items())
    return extended(data, member)


def sized(number: int, name: str = "f") -> bytes:
    """A file's header that says this size, without data."""
    return patched(file(name, b""), 124, base256(number))


def sparse_1(map_text: bytes, realsize: bytes, data: bytes = b"") -> bytes:
    body = map_text.ljust(-(-len(map_text) // 512) * 512, b"\0") + data
    return extended(
        record(b"GNU.sparse.major", b"1")
        + record(b"GNU.sparse.minor", b"0")
        + record(b"GNU.sparse.name", b"holes")
        + record(b"GNU.sparse.realsize", realsize),
        file("x", body),
    )


def old_sparse(segments: list[tuple[int, int]], realsize: int, stored: int, data: bytes) -> bytes:
    """GNU's old sparse header, with up to four pieces."""
    block = patched(patched(file("holes", b""), 156, b"S"), 257, b"ustar  \0")
    for number, (offset, length) in enumerate(segments):
        block = patched(block, 386 + 24 * number, base256(offset) + base256(length))
    block = patched(block, 483, base256(realsize))
    block = patched(block, 124, base256(stored))
    return block + data + tar_writer.padding(len(data))


def _names() -> dict[str, tuple[list[bytes], str]]:
    """Names and links that lead out."""
    return {
        "dot-dot": ([file("../outside/new")], REFUSED),
        "dot-dot-inside": ([directory("a"), file("a/../../outside/new")], REFUSED),
        "dot-dot-far": ([file(_UP + "etc/sampan-hostile")], REFUSED),
        "dot-dot-directory": ([directory("..", mode=0o777, uid=99)], REFUSED),
        "dot-dot-only": ([file("a/../..")], REFUSED),
        "absolute": ([file("/etc/sampan-hostile")], CONTAINED),
        "absolute-dot-dot": ([file("/../outside/new")], REFUSED),
        "slashes": ([file("////a////b//"), file("./././c")], CONTAINED),
        "through-link": ([symlink("l", "../outside"), file("l/new")], EITHER),
        "through-absolute-link": ([symlink("l", "/etc"), file("l/sampan-hostile")], EITHER),
        "through-chain": ([symlink("a", "b"), symlink("b", "c"), symlink("c", _UP + "etc"), file("a/new")], EITHER),
        "through-link-of-parent": (
            [directory("d"), symlink("d/up", ".."), symlink("d/up2", "up/.."), file("d/up2/outside/new")],
            EITHER,
        ),
        "over-link": ([symlink("l", "../outside/secret"), file("l", b"changed")], CONTAINED),
        "directory-over-link": ([symlink("l", "../outside"), directory("l", mode=0o777, uid=99)], CONTAINED),
        "directory-becomes-link": (
            [directory("d"), file("d/a"), symlink("d", "../outside"), file("d/new"), directory("d/x", mode=0o777)],
            EITHER,
        ),
        "magic-link": ([symlink("l", "/proc/self/root/etc"), file("l/sampan-hostile")], EITHER),
        "magic-cwd": ([symlink("l", "/proc/self/cwd"), file("l/new")], EITHER),
        "root-is-link": ([symlink(".", "../outside"), file("new")], EITHER),
        "root-is-file": ([file("./", b"x"), file("/", b"y"), file("new")], EITHER),
        "link-cycle": ([symlink("a", "b"), symlink("b", "a"), file("a/x")], REFUSED),
        "link-to-itself": ([symlink("a", "a"), directory("a/x")], REFUSED),
        "link-chain-of-100": ([*(symlink(f"l{n}", f"l{n + 1}") for n in range(100)), directory("l100"), file("l0/x")], REFUSED),
        "links-that-double": (
            [symlink("l0", "."), *(symlink(f"l{n}", f"l{n - 1}/l{n - 1}") for n in range(1, 40)), file("l39/x")],
            EITHER,
        ),
        "hard-link-dot-dot": ([hard_link("h", "../outside/secret")], REFUSED),
        "hard-link-absolute": ([hard_link("h", "/etc/passwd"), file("h", b"changed")], REFUSED),
        "hard-link-through-link": ([symlink("l", "../outside"), hard_link("h", "l/secret")], REFUSED),
        "hard-link-to-link": ([symlink("l", "../outside/secret"), hard_link("h", "l"), file("h", b"x")], CONTAINED),
        "hard-link-to-itself": ([file("a"), hard_link("a", "a")], EITHER),
        "hard-link-to-directory": ([directory("d"), hard_link("h", "d")], REFUSED),
        "hard-link-to-root": ([hard_link("h", "/"), hard_link("i", "")], REFUSED),
        "hard-link-to-nothing": ([hard_link("h", "nothing")], REFUSED),
        "mode-through-link": ([symlink("l", "../outside"), directory("l/dir", mode=0o777)], EITHER),
        "device-through-link": ([symlink("l", "../outside"), device("l/null", 1, 3)], EITHER),
        "owner-through-link": ([symlink("l", "../outside/secret", uid=99, gid=99)], CONTAINED),
        "attribute-through-link": ([symlink("l", "../outside/secret", xattrs={b"user.x": b"1"})], CONTAINED),
        "name-with-nul": ([pax(file("x"), path=b"a\0b")], REFUSED),
        "link-with-nul": ([pax(symlink("x", "y"), linkpath=b"a\0b")], REFUSED),
        "name-empty": ([file(""), directory("")], EITHER),
        "name-newline": ([file("a\nb"), directory("c\n\td")], CONTAINED),
        "name-not-utf8": ([pax(file("x"), path=b"\xff\xfe/\x80"), pax(symlink("y", "z"), linkpath=b"\xe9")], CONTAINED),
        "name-too-long": ([file("x" * 256)], REFUSED),
        "path-too-long": ([file("d/" * 2100 + "f")], REFUSED),
        "path-100k-deep": ([pax(file("x"), path=b"d/" * 100_000 + b"f")], REFUSED),
        "link-too-long": ([symlink("l", "x" * 5000)], REFUSED),
    }  # fmt: skip


def _whiteouts() -> dict[str, tuple[list[bytes], str]]:
    """Docker's whiteouts, overlayfs's own marks."""
    opaque = {b"trusted.overlay.opaque": b"y"}
    return {
        "whiteout-through-link": ([symlink("l", "../outside"), file("l/.wh.secret", b"")], EITHER),
        "opaque-through-link": ([symlink("l", "../outside"), file("l/.wh..wh..opq", b"")], EITHER),
        "opaque-absolute": ([symlink("l", "/"), file("l/.wh..wh..opq", b"")], CONTAINED),
        "whiteout-dot-dot": ([file(".wh...", b"")], REFUSED),
        "whiteout-dot": ([file(".wh..", b"")], REFUSED),
        "whiteout-nothing": ([file(".wh.", b"")], REFUSED),
        "whiteout-slash": ([file(".wh./etc/passwd", b"")], EITHER),
        "whiteout-directory": ([directory(".wh.d"), file(".wh.d/f")], EITHER),
        "whiteout-of-whiteout": ([file(".wh..wh.x", b"")], EITHER),
        "whiteout-with-data": ([file(".wh.x", b"data" * 1000), file("y")], CONTAINED),
        "whiteout-link": ([symlink(".wh.x", "../outside/secret"), hard_link(".wh.y", "../outside/secret")], EITHER),
        "whiteout-device": ([device("x", 0, 0), file("x/y")], REFUSED),
        "whiteout-linked": ([device("x", 0, 0), hard_link("y", "x"), hard_link(".wh.z", "x")], EITHER),
        "aufs-bookkeeping": ([directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", b"x"), hard_link("h", ".wh..wh.plnk/1.2")], EITHER),
        "overlay-opaque": ([directory("d", xattrs=opaque)], CONTAINED),
        "overlay-redirect": ([directory("d", xattrs={b"trusted.overlay.redirect": b"/etc"})], CONTAINED),
        "overlay-metacopy": ([file("f", xattrs={b"trusted.overlay.metacopy": b"", b"trusted.overlay.redirect": b"/x"})], CONTAINED),
        "overlay-user": ([directory("d", xattrs={b"user.overlay.opaque": b"y", b"user.overlay.whiteout": b""})], CONTAINED),
        "overlay-origin": ([file("f", xattrs={b"trusted.overlay.origin": b"\0" * 30})], CONTAINED),
    }  # fmt: skip


def _numbers() -> dict[str, tuple[list[bytes], str]]:
    """Sizes, owners, times and devices that are none."""
    return {
        "size-negative": ([sized(-1)], REFUSED),
        "size-most-negative": ([sized(-(1 << 94))], REFUSED),
        "size-huge": ([sized(1 << 62), b"x" * 512], REFUSED),
        "size-beyond-64-bits": ([sized(1 << 90), b"x" * 512], REFUSED),
        "size-pax-huge": ([pax(file("x"), size=b"9" * 19)], REFUSED),
        "size-pax-too-long": ([pax(file("x"), size=b"9" * 5000)], REFUSED),
        "size-pax-negative": ([pax(file("x"), size=b"-1")], REFUSED),
        "size-not-octal": ([patched(file("x"), 124, b"99999999999\0")], REFUSED),
        "size-underscores": ([patched(file("x", b""), 124, b"0_0_0_0_0_0\0")], EITHER),
        "size-python-prefix": ([patched(file("x", b""), 124, b"0o000000000\0")], EITHER),
        "directory-with-size": ([patched(directory("d"), 124, base256(1 << 50)), file("after")], CONTAINED),
        "link-with-size": ([patched(symlink("l", "x"), 124, b"00000001000\0"), file("after")], CONTAINED),
        "uid-huge": ([file("x", uid=1 << 40)], REFUSED),
        "uid-largest": ([file("x", uid=0xFFFFFFFE, gid=0xFFFFFFFE)], CONTAINED),
        "uid-minus-one": ([file("x", uid=0xFFFFFFFF)], EITHER),
        "uid-negative": ([patched(file("x", b""), 108, base256(-5, 8))], EITHER),
        "mode-all-bits": ([patched(file("x", b""), 100, b"7777777\0")], CONTAINED),
        "mode-base-256": ([patched(file("x", b""), 100, base256(1 << 50, 8))], EITHER),
        "time-1960": ([file("x", mtime_ns=-315619200 * 10**9), directory("d", mtime_ns=-1)], CONTAINED),
        "time-huge": ([patched(file("x", b""), 136, base256(1 << 90))], REFUSED),
        "time-huge-directory": ([patched(directory("d"), 136, base256(1 << 90))], REFUSED),
        "time-year-3000": ([patched(file("x", b""), 136, base256(32503680000))], EITHER),
        "time-pax-nonsense": ([pax(file("x"), mtime=b"1e9")], REFUSED),
        "time-pax-dots": ([pax(file("x"), mtime=b"1.2.3")], REFUSED),
        "device-numbers": ([device("x", 0o7777777, 0o7777777)], EITHER),
        "device-negative": ([patched(device("x", 0, 0), 329, base256(-1, 8))], REFUSED),
        "devices": ([device("sda", 8, 0, tar.BLOCK_DEVICE), device("mem", 1, 1), file("mem", b"x")], CONTAINED),
        "checksum-wrong": ([file("x")[:148] + b"0000000\0" + file("x")[156:]], REFUSED),
        "checksum-negative": ([file("x")[:148] + b"-000001\0" + file("x")[156:]], REFUSED),
    }  # fmt: skip


def _headers() -> dict[str, tuple[list[bytes], str]]:
    """Extended headers, types, sparse maps."""
    many = b"".join(record(b"SCHILY.xattr.user.%d" % n, b"x") for n in range(3000))
    return {
        "pax-2-gib": ([extended(b"", file("x"), size=2 << 30)], REFUSED),
        "pax-2-mib": ([extended(record(b"path", b"a" * (2 << 20)), file("x"))], REFUSED),
        "pax-negative": ([extended(b"", file("x"), size=-512)], REFUSED),
        "pax-long-name-2-gib": ([extended(b"", file("x"), size=2 << 30, kind=b"L")], REFUSED),
        "pax-long-link-negative": ([extended(b"", file("x"), size=-1, kind=b"K")], REFUSED),
        "pax-length-lies": ([extended(b"99 path=a\n", file("x"))], REFUSED),
        "pax-length-zero": ([extended(b"0 path=a\n", file("x"))], REFUSED),
        "pax-length-negative": ([extended(b"-9 path=a\n", file("x"))], REFUSED),
        "pax-length-long": ([extended(b"9" * 30 + b" path=a\n", file("x"))], REFUSED),
        "pax-no-equals": ([extended(b"7 path\n", file("x"))], REFUSED),
        "pax-no-newline": ([extended(b"9 path=a ", file("x"))], REFUSED),
        "pax-only": ([extended(record(b"path", b"a"), b"")], EITHER),
        "pax-of-pax": ([extended(record(b"path", b"a"), extended(record(b"path", b"../outside/new"), file("x")))], REFUSED),
        "pax-path-dot-dot": ([pax(file("x"), path=b"../outside/new")], REFUSED),
        "pax-path-absolute-link": ([pax(hard_link("x", "y"), linkpath=b"../outside/secret")], REFUSED),
        "pax-path-empty": ([pax(file("x"), path=b"")], CONTAINED),
        "pax-global-path": ([extended(record(b"path", b"../outside/new"), file("x"), kind=b"g")], CONTAINED),
        "pax-global-2-gib": ([extended(b"", file("x"), size=2 << 30, kind=b"g")], REFUSED),
        "pax-many-xattrs": ([extended(many, file("x"))], EITHER),
        "pax-xattr-64k": ([extended(record(b"SCHILY.xattr.user.a", b"x" * 65537), file("x"))], REFUSED),
        "pax-xattr-name": ([extended(record(b"SCHILY.xattr.", b"x"), file("x"))], EITHER),
        "pax-xattr-name-long": ([extended(record(b"SCHILY.xattr.user." + b"a" * 300, b"x"), file("x"))], REFUSED),
        "pax-xattr-unknown": ([extended(record(b"SCHILY.xattr.nosuch.a", b"x"), file("x"))], CONTAINED),
        "pax-capability-bad": ([extended(record(b"SCHILY.xattr.security.capability", b"junk"), file("x"))], EITHER),
        "long-name-dot-dot": ([extended(b"../outside/new\0", file("x"), kind=b"L")], REFUSED),
        "long-link-dot-dot": ([extended(b"../outside/secret\0", hard_link("x", "y"), kind=b"K")], REFUSED),
        "type-unknown": ([patched(file("x", b""), 156, b"Z")], REFUSED),
        "type-volume": ([patched(file("x", b""), 156, b"V")], REFUSED),
        "type-nul": ([patched(file("x", b""), 156, b"\0")], CONTAINED),
        "sparse-huge": ([sparse_1(b"0\n", b"%d" % ((1 << 63) - 1))], EITHER),
        "sparse-beyond-64-bits": ([sparse_1(b"0\n", b"9" * 19)], REFUSED),
        "sparse-overlap": ([sparse_1(b"2\n10\n10\n15\n10\n", b"100", b"x" * 20)], REFUSED),
        "sparse-backwards": ([sparse_1(b"2\n50\n10\n0\n10\n", b"100", b"x" * 20)], REFUSED),
        "sparse-beyond-end": ([sparse_1(b"1\n100\n10\n", b"50", b"x" * 10)], REFUSED),
        "sparse-too-little-data": ([sparse_1(b"1\n0\n1000\n", b"1000", b"x" * 10)], REFUSED),
        "sparse-count-lies": ([sparse_1(b"1000000\n0\n1\n", b"10", b"x")], REFUSED),
        "sparse-count-huge": ([sparse_1(b"9" * 19 + b"\n", b"10")], REFUSED),
        "sparse-negative": ([sparse_1(b"1\n-5\n5\n", b"10", b"x" * 5)], REFUSED),
        "sparse-map-of-200k": ([sparse_1(b"200000\n" + b"0\n0\n" * 200_000, b"0")], REFUSED),
        "sparse-map-2-mib": ([sparse_1(b"1" + b"0" * (2 << 20) + b"\n", b"0")], REFUSED),
        "sparse-old-overlap": ([old_sparse([(10, 10), (5, 10)], 100, 20, b"x" * 20)], REFUSED),
        "sparse-old-negative": ([old_sparse([(-10, 10)], 100, 10, b"x" * 10)], REFUSED),
        "sparse-old-size-lies": ([old_sparse([(0, 10)], 5, 10, b"x" * 10)], REFUSED),
        "sparse-old-endless": ([patched(old_sparse([(0, 0)], 0, 0, b""), 482, b"\1"), b"\1" * 512 * 20], REFUSED),
        "sparse-old-huge": ([old_sparse([((1 << 62) - 10, 10)], 1 << 62, 10, b"x" * 10)], EITHER),
    }  # fmt: skip


def _orders() -> dict[str, tuple[list[bytes], str]]:
    """Entries that replace each other; archives that end where they should not."""
    return {
        "duplicates": ([file("x", b"1")] * 3 + [symlink("x", "y"), directory("x"), file("x", b"last")], CONTAINED),
        "file-then-below": ([file("x"), file("x/y")], REFUSED),
        "directory-then-file": ([directory("x"), file("x/y"), file("x", b"now a file")], CONTAINED),
        "deep-links": ([
            *(item for n in range(6) for item in (directory("d/" * 1000 if not n else f"l{n - 1}/" + "d/" * 900), symlink(f"l{n}", (f"l{n - 1}/" if n else "") + "d/" * (900 if n else 1000)))),
        ], EITHER),
        "many-directories": ([directory(f"d{n}", mtime_ns=n) for n in range(200)], CONTAINED),
        "same-directory": ([directory("d", mtime_ns=n) for n in range(200)], CONTAINED),
        "garbage-after-end": ([file("x"), bytes(1024), b"\xff" * 1024], CONTAINED),
        "zero-block-inside": ([file("x"), bytes(512), file("../outside/new")], CONTAINED),
        "text": ([b"this is no archive at all, and not even a block long"], REFUSED),
        "noise": ([bytes((n * 73 + 41) % 251 for n in range(2048))], REFUSED),
    }  # fmt: skip


def cases() -> dict[str, tuple[bytes, str]]:
    """Every case by name: archive and verdict."""
    found: dict[str, tuple[bytes, str]] = {}
    for table in (_names(), _whiteouts(), _numbers(), _headers(), _orders()):
        for name, (members, verdict) in table.items():
            found[name] = (archive(members), verdict)
    whole = archive([directory("d"), file("d/f", b"x" * 700), pax(file("g"), path=b"long" * 40)])
    for size in (100, 511, 513, 700, 1023, 1100, 1600, 2100, 2700):
        found[f"cut-at-{size}"] = (whole[:size], REFUSED)
    found["empty"] = (b"", EITHER)
    return found


def packed(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0)


def main() -> None:
    os.makedirs(CORPUS, exist_ok=True)
    for name, (data, _) in cases().items():
        with open(os.path.join(CORPUS, f"{name}.tar.gz"), "wb") as file:
            file.write(packed(data))
    sys.stdout.write(f"{len(cases())} archives in {CORPUS}\n")


if __name__ == "__main__":
    main()
