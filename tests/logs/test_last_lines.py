"""The last lines of a log within a budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sampan.logs.last_lines import last_lines


def entry(text: str, stream: str = "stdout") -> str:
    return json.dumps({"log": text, "stream": stream, "time": "2026-01-01T00:00:00Z"}) + "\n"


def texts(path: Path, lines: int = 20, size_bytes: int = 4096) -> list[str]:
    return [line.log for line in last_lines(str(path), lines, size_bytes)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_last_ones_in_order(log: Path) -> None:
    log.write_text("".join(entry(f"line {number}\n") for number in range(5000)))
    assert texts(log, lines=3) == ["line 4997", "line 4998", "line 4999"]
    assert texts(log, lines=0) == []
    (last,) = last_lines(str(log), 1, 4096)
    assert (last.stream, last.time) == ("stdout", "2026-01-01T00:00:00Z")


def test_no_log(log: Path) -> None:
    assert texts(log) == []
    log.write_text("")
    assert texts(log) == []


def test_too_long(log: Path) -> None:
    """The end of a line that does not fit; no line before it."""
    log.write_text(entry("before\n") + entry("x" * 5000 + "end\n"))
    (text,) = texts(log, size_bytes=100)
    assert (text[0], text[-4:], len(text)) == ("…", "xend", 101)
    log.write_text(entry("a" * 60) + entry("b" * 60))
    assert texts(log, size_bytes=100) == ["b" * 60]


def test_just_rotated(log: Path) -> None:
    log.write_text(entry("new"))
    log.with_name("log.1").write_text(entry("old 1") + entry("old 2"))
    assert texts(log, lines=2) == ["old 2", "new"]


def test_torn_and_odd_entries(log: Path) -> None:
    log.write_bytes(
        b'{"log":1}\n' + entry("good\r\n").encode() + b'\xff\xfe\n{"log":"\\ud800"}\n{"log":"to'
    )
    assert texts(log)[0] == "good"
    log.write_bytes(b"\0" * 100_000)
    assert texts(log) == []
