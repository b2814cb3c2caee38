"""What a container can do to the machine's /dev/null, which it has as standard input."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from sampan.shim.client import ExecRequest
from shim.containers import Machine, oci_config

pytestmark = [pytest.mark.root, pytest.mark.vm]

# Each of these would succeed, for root owns the file, and would change nothing here.
SCRIPT = """
for command in "chmod 666 /proc/self/fd/0" "chown 0:0 /proc/self/fd/0" "touch /proc/self/fd/0"; do
    busybox $command 2>/dev/null && exit 1
done
busybox cat <&0 && echo x >&0 2>/dev/null
exit 7
"""


def stamp() -> tuple[int, Any]:
    found = os.stat("/dev/null")
    return found.st_ctime_ns, oct(found.st_mode)


async def test_of_a_container(machine: Machine) -> None:
    before = stamp()
    connection = await machine.spawn("sh", "-c", SCRIPT)
    status = await asyncio.wait_for(connection.exited, 30)
    assert status.exit_code == 7
    assert stamp() == before


async def test_of_an_exec_that_nobody_watches(machine: Machine) -> None:
    before = stamp()
    container = await machine.spawn("sleep", "1000")
    process = oci_config(("sh", "-c", SCRIPT))["process"]
    request = ExecRequest(id="exec-null", process=process)
    handle = await machine.zygote.exec(container, request)
    assert await asyncio.wait_for(handle.exited, 30) == 7
    assert stamp() == before
