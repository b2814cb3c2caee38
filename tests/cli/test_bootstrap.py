"""`sampan image bootstrap`: a distribution becomes an image, and nothing is left of the making.

The tools are stand-ins that do what theirs would, quickly; one test runs the real one where Debian's
mirror can be reached.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.cli.failures import CommandError
from sampan.cli.making import workplace
from sampan.cli.making.distributions import Release
from support.command import Result, Terminal, run
from support.engines import SampanEngine
from support.rootfs import BUSYBOX
from support.waiting import wait_for

pytestmark = pytest.mark.root

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")
MIRROR = ("deb.debian.org", 80)

MMDEBSTRAP = """#!/bin/sh
echo "$@" >"$LOG"
work=$(mktemp -d "$TMPDIR/mmdebstrap.XXXXXX")
mkdir -p "$work/bin" "$work/etc" "$work/mounted"
mount -t tmpfs tmpfs "$work/mounted"; : >"$work/mounted/file"
for name in busybox sh bash cat; do cp BUSYBOX "$work/bin/$name"; done
echo fake >"$work/etc/debian_version"
echo "I: downloading packages with apt..." >&2
echo "I: downloading more of them" >&2
echo "W: a warning" >&2
echo "I: removing things" >&2
[ -z "$HANG" ] || { echo "$work" >"$HANG"; sleep 1000 & sleep 1000; }
[ -z "$FAIL" ] || { echo "E: it went wrong" >&2; exit 25; }
tar -C "$work" --exclude ./mounted -cf - .
"""

DEBOOTSTRAP = """#!/bin/sh
echo "$@" >"$LOG"
root=$(echo "$@" | awk '{print $(NF-1)}')
mkdir -p "$root/bin" "$root/etc" "$root/var/cache/apt/archives" "$root/var/log" "$root/dev" "$root/debootstrap"
for name in busybox sh bash cat ls find; do cp BUSYBOX "$root/bin/$name"; done
echo fake >"$root/etc/debian_version"; echo here >"$root/etc/hostname"; echo x >"$root/etc/machine-id"
touch "$root/var/cache/apt/archives/a.deb" "$root/var/log/dpkg.log" "$root/var/log/wtmp"
mknod "$root/dev/null" c 1 3
touch -d @1700000000 "$root/etc/debian_version"
echo "I: Retrieving a"; echo "I: Retrieving b"; echo "I: Extracting a..."
"""


class Making:
    """Stand-ins on PATH, a place for their work, and an engine."""

    def __init__(self, engine: SampanEngine, directory: Path) -> None:
        self.work = directory / "work"
        self.work.mkdir()
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.log = directory / "log"
        self.environ = {
            "PATH": f"{self.bin}:/usr/bin:/bin:/usr/sbin:/sbin", "TMPDIR": str(self.work),
            "SAMPAN_HOST": f"unix://{engine.socket}", "LOG": str(self.log),
        }  # fmt: skip
        self.engine = engine
        self.put("mmdebstrap", MMDEBSTRAP)
        self.put("debootstrap", DEBOOTSTRAP)

    def put(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text.replace("BUSYBOX", BUSYBOX))
        path.chmod(0o755)

    def argv(self, *arguments: str) -> list[str]:
        return [SAMPAN, "image", "bootstrap", *arguments]

    def __call__(self, *arguments: str, check: bool = True) -> Result:
        return run(self.argv(*arguments), env=self.environ, check=check)

    def ran(self, image: str, *command: str) -> str:
        return run([SAMPAN, "run", "--rm", "--network", "none", image, *command], env=self.environ).out  # fmt: skip

    def left(self) -> list[str]:
        return os.listdir(self.work)


@pytest.fixture
def making(sampan: SampanEngine, tmp_path: Path) -> Making:
    return Making(sampan, tmp_path)


def test_by_mmdebstrap(making: Making) -> None:
    done = making("debian:12", "--include", "curl,git", "--include", "vim", "--components", "main,contrib", "-c", "ENV A=1")  # fmt: skip
    assert done.err == "Downloading packages with apt...\nW: a warning\n"
    found = making.engine.get("/images/debian:12/json").json
    assert found["Id"] == done.line and found["Comment"] == "bootstrap debian:bookworm"
    assert found["Config"]["Cmd"] == ["bash"]
    assert found["Config"]["Env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=1"]  # fmt: skip
    assert making.ran("debian:12", "cat", "/etc/debian_version") == "fake\n"
    told = making.log.read_text().split()
    assert told[:2] == ["--variant=minbase", "--format=tar"] and told[-2:] == ["bookworm", "-"]
    assert "--include=curl,git,vim" in told and "--components=main,contrib" in told
    assert making.left() == []


def test_by_debootstrap(making: Making) -> None:
    """What is of the making stays out: logs, packages, this machine's name, its devices."""
    (making.bin / "mmdebstrap").unlink()
    tool = ["--tool", "debootstrap"] if shutil.which("mmdebstrap") else []
    done = making("ubuntu:noble", "-t", "mine:1", "--variant", "buildd", *tool)
    assert done.err == "Retrieving a\nExtracting a...\nPacking\n"
    assert making.ran("mine:1", "cat", "/etc/debian_version") == "fake\n"
    found = making.ran("mine:1", "find", "/var", "/etc/machine-id", "-size", "-1")
    assert set(found.split()) >= {"/etc/machine-id", "/var/log/wtmp"}
    assert not {"/var/log/dpkg.log", "/var/cache/apt/archives/a.deb"} & set(found.split())
    assert "debootstrap" not in making.ran("mine:1", "ls", "/")
    told = making.log.read_text().split()
    assert told[:2] == ["--variant=buildd", "--force-check-gpg"]
    assert told[-3] == "noble" and told[-1] == "http://archive.ubuntu.com/ubuntu"
    assert making.left() == []


def test_a_failure_tells_the_tools_last_words(making: Making) -> None:
    making.environ["FAIL"] = "1"
    done = making("debian:bookworm", "-q", "-t", "failed", check=False)
    assert (done.code, done.out) == (1, "")
    first, *rest = done.err.splitlines()
    assert first == "mmdebstrap ended with status 25" and rest[-1] == "E: it went wrong"
    assert making.engine.get("/images/failed/json").status == 404
    assert making.left() == []


def test_an_engine_that_refuses(making: Making) -> None:
    done = making("debian:bookworm", "-q", "-c", "RUN no", check=False)
    assert done.code == 1 and "RUN" in done.err.upper()
    assert making.left() == []


def test_without_a_tool(making: Making) -> None:
    for name in ("mmdebstrap", "debootstrap"):
        (making.bin / name).unlink()
        (making.bin / name).mkdir()  # not a program
    making.environ["PATH"] = str(making.bin)
    wanted = making("debian:bookworm", "--tool", "cdebootstrap", check=False)
    assert wanted.err == "unknown tool: cdebootstrap\nThere are: mmdebstrap, debootstrap\n"
    if shutil.which("mmdebstrap", path="/usr/local/sbin:/usr/sbin:/sbin"):
        pytest.skip("mmdebstrap is where it is found without PATH")
    done = making("debian:bookworm", "--tool", "mmdebstrap", check=False)
    assert done.err == (
        "mmdebstrap is needed to make an image of a distribution, and is not here\n"
        "apt-get install mmdebstrap\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_nothing_is_left_however_it_ends(making: Making, tmp_path: Path, number: int) -> None:
    """No process, no mount, no directory, no image; also when nobody could say goodbye."""
    hang = tmp_path / "hang"
    making.environ["HANG"] = str(hang)
    command = subprocess.Popen(
        making.argv("debian:bookworm", "-q", "-t", "gone"), env=making.environ,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: hang.exists() and hang.read_text().endswith("\n"), "the tool to be at work")
    assert making.left() != []
    os.killpg(command.pid, number) if number == signal.SIGINT else command.send_signal(number)
    out, _ = command.communicate(timeout=60)
    assert out == b"" and command.returncode != 0
    wait_for(lambda: not making.left(), "the directory to be removed")
    work = str(making.work).encode()
    wait_for(lambda: not any(work in line for line in commands()), "the tool's processes to end")
    with open("/proc/self/mountinfo", "rb") as file:
        assert work not in file.read()
    assert making.engine.get("/images/gone/json").status == 404


def commands() -> Iterator[bytes]:
    """Every process's environment."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                yield file.read()
        except OSError:
            continue


def test_the_keeper_killed(making: Making, tmp_path: Path) -> None:
    """The tool dies with it, and the next command removes what both left."""
    hang = tmp_path / "hang"
    command = subprocess.Popen(
        making.argv("debian:bookworm", "-q"), env={**making.environ, "HANG": str(hang)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: hang.exists() and hang.read_text().endswith("\n"), "the tool to be at work")
    with open(f"/proc/{command.pid}/task/{command.pid}/children") as file:
        keeper = int(file.read().split()[0])
    os.kill(keeper, signal.SIGKILL)
    _, err = command.communicate(timeout=60)
    assert command.returncode == 1 and b"the process that watched it is gone" in err
    assert making.left() != []
    making("debian:bookworm", "-q")
    assert making.left() == []


def test_a_directory_in_use_is_nobody_elses(tmp_path: Path) -> None:
    with workplace.Workplace(str(tmp_path)) as first:
        with workplace.Workplace(str(tmp_path)) as second:
            assert first.directory != second.directory and os.path.isdir(first.directory)
        assert os.listdir(tmp_path) == [os.path.basename(first.directory)]
    assert os.listdir(tmp_path) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / f"{workplace.PREFIX}link").symlink_to("mine")
    with workplace.Workplace(str(tmp_path)):
        assert (tmp_path / "mine").is_dir()


def test_on_a_terminal(making: Making) -> None:
    """One line that is drawn again, and taken back at the end."""
    with Terminal(making.argv("debian:bookworm"), env=making.environ) as terminal:
        terminal.expect("\r\x1b[KDownloading packages with apt...")
        terminal.expect("W: a warning")
        terminal.expect("sha256:")
        assert terminal.wait() == 0


@pytest.mark.parametrize(
    ("text", "platform", "suite", "tag", "architecture", "mirror"),
    [
        ("debian:bookworm", "", "bookworm", "debian:bookworm", "", "http://deb.debian.org/debian"),
        ("debian:12", "linux/arm64", "bookworm", "debian:12", "arm64", "http://deb.debian.org/debian"),
        ("debian", "", "stable", "debian:latest", "", "http://deb.debian.org/debian"),
        ("ubuntu:24.04", "amd64", "noble", "ubuntu:24.04", "amd64", "http://archive.ubuntu.com/ubuntu"),
        ("ubuntu:jammy", "linux/arm/v7", "jammy", "ubuntu:jammy", "armhf", "http://ports.ubuntu.com/ubuntu-ports"),
    ],
)  # fmt: skip
def test_names(text: str, platform: str, suite: str, tag: str, architecture: str, mirror: str) -> None:  # fmt: skip
    release = Release(text, mirror="", platform=platform)
    assert (release.suite, release.tag) == (suite, tag)
    assert (release.architecture, release.mirror) == (architecture, mirror)


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("", ""), (":x", ""), ("debian:", ""), ("-x", ""), ("debian:-x", ""), ("a/b:c", ""), ("Debian:x", ""),
        ("debian:a b", ""), ("debian:x\n", ""), ("kali:rolling", ""), ("debian:x", "windows/amd64"), ("debian:x", "linux/z"),
    ],
)  # fmt: skip
def test_bad_names(text: str, platform: str) -> None:
    with pytest.raises(CommandError):
        Release(text, mirror="", platform=platform)


def test_the_real_one(sampan: SampanEngine, tmp_path: Path) -> None:
    """mmdebstrap and Debian's mirror, with as few packages as run anything."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("needs mmdebstrap")
    try:
        socket.create_connection(MIRROR, timeout=3).close()
    except OSError:
        pytest.skip("needs Debian's mirror")
    work = tmp_path / "work"
    work.mkdir(mode=0o755)
    environ = {"PATH": os.environ["PATH"], "TMPDIR": str(work), "SAMPAN_HOST": f"unix://{sampan.socket}"}  # fmt: skip
    made = run(
        [SAMPAN, "image", "bootstrap", "debian:bookworm", "--variant", "extract", "--include", "busybox-static", "-t", "real"],
        env=environ, timeout_s=100,
    )  # fmt: skip
    assert made.line.startswith("sha256:")
    ran = run([SAMPAN, "run", "--rm", "--network", "none", "real", "/bin/busybox", "echo", "hello"], env=environ)  # fmt: skip
    assert ran.out == "hello\n"
    assert os.listdir(work) == []
