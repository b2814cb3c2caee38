"""The bars of `pull` and `push` on a terminal, and its lines elsewhere."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.fakes import Server
from sampan.cli.bars import Bars, Rate, drawn, duration, pace
from support.command import Terminal, run

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")


class Screen:
    """A terminal's lines as the escape sequences of the bars leave them."""

    def __init__(self, lines: int = 24, columns: int = 80) -> None:
        self.size = (lines, columns)
        self.now = 0.0
        self.lines: list[str] = [""]
        self.row = 0
        self.bars = Bars(self.write, lambda: self.size, lambda: self.now)

    def write(self, text: str) -> None:
        for part in re.findall(r"\x1b\[\d*[A-Z]|\r|\n|[^\x1b\r\n]+", text):
            if part == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif part == "\r":
                continue
            elif part.endswith("A") and part.startswith("\x1b"):
                self.row -= int(part[2:-1])
                assert self.row >= 0
            elif part == "\x1b[2K":
                self.lines[self.row] = ""
            elif part == "\x1b[J":
                del self.lines[self.row :]
                self.lines.append("")
            else:
                assert len(part) < self.size[1]
                self.lines[self.row] = part

    def tell(self, identifier: str, status: str, current: int = 0, total: int = 0) -> None:
        self.now += 0.2
        detail = {"current": current, "total": total} if total else {}
        self.bars.take({"id": identifier, "status": status, "progressDetail": detail})

    @property
    def text(self) -> list[str]:
        return [line for line in self.lines if line]


def test_rows_are_rewritten_in_place() -> None:
    screen = Screen()
    screen.bars.line("v1: Pulling from team/app")
    screen.tell("a", "Pulling fs layer")
    screen.tell("b", "Pulling fs layer")
    screen.tell("a", "Downloading", 1_000_000, 4_000_000)
    screen.tell("b", "Waiting")
    assert screen.text == [
        "v1: Pulling from team/app",
        "a: Downloading [======>                  ] 1MB/4MB",
        "b: Waiting",
        "0/2 layers, 1MB  1.67MB/s",
    ]
    screen.tell("a", "Downloading", 2_000_000, 4_000_000)
    assert screen.text[1] == (
        "a: Downloading [============>            ] 2MB/4MB  2.5MB/s  1s left"
    )
    screen.tell("b", "Already exists")
    screen.tell("a", "Download complete")
    screen.tell("a", "Pull complete")
    screen.bars.line("Digest: sha256:1")
    assert screen.text == [
        "v1: Pulling from team/app",
        "a: Pull complete",
        "b: Already exists",
        "Digest: sha256:1",
    ]


def test_more_layers_than_lines() -> None:
    screen = Screen(lines=10)
    for number in range(30):
        screen.tell(f"l{number}", "Waiting")
    assert len(screen.text) <= 9
    for number in range(28):
        screen.tell(f"l{number}", "Pull complete")
    assert [line for line in screen.text if "Waiting" in line] == ["l28: Waiting", "l29: Waiting"]
    screen.bars.finish()
    assert len(screen.text) == 30


def test_narrow_terminals() -> None:
    for columns in (20, 40, 60, 200):
        screen = Screen(columns=columns + 1)
        screen.tell("0123456789ab", "Downloading", 5, 10)
        screen.tell("0123456789ab", "Extracting", 9, 10)
        assert screen.text


def test_a_download_that_begins_anew_has_no_negative_rate() -> None:
    rate = Rate()
    rate.add(0.0, 1000)
    rate.add(1.0, 3000)
    assert rate.per_second == 2000
    rate.add(2.0, 0)
    assert rate.per_second == 0
    rate.add(9.0, 700)
    assert rate.per_second == 100


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1s"), (59, "59s"), (61, "1m01s"), (3600, "1h00m"), (7322, "2h02m")]
)
def test_times(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_words() -> None:
    assert pace(0, 100) == ""
    assert pace(1_000_000, 0) == "  1MB/s"
    assert drawn("a: Downloading", 10, 10, "10B/10B", 60) == "a: Downloading [======] 10B/10B"
    assert drawn("a: Downloading", 1, 10, "1B/10B", 24) == "a: Downloading 1B/10B"


def test_an_import_is_no_layer_among_others() -> None:
    screen = Screen()
    screen.tell("archive", "Importing", 1_000_000, 4_000_000)
    assert screen.text == ["archive: Importing   [====>              ] 1MB/4MB"]
    screen.tell("archive", "Importing", 3_000_000, -1)
    assert screen.text == ["archive: Importing 3MB  10MB/s"]


# -- The command --------------------------------------------------------------------------------

MESSAGES: list[dict[str, Any]] = [
    {"status": "Pulling from team/app", "id": "v1"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "aaaaaaaaaaaa"},
    {
        "status": "Downloading",
        "progressDetail": {"current": 5, "total": 10},
        "progress": "[=>]",
        "id": "aaaaaaaaaaaa",
    },
    {"status": "Pull complete", "progressDetail": {}, "id": "aaaaaaaaaaaa"},
    {"status": "Digest: sha256:1"},
    {"status": "Status: Downloaded newer image for r.test/team/app:v1"},
]


def answering(messages: list[dict[str, Any]]) -> Any:
    body = "".join(json.dumps(message) + "\r\n" for message in messages).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return lambda request: head % len(body) + body


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "SAMPAN_HOST": f"unix://{tmp_path}/s",
        "DOCKER_CONFIG": str(tmp_path),
        "TERM": "xterm",
    }


def test_plain_lines_where_there_is_no_terminal(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    server = Server(f"{tmp_path}/s", answering(MESSAGES))
    try:
        done = run([SAMPAN, "pull", "r.test/team/app:v1"], env=environment)
    finally:
        server.close()
    assert done.out.splitlines() == [
        "v1: Pulling from team/app",
        "aaaaaaaaaaaa: Pulling fs layer",
        "aaaaaaaaaaaa: Pull complete",
        "Digest: sha256:1",
        "Status: Downloaded newer image for r.test/team/app:v1",
        "r.test/team/app:v1",
    ]
    [request] = server.requests
    assert request.path == "/images/create?fromImage=r.test%2Fteam%2Fapp&tag=v1"


def test_bars_on_a_terminal(tmp_path: Path, environment: dict[str, str]) -> None:
    server = Server(f"{tmp_path}/s", answering(MESSAGES))
    try:
        with Terminal([SAMPAN, "pull", "r.test/team/app:v1"], env=environment) as terminal:
            shown = terminal.expect("newer image for r.test/team/app:v1")
            assert "\x1b[2Kaaaaaaaaaaaa: Pull complete" in shown
            assert terminal.wait() == 0
    finally:
        server.close()


def test_a_failure_in_the_stream(tmp_path: Path, environment: dict[str, str]) -> None:
    failure = {"errorDetail": {"message": "no room"}, "error": "no room"}
    server = Server(f"{tmp_path}/s", answering([*MESSAGES[:3], failure]))
    try:
        done = run([SAMPAN, "pull", "-q", "r.test/team/app:v1"], env=environment, check=False)
    finally:
        server.close()
    assert (done.code, done.out, done.err) == (1, "", "no room\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-a", "x:1"], "tag can't be used with --all-tags/-a"),
        (["x:"], "invalid reference format"),
        (["team/App"], "invalid reference format: repository name (team/App) must be lowercase"),
        ([], "'sampan pull' requires 1 argument"),
    ],
)
def test_refusals(environment: dict[str, str], arguments: list[str], words: str) -> None:
    done = run([SAMPAN, "pull", *arguments], env=environment, check=False)
    assert done.code == 1
    assert words in done.err
