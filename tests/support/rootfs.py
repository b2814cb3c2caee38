"""Small root filesystems and images made on the spot from Debian's static busybox."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence

BUSYBOX = "/bin/busybox"
APPLETS: Sequence[str] = """
sh ls cat echo true false sleep id env head tail wc grep sed printf ps kill mount umount stat touch mkdir rm
ip ping nc wget hostname tty stty seq yes dd dmesg readlink find df uname test date chmod chown mknod sync
awk sort cut tr tee md5sum httpd vi trap usleep timeout nproc free od du ln cp mv whoami pwd rmdir
""".split()  # noqa: SIM905
FILES: Mapping[str, str] = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    "user:x:1000:1000:user:/home/user:/bin/sh\n",
    "etc/group": "root:x:0:\nuser:x:1000:\naudio:x:29:user\nnogroup:x:65534:\n",
}
DIRECTORIES = (
    "bin", "dev", "etc", "home", "home/user", "proc", "root", "sys", "tmp", "usr", "usr/bin", "usr/sbin",
    "sbin", "var", "run",
)  # fmt: skip


def rootfs_tar() -> bytes:
    """A tar of a root filesystem: busybox, its commands as links, users, the usual directories."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in DIRECTORIES:
            tar.addfile(_member(name, tarfile.DIRTYPE, mode=0o1777 if name == "tmp" else 0o755))
        with open(BUSYBOX, "rb") as file:
            program = file.read()
        tar.addfile(
            _member("bin/busybox", tarfile.REGTYPE, len(program), 0o755), io.BytesIO(program)
        )
        for applet in APPLETS:
            tar.addfile(_member(f"bin/{applet}", tarfile.SYMTYPE, link="busybox"))
        for name, text in FILES.items():
            data = text.encode()
            tar.addfile(_member(name, tarfile.REGTYPE, len(data), 0o644), io.BytesIO(data))
        data = b"#!/bin/sh\necho never\n"
        tar.addfile(
            _member("usr/bin/notexecutable", tarfile.REGTYPE, len(data), 0o644), io.BytesIO(data)
        )
    return buffer.getvalue()


def _member(
    name: str, kind: bytes, size: int = 0, mode: int = 0o755, link: str = ""
) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.mode, member.linkname = kind, size, mode, link
    member.mtime = 1_700_000_000
    return member


def image_tar(
    reference: str | None,
    layers: Sequence[bytes],
    config: Mapping[str, object] | None = None,
) -> bytes:
    """A docker archive (`docker save`'s format) of one image with those layers, uncompressed tars."""
    body = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "created": "2023-11-14T22:13:20Z",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
        "history": [
            {"created": "2023-11-14T22:13:20Z", "created_by": f"layer {number}"}
            for number in range(len(layers))
        ],
    }
    raw = json.dumps(body).encode()
    name = hashlib.sha256(raw).hexdigest() + ".json"
    paths = [f"{hashlib.sha256(layer).hexdigest()}/layer.tar" for layer in layers]
    manifest = [{"Config": name, "RepoTags": [reference] if reference else None, "Layers": paths}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, data in [(name, raw), *dict(zip(paths, layers, strict=True)).items()]:
            tar.addfile(_member(path, tarfile.REGTYPE, len(data), 0o644), io.BytesIO(data))
        data = json.dumps(manifest).encode()
        tar.addfile(_member("manifest.json", tarfile.REGTYPE, len(data), 0o644), io.BytesIO(data))
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
