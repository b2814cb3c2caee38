"""A full disk at each stage of load, import, pull and commit: the answer names what did not fit and why,
nothing is left or harmed, and with room again the same request succeeds, a pull from where it stopped."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.accounts import expect_all_accounted, expect_images_run
from support.engines import SampanEngine
from support.faulty_proxy import FaultyProxy
from support.http import Answer
from support.registries import Registry
from support.registry_images import layer, put_image
from support.rootfs import image_tar, rootfs_tar
from support.waiting import wait_for

DISK_BYTES = 48 << 20
LAYER_BYTES = 1_500_000
LAYERS = 3
TOTAL = LAYERS * LAYER_BYTES
STAGES = [0, 60_000, LAYER_BYTES // 2, LAYER_BYTES + 400_000, TOTAL + LAYER_BYTES]
"""Bytes that are free when the operation begins: from "not a single file" to "nearly enough"."""
NEARLY = 2 * TOTAL - LAYER_BYTES // 2
"""For an archive: all its blobs, and not all of its trees."""
NO_SPACE = "no space left on device"


@functools.cache
def layers() -> tuple[bytes, ...]:
    return (*(layer(LAYER_BYTES, seed=number) for number in range(LAYERS)),)


class SmallDisk:
    """A file system of its own below `directory`, in a file; `leave` fills it but for some bytes."""

    def __init__(self, directory: str) -> None:
        self.image = os.path.join(directory, "disk.img")
        self.mount_point = os.path.join(directory, "disk")
        os.mkdir(self.mount_point)
        with open(self.image, "wb") as file:
            file.truncate(DISK_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-N", "8192", self.image], check=True)
        mount = ["mount", "-o", "loop", self.image, self.mount_point]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("needs a loop device")

    @property
    def _ballast(self) -> str:
        return os.path.join(self.mount_point, "ballast")

    def leave(self, free_bytes: int) -> None:
        """Fill the disk until only so much is free."""
        self.empty()
        found = os.statvfs(self.mount_point)
        size = found.f_bavail * found.f_frsize - free_bytes
        with open(self._ballast, "wb") as file:
            while size > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError:
                    size -= 4096  # the file's own extents take some, too
                else:
                    break

    def empty(self) -> None:
        if os.path.exists(self._ballast):
            os.unlink(self._ballast)
        os.sync()  # ext4 gives blocks back when the journal is written

    def close(self) -> None:
        subprocess.run(["umount", self.mount_point], check=False)


class OnSmallDisk(SampanEngine):
    """An engine whose data root is on such a disk."""

    def __init__(self, directory: str, token: str) -> None:
        super().__init__(directory, token)
        self.disk = SmallDisk(directory)
        self.data_root = os.path.join(self.disk.mount_point, "data")

    def clean(self) -> None:
        self.disk.close()
        super().clean()


@pytest.fixture(scope="module")
def engine(session_directory: str, session_token: str) -> Iterator[OnSmallDisk]:
    running = OnSmallDisk(f"{session_directory}/full", session_token + "f")
    try:
        running.start()
        running.request(
            "POST", "/images/load", raw=image_tar("base:1", [rootfs_tar()], {"Cmd": ["sh"]})
        )
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def _only_the_base(engine: OnSmallDisk) -> Iterator[None]:
    """Nothing else is there after a case, nor on its way out: what goes in the background would
    give the next case more room than it left."""
    yield
    engine.disk.empty()
    engine.remove_containers()
    for image in engine.get("/images/json").json:
        if "base:1" not in image["RepoTags"]:
            assert engine.delete(f"/images/{image['Id']}", force=1).status == 200
    expect_all_accounted(engine)


def failure_of(answer: Answer) -> str:
    """The message of a refusal, or of the error at the end of a stream; "" for success."""
    if answer.status >= 400:
        return str(answer.json["message"])
    for line in answer.body.splitlines():
        document: Any = json.loads(line) if line.strip() else {}
        if isinstance(document, dict) and "error" in document:
            return str(document["error"])
    return ""


def load(engine: SampanEngine) -> Answer:
    archive = image_tar("big:1", [rootfs_tar(), *layers()], {"Cmd": ["sh"]})
    return engine.request("POST", "/images/load", raw=archive)


def import_(engine: SampanEngine) -> Answer:
    tree = b"".join([rootfs_tar()[:-1024], *(part[:-1024] for part in layers()), bytes(1024)])
    query = {"fromSrc": "-", "repo": "big", "tag": "1"}
    return engine.request("POST", "/images/create", raw=tree, query=query)


def expect_refused(
    engine: OnSmallDisk, work: Callable[[SampanEngine], Answer], free_bytes: int
) -> str:
    """The work fails, says why, and the engine is as it was, and goes on."""
    before = engine.get("/images/json").json
    engine.disk.leave(free_bytes)
    message = failure_of(work(engine))
    told = f"with {free_bytes} bytes free: {message!r}"
    assert NO_SPACE in message and ("layer" in message or "archive" in message), told
    assert engine.get("/images/json").json == before
    expect_all_accounted(engine)
    engine.disk.empty()
    assert engine.get("/_ping").status == 200
    assert "Traceback" not in engine.log()
    return message


@pytest.mark.parametrize(
    ("work", "free_bytes"),
    [*((load, size) for size in (*STAGES, NEARLY)), *((import_, size) for size in STAGES)],
)
def test_archives(
    engine: OnSmallDisk, work: Callable[[SampanEngine], Answer], free_bytes: int
) -> None:
    expect_refused(engine, work, free_bytes)
    assert failure_of(work(engine)) == ""
    assert len(expect_images_run(engine)) == 2
    expect_all_accounted(engine)


@pytest.mark.parametrize("free_bytes", STAGES)
def test_pull(engine: OnSmallDisk, registry: Registry, free_bytes: int) -> None:
    made = put_image(registry, "team/big", "1", [rootfs_tar(), *layers()])
    with contextlib.closing(FaultyProxy(registry)) as proxy:

        def pull(engine: SampanEngine) -> Answer:
            query = {"fromImage": f"{proxy.address}/team/big", "tag": "1"}
            return engine.request("POST", "/images/create", query=query)

        expect_refused(engine, pull, free_bytes)
        kept = sum(
            entry.stat().st_size for entry in os.scandir(os.path.join(engine.data_root, "ingest"))
        )
        before = proxy.sent("/blobs/")
        assert failure_of(pull(engine)) == ""
        whole = sum(len(blob.data) for blob in made.layers)
        assert proxy.sent("/blobs/") - before <= whole - kept + 64_000
    assert len(expect_images_run(engine)) == 2
    expect_all_accounted(engine)


@pytest.mark.parametrize("free_bytes", STAGES[:4])
def test_commit(engine: OnSmallDisk, free_bytes: int) -> None:
    script = f"mkdir /data; dd if=/dev/urandom of=/data/random bs=100k count={TOTAL // 102_400}"
    body = {"Image": "base:1", "Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": "none"}}
    made = engine.post("/containers/create", body).json["Id"]
    engine.post(f"/containers/{made}/start")
    assert engine.post(f"/containers/{made}/wait").json["StatusCode"] == 0

    def commit(engine: SampanEngine) -> Answer:
        return engine.post("/commit", {}, container=made, repo="committed", tag="1")

    expect_refused(engine, commit, free_bytes)
    assert failure_of(commit(engine)) == ""
    assert engine.delete(f"/containers/{made}").status == 204
    assert len(expect_images_run(engine)) == 2
    expect_all_accounted(engine)


def test_removals_work_on_a_full_disk(engine: OnSmallDisk) -> None:
    assert failure_of(load(engine)) == ""
    engine.disk.leave(0)
    assert engine.delete("/images/big:1").status == 200

    def free_bytes() -> int:
        found = os.statvfs(engine.disk.mount_point)
        return found.f_bavail * found.f_frsize

    wait_for(lambda: free_bytes() > TOTAL, "the space to come back")
    expect_all_accounted(engine)


def test_a_daemon_starts_on_a_full_disk(engine: OnSmallDisk) -> None:
    """Killed and started without a free block, it has all its images and gives their space back."""
    assert failure_of(load(engine)) == ""
    engine.kill()
    spare = os.path.join(engine.data_root, "spare")
    for name in os.listdir(spare):
        shutil.rmtree(os.path.join(spare, name))
    engine.disk.leave(0)
    engine.start()
    assert {"base:1", "big:1"} == {i["RepoTags"][0] for i in engine.get("/images/json").json}
    assert engine.delete("/images/big:1").status == 200
    expect_all_accounted(engine)
    engine.disk.empty()
    assert failure_of(load(engine)) == ""
    assert "Traceback" not in engine.log()
