"""The default AppArmor profile: whom it is for, when it is loaded, what is said where it cannot be."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Any

import pytest

from sampan.engine.apparmor import DEFAULT_PROFILE, AppArmor, profile_text
from sampan.engine.model import HostConfig
from sampan.errors import RuntimeFailure
from sampan.linux import lsm


class Kernel:
    """A kernel's policy, and a parser in a directory of its own that changes it."""

    def __init__(self, directory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = directory / "calls"
        self.parser = directory / "apparmor_parser"
        self.calls.touch()
        self.forgotten = 0
        monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
        monkeypatch.setattr("sampan.engine.apparmor._PARSER_PATH", "/nonexistent")
        monkeypatch.setattr(lsm, "apparmor_enabled", lambda: True)
        monkeypatch.setattr(lsm, "apparmor_label", lambda: "unconfined")
        monkeypatch.setattr(lsm, "apparmor_revision", lambda: 10 * self.loads + self.forgotten)
        monkeypatch.setattr(lsm, "apparmor_profile_loaded", lambda name: self.forgotten == 0)

    @property
    def loads(self) -> int:
        return self.calls.read_text().count("profile sampan-default ")

    def install(self, script: str = "cat >>$(dirname $0)/calls") -> None:
        self.parser.write_text(f"#!/bin/sh\n{script}\n")
        self.parser.chmod(0o755)


@pytest.fixture
def kernel(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("host", "with_default", "without", "no_apparmor"),
    [
        (HostConfig(), DEFAULT_PROFILE, "", ""),
        (HostConfig(privileged=True), "unconfined", "unconfined", ""),
        (HostConfig(security_opt=["apparmor=mine"]), "mine", "mine", "mine"),
        (HostConfig(security_opt=["apparmor:mine"]), "mine", "mine", "mine"),
        (HostConfig(security_opt=["apparmor=unconfined"]), "unconfined", "unconfined", ""),
        (HostConfig(security_opt=["apparmor=mine"], privileged=True), "mine", "mine", "mine"),
    ],
)
def test_whom_it_is_for(
    kernel: Kernel, host: HostConfig, with_default: str, without: str, no_apparmor: str
) -> None:
    """A profile that is asked for by name is never dropped: the runtime refuses it where it is not."""
    apparmor = AppArmor()
    assert apparmor.profile_of(host) == without
    kernel.install()
    apparmor.load()
    assert apparmor.profile_of(host) == with_default
    apparmor.enabled, apparmor.default = False, ""
    assert apparmor.profile_of(host) == no_apparmor


async def test_it_is_loaded_again_only_when_it_is_gone(kernel: Kernel) -> None:
    kernel.install()
    apparmor = AppArmor()
    apparmor.load()
    await apparmor.ensure(DEFAULT_PROFILE)
    assert kernel.loads == 1
    kernel.forgotten = 1  # all profiles were unloaded
    kernel.install("cat >>$(dirname $0)/calls; rm -f $(dirname $0)/gone")
    await apparmor.ensure("unconfined")
    await apparmor.ensure("mine")
    assert kernel.loads == 1, "who does not use it does not wait for it"
    with pytest.raises(RuntimeFailure, match="the kernel does not show it"):
        await apparmor.ensure(DEFAULT_PROFILE)
    assert kernel.loads == 2
    kernel.forgotten = 0
    await apparmor.ensure(DEFAULT_PROFILE)
    await apparmor.ensure(DEFAULT_PROFILE)
    assert kernel.loads == 2


async def test_a_container_does_not_start_without_the_profile_that_was_promised(
    kernel: Kernel,
) -> None:
    kernel.install()
    apparmor = AppArmor()
    apparmor.load()
    kernel.forgotten = 1
    kernel.install("echo no such thing >&2; exit 1")
    text = (
        "AppArmor enabled on system but the sampan-default profile could not be loaded: "
        "apparmor_parser: no such thing"
    )
    with pytest.raises(RuntimeFailure, match=f"^{re.escape(text)}$"):
        await apparmor.ensure(DEFAULT_PROFILE)


def test_without_the_parser(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and nothing is claimed."""
    apparmor = AppArmor()
    apparmor.load()
    assert apparmor.default == ""
    assert "apparmor_parser is not installed" in apparmor.problem
    assert "without an AppArmor profile" in caplog.text


def test_the_parser_refuses(kernel: Kernel) -> None:
    kernel.install("echo bad >&2; exit 1")
    apparmor = AppArmor()
    apparmor.load()
    assert (apparmor.default, apparmor.problem) == ("", "apparmor_parser: bad")


def test_a_kernel_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsm, "apparmor_enabled", lambda: False)
    apparmor = AppArmor()
    apparmor.load()
    assert (apparmor.default, apparmor.problem) == ("", "")


@pytest.mark.parametrize("label", ["unconfined", "/usr/bin/sampand", 'evil"\n', "a b"])
def test_the_parser_takes_the_text(label: str) -> None:
    """Compiled, not loaded; a label that could be no name in the language is left out."""
    parser = shutil.which("apparmor_parser", path=f"{os.environ['PATH']}:/usr/sbin")
    if parser is None:
        pytest.skip("needs the command apparmor_parser")
    text = profile_text(label)
    assert ('peer="/usr/bin/sampand"' in text) == label.startswith("/usr")
    done = subprocess.run(
        [parser, "--skip-kernel-load", "--skip-cache", "--preprocess"],
        input=text.encode(), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"evil" not in done.stdout
