"""`top`: the host's ps(1), narrowed to the processes of one container."""

from __future__ import annotations

import asyncio
import shlex

from sampan.engine.container import Container
from sampan.errors import Conflict, InvalidArgument, RuntimeFailure, Unavailable
from sampan.linux.cgroups.manager import open_cgroup

DEFAULT_ARGUMENTS = "-ef"
PS_TIMEOUT_S = 10


async def top(container: Container, arguments: str) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of `ps ARGUMENTS` for the container's processes; PIDs are the host's.

    Raises:
        Conflict: it does not run.
        InvalidArgument: ps refuses the arguments, or its answer has no PID column.
        Unavailable: there is no ps on this machine.
    """
    if container.state.restarting:
        raise Conflict(
            f"Container {container.id} is restarting, wait until the container is running"
        )
    if not container.state.running:
        raise Conflict(f"Container {container.id} is not running")
    words = _words(arguments or DEFAULT_ARGUMENTS)
    output = await _run_ps(words)
    pids = set(open_cgroup(container.record.cgroup_path).processes())
    return parse(output, pids)


def parse(output: str, pids: set[int]) -> tuple[list[str], list[list[str]]]:
    """Split ps's table; the last column may hold spaces.

    Raises:
        InvalidArgument: there is no PID column.
    """
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdecimal() and int(fields[column]) in pids:
            rows.append(fields)
    return titles, rows


def _words(arguments: str) -> list[str]:
    try:
        return shlex.split(arguments)
    except ValueError as error:
        raise InvalidArgument(f"invalid ps arguments {arguments!r}: {error}") from error


async def _run_ps(words: list[str]) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            "ps",
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise Unavailable(
            "ps is not installed on this machine", hint="apt install procps"
        ) from error
    try:
        async with asyncio.timeout(PS_TIMEOUT_S):
            output, errors = await process.communicate()
    except TimeoutError as error:
        raise RuntimeFailure("top", f"ps did not answer in {PS_TIMEOUT_S} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise InvalidArgument(f"ps: {errors.decode(errors='replace').strip()}")
    return output.decode(errors="replace")
