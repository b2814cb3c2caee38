"""Sizes of what containers write, on file systems with project quotas: by the kernel, from inside and outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.linux import quota
from support.engines import IMAGE, SampanEngine
from support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.vm]

DISK_BYTES = 512 << 20  # mkfs.xfs makes none below 300 MiB
MIB = 1 << 20
KINDS = {
    "ext4": (["mkfs.ext4", "-q", "-O", "quota,project"], "prjquota"),
    "xfs": (["mkfs.xfs", "-q"], "pquota"),
}


class Disk:
    """A file system in a file, mounted with project quotas; `remount` does it with other options."""

    def __init__(self, kind: str, directory: Path) -> None:
        make, self.option = KINDS[kind]
        self.image, self.place = directory / f"{kind}.img", directory / kind
        if shutil.which(make[0]) is None:
            pytest.skip(f"needs {make[0]}")
        for module in (kind, "quota_v2", "loop"):
            subprocess.run(["modprobe", "-q", module], check=False)
        with self.image.open("wb") as file:
            file.truncate(DISK_BYTES)
        subprocess.run([*make, self.image], check=True)
        self.place.mkdir()
        if not self._mount(self.option) or not quota.enforced(str(self.place)):
            self.remove()
            pytest.skip(f"needs a kernel that has project quotas on {kind}")

    def remount(self, *, quotas: bool) -> None:
        subprocess.run(["umount", self.place], check=True)
        assert self._mount(self.option if quotas else "noquota")

    def remove(self) -> None:
        subprocess.run(["umount", "-l", self.place], check=False, capture_output=True)
        self.image.unlink()

    def _mount(self, option: str) -> bool:
        mount = ["mount", "-o", f"loop,{option}", self.image, self.place]
        return subprocess.run(mount, check=False, capture_output=True).returncode == 0


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    made = Disk(request.param, tmp_path)
    yield made
    made.remove()


@pytest.fixture
def engine(disk: Disk, session_directory: str, session_token: str) -> Iterator[SampanEngine]:
    """An engine with its data root on the disk; not started yet."""
    token = session_token + "q"
    made = SampanEngine(f"{session_directory}/{token}", token)
    made.data_root = str(disk.place / "data")
    yield made
    made.stop()


def run(engine: SampanEngine, script: str, **host: Any) -> tuple[str, int, str]:
    """Run a script in a new container; return its ID, exit code and output."""
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], "Tty": True, "HostConfig": host}
    answer = engine.post("/containers/create", body)
    assert answer.status == 201, answer
    identity: str = answer.json["Id"]
    started = engine.post(f"/containers/{identity}/start")
    assert started.status == 204, started
    code = engine.post(f"/containers/{identity}/wait").json["StatusCode"]
    return identity, code, engine.get(f"/containers/{identity}/logs", stdout=1).body.decode()


def taken(engine: SampanEngine) -> list[int]:
    """The numbers of projects that have a limit or files."""
    return [number for number in range(1, 12) if quota.is_taken(engine.data_root, number)]


FILL = "df -k / | tail -n 1; dd if=/dev/zero of=/big bs=1M count=40; sync; ls -s /big"


def test_a_container_gets_no_more(engine: SampanEngine) -> None:
    """`df` shows the size, more does not fit; others, and what is done with the container, are as ever."""
    engine.start()
    engine.import_busybox()
    identity, _, output = run(engine, FILL, StorageOpt={"size": "20M"})
    assert output.splitlines()[0].split()[1] == str(20 << 10), output
    assert "No space left on device" in output or "quota exceeded" in output, output
    shown = engine.get(f"/containers/{identity}/json", size=1).json
    assert shown["HostConfig"]["StorageOpt"] == {"size": "20M"}
    assert 10 * MIB < shown["SizeRw"] <= 20 * MIB
    _, code, output = run(engine, FILL)
    assert code == 0 and "40+0 records out" in output

    changes = engine.get(f"/containers/{identity}/changes").json
    assert {"Path": "/big", "Kind": 1} in changes
    copied = engine.request("HEAD", f"/containers/{identity}/archive", query={"path": "/big"})
    assert copied.status == 200
    update = engine.post(f"/containers/{identity}/update", {"StorageOpt": {"size": "1G"}})
    assert update.status == 400, update
    small, _, _ = run(engine, "echo small > /small", StorageOpt={"size": "16mb"})
    assert engine.post("/commit", container=small, repo="small").status == 201

    assert len(taken(engine)) == 2
    engine.remove_containers()
    wait_for(lambda: not taken(engine), "the limits to be gone")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": "abc"}, "invalid size: 'abc'"),
        ({"size": "-1"}, "invalid size: '-1'"),
        ({"size": "1G", "other": "1"}, "Unknown option other"),
    ],
)
def test_refused(disk: Disk, engine: SampanEngine, options: dict[str, str], text: str) -> None:
    if disk.option == "pquota":
        pytest.skip("is the same on all file systems")
    engine.start()
    engine.import_busybox()
    answer = engine.post(
        "/containers/create", {"Image": IMAGE, "HostConfig": {"StorageOpt": options}}
    )
    assert (answer.status, answer.message) == (500, text)
    assert engine.get("/containers/json", all=True).json == []


def test_size_of_all_and_the_daemon_killed(disk: Disk, engine: SampanEngine) -> None:
    """The daemon's option limits each container alone, also after the daemon was killed; a number is never
    given twice; without quotas nothing starts that was promised a limit, nor an engine that promises one."""
    engine.start("--storage-opt", "overlay2.size=20M")
    engine.import_busybox()
    first, _, _ = run(engine, "dd if=/dev/zero of=/a bs=1M count=12; sync")
    _, code, output = run(engine, "dd if=/dev/zero of=/a bs=1M count=12; sync; df -k / | tail -n 1")
    assert code == 0 and output.splitlines()[-1].split()[1] == str(20 << 10), output
    _, code, output = run(engine, "dd if=/dev/zero of=/a bs=1M count=40", StorageOpt={"size": "0"})
    assert code == 0, output
    engine.kill()

    engine.start()
    numbers = {
        quota.project(f"{engine.data_root}/active/{identity}/upper")
        for identity in os.listdir(f"{engine.data_root}/active")
    }
    assert len(numbers) == 3  # one of them is that of directories without a limit
    _, _, output = run(engine, FILL, StorageOpt={"size": "18M"})
    assert output.splitlines()[0].split()[1] == str(18 << 10), output
    assert len(taken(engine)) == 3
    engine.terminate()

    disk.remount(quotas=False)
    engine.start()
    answer = engine.post(f"/containers/{first}/start")
    assert answer.status == 500 and "keeps no limits any longer" in answer.message
    answer = engine.post(
        "/containers/create", {"Image": IMAGE, "HostConfig": {"StorageOpt": {"size": "1G"}}}
    )
    assert answer.status == 500 and answer.message.startswith("--storage-opt is supported only for")
    engine.terminate()
    with pytest.raises(AssertionError, match="Filesystem does not support Project Quota"):
        engine.start("--storage-opt", "overlay2.size=20M")

    disk.remount(quotas=True)
    engine.start()
    assert engine.delete(f"/containers/{first}").status == 204
    wait_for(lambda: len(taken(engine)) == 2, "its limit to be gone")


def test_what_a_crash_left_on_the_way(engine: SampanEngine) -> None:
    """A spare that got its number, and one in the trash, are cleared away with number and limit."""
    engine.start()
    engine.terminate()
    spares = Path(engine.data_root, "spare")
    half, whole = sorted(spares.iterdir())[:2]
    quota.set_project(str(half / "work"), 1)
    for name in ("work", "upper"):
        quota.set_project(str(whole / name), 2)
    quota.set_limit(engine.data_root, 2, MIB)
    assert taken(engine) == [1, 2]
    (half / "work" / "file").write_text("x")
    whole.rename(Path(engine.data_root, "trash", "7000"))
    engine.start()
    wait_for(lambda: not taken(engine), "both to be gone")
    assert not half.exists()
    assert json.loads(engine.get("/info").body)["Driver"]
