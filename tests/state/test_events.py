"""The event log's files: what is found again after any end, and what is let go of."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sampan.state import events
from sampan.state.events import BOOT_GAP, EventLog, Limits, Place

DAY_NS = 86400 * 10**9


def line(number: int, time_ns: int, size: int = 0) -> bytes:
    return json.dumps({"number": number, "time_ns": time_ns, "x": "x" * size}).encode()


def fill(log: EventLog, count: int, *, size: int = 100, step_ns: int = 1) -> None:
    for _ in range(count):
        number, time_ns = log.last + 1, log.latest_ns + step_ns
        log.append(number, time_ns, line(number, time_ns, size))


def numbers(log: EventLog, after: int = 0, since_ns: int = 0) -> list[int]:
    found: list[int] = []
    place: Place | None = log.place_of(after, since_ns)
    while place is not None:
        lines, place = log.read(place)
        found += [json.loads(text)["number"] for text in lines]
    return found


def test_found_again(tmp_path: Path) -> None:
    log = EventLog(f"{tmp_path}/e")
    assert (log.last, log.oldest, numbers(log)) == (0, 1, [])
    fill(log, 10)
    again = EventLog(f"{tmp_path}/e")
    assert (again.last, again.latest_ns, again.oldest) == (10, 10, 1)
    fill(again, 1)
    assert numbers(again) == list(range(1, 12))
    assert os.stat(f"{tmp_path}/e").st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in (tmp_path / "e").iterdir()] == [0o600]


@pytest.mark.parametrize("cut", range(1, 12))
def test_cut_off_in_a_write(tmp_path: Path, cut: int) -> None:
    """A last line that is not whole was told to nobody: it goes, and its number is used again."""
    log = EventLog(f"{tmp_path}/e")
    fill(log, 3, size=0)
    log.close()
    (path,) = (tmp_path / "e").iterdir()
    os.truncate(path, path.stat().st_size - cut)
    again = EventLog(f"{tmp_path}/e")
    assert again.last == 2
    fill(again, 2)
    assert numbers(again) == [1, 2, 3, 4]


def test_cut_off_in_a_new_segment(tmp_path: Path) -> None:
    """A segment without a whole first line is none."""
    log = EventLog(f"{tmp_path}/e")
    fill(log, 3)
    (tmp_path / "e" / f"{4:020d}.jsonl").write_bytes(b'{"boo')
    (tmp_path / "e" / "notes.jsonl").write_bytes(b"somebody's")
    again = EventLog(f"{tmp_path}/e")
    fill(again, 1)
    assert numbers(again) == [1, 2, 3, 4]


def test_another_boot(tmp_path: Path) -> None:
    """The crash may have taken the last events: their numbers are not used again."""
    log = EventLog(f"{tmp_path}/e")
    fill(log, 3)
    (path,) = (tmp_path / "e").iterdir()
    path.write_bytes(path.read_bytes().replace(log._boot.encode(), b"another"))
    again = EventLog(f"{tmp_path}/e")
    assert (again.last, again.oldest) == (3 + BOOT_GAP, 1)
    fill(again, 2)
    assert numbers(again) == [1, 2, 3, 4 + BOOT_GAP, 5 + BOOT_GAP]
    assert numbers(EventLog(f"{tmp_path}/e"), after=3 + BOOT_GAP)[-2:] == numbers(again)[-2:]


def test_rubbish_from_a_crash(tmp_path: Path) -> None:
    """Lines that are none are passed over; a segment whose first line is lost is read."""
    log = EventLog(f"{tmp_path}/e")
    fill(log, 3)
    (path,) = (tmp_path / "e").iterdir()
    header, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(b"\0" * len(header) + b"\n" + rest + b"\0\0\n")
    assert EventLog(f"{tmp_path}/e").last == 3 + BOOT_GAP


def test_by_size(tmp_path: Path) -> None:
    log = EventLog(f"{tmp_path}/e", Limits(size_bytes=80_000))
    fill(log, 3000)
    kept = numbers(log)
    assert kept == list(range(log.oldest, 3001))
    total = sum(file.stat().st_size for file in (tmp_path / "e").iterdir())
    assert 60_000 < total <= 90_000
    assert numbers(log, after=2990)[-10:] == list(range(2991, 3001))
    assert len(numbers(log, after=2990)) < 200


def test_by_age(tmp_path: Path) -> None:
    """A quiet engine begins a segment from time to time, so that old events can go."""
    log = EventLog(f"{tmp_path}/e", Limits(age_s=8 * 86400.0))
    fill(log, 40, step_ns=DAY_NS // 2)
    assert log.oldest > 15
    assert numbers(log) == list(range(log.oldest, 41))
    oldest_ns = log.latest_ns - (40 - log.oldest) * DAY_NS // 2
    assert 8 * DAY_NS <= log.latest_ns - oldest_ns <= 10 * DAY_NS
    log.prune(log.latest_ns + 100 * DAY_NS)
    assert len(list((tmp_path / "e").iterdir())) == 1


def test_reading_while_it_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader whose segment goes is moved on to the next that is there."""
    monkeypatch.setattr(events, "READ_BYTES", 4096)
    log = EventLog(f"{tmp_path}/e", Limits(size_bytes=80_000))
    fill(log, 400)
    _, place = log.read(log.place_of())
    fill(log, 2000)
    found = []
    while place is not None:
        lines, place = log.read(place)
        found += [json.loads(text)["number"] for text in lines]
    assert found == list(range(log.oldest, 2401))


def test_long_lines(tmp_path: Path) -> None:
    """A line may be longer than what is read at once, and than a segment."""
    log = EventLog(f"{tmp_path}/e", Limits(size_bytes=8 << 20))
    fill(log, 4, size=1 << 20)
    fill(log, 4)
    assert numbers(log) == list(range(1, 9))
    assert EventLog(f"{tmp_path}/e").last == 8
