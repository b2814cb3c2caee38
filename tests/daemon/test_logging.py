"""The daemon's log: what clients send cannot forge, colour or flood it."""

from __future__ import annotations

import logging
import sys

import pytest

from sampan.daemon.logging import LogfmtFormatter


def line(message: str, *arguments: object, error: BaseException | None = None) -> str:
    information = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("x", logging.INFO, "f", 1, message, arguments, information)
    return LogfmtFormatter().format(record)


FORGED = 'time="2026-01-01T00:00:00.000Z" level=error msg="forged"'


@pytest.mark.parametrize(
    "control", [chr(c) for c in (*range(32), *range(127, 160), 0x2028, 0x202E, 0xDC80)]
)
def test_controls_are_escaped(control: str) -> None:
    text = line("GET %s 200", f"/a{control}b")
    assert control not in text
    assert text.isprintable()
    text.encode()


def test_letters_stay() -> None:
    assert line("舢板 %s", "ü\\").endswith('level=info msg="舢板 ü\\\\"')


def test_a_traceback_forges_no_line() -> None:
    def raising() -> None:
        raise ValueError(f"bad\n{FORGED}\r{FORGED}\x9b31m\x1b[31m")

    try:
        raising()
    except ValueError:
        text = line("it failed", error=sys.exc_info()[1])
    first, *others = text.split("\n")
    assert first.startswith("time=")
    assert "Traceback" in others[0]
    assert all(other.startswith("    ") and other.isprintable() for other in others)


def test_length_is_bounded() -> None:
    assert len(line("%s", "x" * 1_000_000)) < 20_000
    assert len(line("it failed", error=ValueError("x" * 1_000_000))) < 20_000
