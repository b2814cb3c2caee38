"""AppArmor, as a user of docker meets it: confined by default, by name, or not at all."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine

pytestmark = [pytest.mark.apparmor, pytest.mark.vm]

LABEL = ("cat", "/proc/self/attr/current")
# Each line of output is a refusal that did not happen. A tmpfs, to have something to mount.
ESCAPES = """
mount -t tmpfs none /dev 2>/dev/null && echo mount
sh -c 'echo x >/proc/sys/kernel/domainname' 2>/dev/null && echo sysctl
sh -c 'echo h >/proc/sysrq-trigger' 2>/dev/null && echo sysrq
head -c 1 /proc/kcore 2>/dev/null | grep -q . && echo kcore
sh -c 'echo 1 >/sys/kernel/profiling' 2>/dev/null && echo sys
ls /sys/kernel/security/apparmor >/dev/null 2>&1 && echo securityfs
kill -0 1 || echo own signals
touch /tmp/file || echo files
echo 0 >/proc/self/oom_score_adj || echo own proc
"""


@pytest.fixture(autouse=True)
def _only_sampan(only_sampan: None) -> None:
    """The profile has another name with dockerd."""


def test_the_default(docker: DockerCLI, target: Engine) -> None:
    """Said by info and inspect, true of the container and of an exec in it."""
    assert "name=apparmor" in target.get("/info").json["SecurityOptions"]
    docker("run", "-d", "--name", "confined", IMAGE, "sleep", "1000")
    inspected = target.get("/containers/confined/json").json
    assert inspected["AppArmorProfile"] == "sampan-default"
    assert docker("exec", "confined", *LABEL).line == "sampan-default (enforce)"
    with open(f"/proc/{inspected['State']['Pid']}/attr/current") as file:
        assert file.read() == "sampan-default (enforce)\n"
    assert docker("exec", "confined", "sh", "-c", "kill -0 1 && echo may").line == "may"
    docker("kill", "confined")


def test_what_it_denies(docker: DockerCLI) -> None:
    """Also where capabilities, the seccomp filter and the masks would allow it."""
    options = [
        "--rm", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined",
        "--security-opt", "systempaths=unconfined",
    ]  # fmt: skip
    assert docker("run", *options, IMAGE, "sh", "-c", ESCAPES).out == ""
    off = docker(
        "run", *options, "--security-opt", "apparmor=unconfined", IMAGE, "sh", "-c", ESCAPES
    )
    assert {"mount", "sysctl", "kcore"} <= set(off.out.split())


def test_privileged_and_unconfined(docker: DockerCLI, target: Engine) -> None:
    assert docker("run", "--rm", "--privileged", IMAGE, *LABEL).line == "unconfined"
    docker("run", "--name", "confined", "--security-opt", "apparmor=unconfined", IMAGE, *LABEL)
    assert target.get("/containers/confined/json").json["AppArmorProfile"] == "unconfined"


def test_a_profile_that_is_not_loaded(docker: DockerCLI) -> None:
    done = docker("run", "--rm", "--security-opt", "apparmor=nosuch", IMAGE, "true", check=False)
    assert done.code in (125, 126, 127)
    assert "unable to apply apparmor profile" in done.err


def test_a_profile_that_was_unloaded_is_loaded_again(docker: DockerCLI) -> None:
    parser = shutil.which("apparmor_parser")
    assert parser is not None
    gone = "profile sampan-default { file, }"
    subprocess.run([parser, "--remove"], input=gone.encode(), check=True)
    assert docker("run", "--rm", IMAGE, *LABEL).line == "sampan-default (enforce)"
