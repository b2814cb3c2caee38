"""Following: everything up to the end, through rotations, and then an end."""

import asyncio
from pathlib import Path

import pytest

from sampan.logs.follow import follow_log
from sampan.logs.json_file_writer import JSONFileWriter


class Reader:
    """Follows a log in a task and lets a test wait for text."""

    def __init__(self, path: str, **options: object) -> None:
        self.text = b""
        self.ended = asyncio.Event()
        self._news = asyncio.Condition()
        self.task = asyncio.create_task(self._run(path, options))

    async def _run(self, path: str, options: dict[str, object]) -> None:
        async for chunk in follow_log(path, ended=self.ended, **options):  # type: ignore[arg-type]
            async with self._news:
                self.text += chunk
                self._news.notify_all()

    async def has(self, text: bytes) -> None:
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: self.text.endswith(text))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "log")


async def test_lines_arrive_as_they_are_written(path: str) -> None:
    writer = JSONFileWriter(path, {})
    writer.write("stdout", b"old\n")
    reader = Reader(path)
    await reader.has(b"old\n")
    writer.write("stdout", b"new\n")
    await reader.has(b"new\n")
    writer.write("stdout", b"last")
    writer.finish("stdout")
    writer.close()
    reader.ended.set()
    await reader.task
    assert reader.text == b"old\nnew\nlast"


async def test_log_that_comes_later(path: str) -> None:
    reader = Reader(path)
    await asyncio.sleep(0)
    writer = JSONFileWriter(path, {})
    writer.write("stdout", b"first\n")
    await reader.has(b"first\n")
    writer.close()
    reader.ended.set()
    await reader.task


@pytest.mark.parametrize("files", ["1", "3"])
async def test_rotations(path: str, files: str) -> None:
    """A follower that keeps up sees every line, wherever the files were cut."""
    writer = JSONFileWriter(path, {"max-size": "1k", "max-file": files})
    reader = Reader(path)
    expected = b""
    for number in range(200):
        line = b"number %d\n" % number
        expected += line
        writer.write("stdout", line)
        await reader.has(line)
    writer.close()
    reader.ended.set()
    await reader.task
    assert reader.text == expected


async def test_burst_over_rotations_with_all_files_kept(path: str) -> None:
    writer = JSONFileWriter(path, {"max-size": "1k", "max-file": "1000"})
    writer.write("stdout", b"start\n")
    reader = Reader(path)
    await reader.has(b"start\n")
    lines = b"".join(b"number %d\n" % number for number in range(2000))
    writer.write("stdout", lines)
    writer.close()
    reader.ended.set()
    await reader.task
    assert reader.text == b"start\n" + lines


async def test_tail_then_follow(path: str) -> None:
    writer = JSONFileWriter(path, {"max-size": "1k", "max-file": "5"})
    writer.write("stdout", b"".join(b"number %02d\n" % number for number in range(30)))
    reader = Reader(path, tail=12)
    await reader.has(b"number 29\n")
    writer.write("stdout", b"new\n")
    await reader.has(b"new\n")
    writer.close()
    reader.ended.set()
    await reader.task
    assert len(reader.text.splitlines()) == 13


async def test_until_ends_it(path: str) -> None:
    writer = JSONFileWriter(path, {})
    reader = Reader(path, until_ns=1)
    writer.write("stdout", b"too late\n")
    await asyncio.wait_for(reader.task, 30)
    writer.close()
    assert reader.text == b""
