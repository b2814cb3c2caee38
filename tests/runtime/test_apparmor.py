"""AppArmor confinement of containers, where the kernel has it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.errors import RuntimeFailure

pytestmark = [pytest.mark.root, pytest.mark.apparmor, pytest.mark.vm]

Bundle = Any

PROFILE = """
profile {name} flags=(attach_disconnected,mediate_deleted) {{
  capability,
  file,
  signal,
  deny /etc/group r,
}}
"""


@pytest.fixture
def profile(session_token: str) -> Iterator[str]:
    """A profile in the kernel that forbids one file."""
    parser = shutil.which("apparmor_parser")
    if parser is None:
        pytest.skip("needs the command apparmor_parser")
    name = f"sampan-test-{session_token}"
    text = PROFILE.format(name=name).encode()
    subprocess.run([parser, "--skip-cache", "--replace"], input=text, check=True)
    yield name
    subprocess.run([parser, "--remove"], input=text, check=True)


def test_program_runs_confined(bundle: Bundle, profile: str) -> None:
    bundle.process["apparmorProfile"] = profile
    got = bundle.sh("cat /proc/self/attr/current; cat /etc/group || echo denied")
    assert got.lines == [f"{profile} (enforce)", "denied"]


def test_exec_runs_confined(bundle: Bundle, profile: str) -> None:
    bundle.process["apparmorProfile"] = profile
    container = bundle.start("sleep", "1000")
    got = bundle.execute(container, "cat", "/proc/self/attr/current")
    assert got.out == f"{profile} (enforce)\n"


def test_profile_that_is_not_loaded(bundle: Bundle) -> None:
    bundle.process["apparmorProfile"] = "sampan-test-nosuch"
    with pytest.raises(RuntimeFailure, match="unable to apply apparmor profile") as caught:
        bundle.create("true")
    assert caught.value.stage == "apparmor"
