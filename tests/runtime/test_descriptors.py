"""What a hostile container reaches through the descriptors of the process that enters it.

`/proc/self/fd/N/..` leads out through a directory that is open while a path of the container's is
looked up, close-on-exec or not (CVE-2024-21626).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sampan.errors import RuntimeFailure

pytestmark = [pytest.mark.root, pytest.mark.vm]

Bundle = Any

_NUMBERS = range(3, 40)
_UP = "/.." * 12


@contextmanager
def leaked_directory() -> Iterator[None]:
    """A directory of the machine that the runtime itself was started with, on every other number."""
    leaked = [os.open("/", os.O_RDONLY | os.O_CLOEXEC) for _ in range(3)]
    try:
        yield
    finally:
        for fd in leaked:
            os.close(fd)


@pytest.mark.parametrize("way", ["/self/exe", "{up}/bin/sh", "{up}/proc/self/exe"])
def test_exec_runs_no_program_of_the_machine(bundle: Bundle, way: str) -> None:
    """The container makes the links, somebody executes their names."""
    container = bundle.start("sleep", "1000")
    links = f"/proc/{container.pid}/root/links"
    os.mkdir(links)
    for number in _NUMBERS:
        os.symlink(f"/proc/self/fd/{number}{way.format(up=_UP)}", f"{links}/{number}")
    found = []
    with leaked_directory():
        for number in _NUMBERS:
            try:
                bundle.execute(container, f"/links/{number}", "-c", "true")
            except RuntimeFailure as failure:
                assert failure.message.startswith(f'exec: "/links/{number}": stat'), failure
            else:
                found.append(number)
    assert found == []


def test_init_runs_no_program_of_the_machine(bundle: Bundle) -> None:
    for number in _NUMBERS:
        program = f"/proc/self/fd/{number}/self/exe"
        with leaked_directory(), pytest.raises(RuntimeFailure, match="stat /proc/self/fd"):
            bundle.run(program, "-c", "true")


def test_users_come_from_no_file_of_the_machine(bundle: Bundle) -> None:
    container = bundle.start("sleep", "1000")
    root = f"/proc/{container.pid}/root"
    passwd = f"{bundle.path}/passwd"
    with open(passwd, "w") as file:
        file.write("daemon:x:4321:4321::/:/bin/sh\n")
    with leaked_directory():
        for number in _NUMBERS:
            os.unlink(f"{root}/etc/passwd")
            os.symlink(f"/proc/self/fd/{number}{_UP}{passwd}", f"{root}/etc/passwd")
            with pytest.raises(RuntimeFailure, match="unable to find user"):
                bundle.execute(container, "id", user={"username": "daemon"})
