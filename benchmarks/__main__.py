"""Compare Sampan with dockerd, Podman and skopeo on this machine, now; print a Markdown table.

    python -m benchmarks [--engines sampan,dockerd,podman,skopeo] [--rows run-none,exec] [--rounds 9] [--output FILE]

Needs root, the docker command line and what `scripts/debian-packages test` installs. Nothing else should
be busy: the medians are of wall time. See docs/performance.md for how to read them.
"""

from __future__ import annotations

import argparse
import os
import platform
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests")
)

from benchmarks import goals, image_rows, life_rows, network_rows, rows, traffic_rows
from benchmarks.subjects import Subject, start_subjects
from support.command import docker_clis

# Goals as a share of dockerd's figure in the same run (the memory rows: MiB, absolute).
GOALS = {
    rows.RUN_NONE: 1 / 6,
    rows.RUN_BRIDGE: 1 / 6,
    rows.EXEC: 1 / 3,
    rows.API: 1 / 8,
    rows.MANY_RUN: 1 / 5,
    rows.MANY_RM: 1 / 5,
    rows.LOG_WRITE: 1.0,
    rows.LOG_READ: 1 / 2,
    **image_rows.GOALS,
}
ABSOLUTE_GOALS = {
    rows.PER_CONTAINER: 2.5,
    rows.IDLE: 60.0,
    rows.USED: 60.0,
    image_rows.PEAK: image_rows.PEAK_GOAL_MIB,
}
COMMAND_GOALS = {"run --rm --network none IMG true": 1.5, "ps": 1.3}
# Slow rows need fewer rounds for a steady median.
ROUND_SHARE = {"many": 0.4, "logs": 0.6, "memory": 0, "used": 0}
IMAGE_ROUND_SHARE = 1 / 3
LIFE_ROUND_SHARE = 1 / 3
TRAFFIC = "net-traffic"
LIFE = {**life_rows.SCENARIOS, **network_rows.SCENARIOS}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="make bench", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--engines", default="sampan,dockerd,podman,skopeo", help="which, in this order"
    )
    known = ",".join((*rows.ROWS, *LIFE, TRAFFIC, *image_rows.SCENARIOS))
    parser.add_argument("--rows", default=known, help=f"of {known}")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each row and engine")
    parser.add_argument("--at-once", default="1,8,32", help="how many starts at once (empty: none)")
    parser.add_argument("--output", help="write the table there too")
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        parser.error("needs root")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that engines are ended
    token = secrets.token_hex(4)
    directory = f"/tmp/sampan-bench-{token}"
    os.mkdir(directory, 0o711)
    subjects: list[Subject] = []
    try:
        chosen = options.rows.split(",")
        parts = [machine()]
        if any(name in rows.ROWS or name in LIFE for name in chosen):
            subjects.extend(start_subjects(options.engines.split(","), directory, token))
            parts += measure(subjects, options)
            parts += measure_life(subjects, options)
            while subjects:
                subjects.pop().stop()
        parts += measure_traffic(options, directory)
        parts += measure_images(options, directory)
        report = "\n\n".join(parts)
    finally:
        for subject in subjects:
            subject.stop()
        shutil.rmtree(directory, ignore_errors=True)
    print(report)
    if options.output:
        with open(options.output, "w") as file:
            file.write(report + "\n")
    return 0


def measure(subjects: list[Subject], options: argparse.Namespace) -> list[str]:
    """The report about starts and execs, if any of its rows is asked for."""
    if not any(name in rows.ROWS for name in options.rows.split(",")):
        return []
    parts = []
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name in options.rows.split(","):
        if name not in rows.ROWS:
            continue
        for round_ in range(1 + round(options.rounds * ROUND_SHARE.get(name, 1))):
            order = subjects if round_ % 2 else subjects[::-1]
            for subject in order:
                progress(f"{name} {round_} {subject.name}")
                try:
                    found = rows.ROWS[name](subject)
                except rows.NotMeasured:
                    continue
                if round_ == 0 and name not in ("memory", "used"):
                    continue  # the first round warms caches up
                for row, value in found.items():
                    figures[row][subject.name].append(value)
    progress("")
    parts.append(table(figures, [subject.name for subject in subjects]))
    parts.extend(extras(subjects, options))
    return parts


def measure_life(subjects: list[Subject], options: argparse.Namespace) -> list[str]:
    """The report about engines with many containers and about networks, if any of its rows is asked for."""
    scenarios = {name: LIFE[name] for name in options.rows.split(",") if name in LIFE}
    if not scenarios:
        return []
    rounds = max(1, round(options.rounds * LIFE_ROUND_SHARE))
    figures = life_rows.measure(subjects, scenarios, rounds, progress)
    progress("")
    return [goals.table(figures, [s.name for s in subjects if s.engine is not None])]


def measure_traffic(options: argparse.Namespace, directory: str) -> list[str]:
    """The report about what goes through networks, if it is asked for."""
    names = [name for name in options.engines.split(",") if name in traffic_rows.KINDS]
    if TRAFFIC not in options.rows.split(",") or not names:
        return []
    engines, pair = traffic_rows.measure(names, options.rounds, f"{directory}/traffic", progress)
    progress("")
    bare = traffic_rows.BARE
    return [goals.table(engines, names), goals.table(pair, [*names, bare], bare)]


def measure_images(options: argparse.Namespace, directory: str) -> list[str]:
    """The report about images, if any of its rows is asked for."""
    scenarios = [name for name in options.rows.split(",") if name in image_rows.SCENARIOS]
    names = [name for name in options.engines.split(",") if name in image_rows.NAMES]
    if not scenarios or not names:
        return []
    rounds = max(1, round(options.rounds * IMAGE_ROUND_SHARE))
    figures = image_rows.measure(names, scenarios, rounds, directory, progress)
    progress("")
    return [table(figures, names)]


def progress(text: str) -> None:
    """One line that a terminal shows for the moment."""
    if sys.stderr.isatty():
        print(f"\r{text:40}\r", end="", file=sys.stderr, flush=True)


def extras(subjects: list[Subject], options: argparse.Namespace) -> list[str]:
    """Starts at once, our command line, the trace of a start."""
    parts = []
    counts = [int(count) for count in filter(None, options.at_once.split(","))]
    engines = [subject for subject in subjects if subject.engine is not None]
    if counts:
        parts.append(starts_table(engines, counts, options.rounds))
    ours = next((subject for subject in engines if subject.name == "sampan"), None)
    if ours is not None and ours.engine is not None:
        command = os.path.join(os.path.dirname(sys.executable), "sampan")
        found = rows.command_lines(
            ours.engine, ours.engine.cli(command), ours.docker(), options.rounds * 2
        )
        parts.append(commands_table(found))
        traced = rows.traces(ours.engine, options.rounds * 3)
        if traced:
            parts.append(trace_table(traced))
    return parts


def machine() -> str:
    """What the figures were measured on."""
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) // 2**20
    versions = [
        f"kernel {platform.release()}",
        f"CPython {platform.python_version()} ({sys.executable})",
    ]
    versions += [f"docker command {next(iter(docker_clis()), 'none')}"]
    for command in (["dockerd", "--version"], ["podman", "--version"]):
        if shutil.which(command[0]):
            versions.append(
                subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            )
    return f"{os.cpu_count()} CPUs, {memory} GiB; " + "; ".join(versions)


def table(figures: dict[str, dict[str, list[float]]], names: list[str]) -> str:
    lines = [
        "| median | " + " | ".join(names) + " | sampan / dockerd | goal | |",
        "|---|" + "---:|" * len(names) + "---:|---:|---|",
    ]
    for row, by_engine in figures.items():
        medians = {name: statistics.median(values) for name, values in by_engine.items()}
        in_memory = row in ABSOLUTE_GOALS
        cells = [_value(medians.get(name), in_memory) for name in names]
        ours, theirs = medians.get("sampan"), medians.get("dockerd")
        ratio = ours / theirs if ours is not None and theirs else None
        goal, met = _goal(row, ours, ratio)
        shown = f"{ratio:.3f}" if ratio is not None else ""
        lines.append(f"| {row} | " + " | ".join(cells) + f" | {shown} | {goal} | {met} |")
    return "\n".join(lines)


def _goal(row: str, ours: float | None, ratio: float | None) -> tuple[str, str]:
    if row in ABSOLUTE_GOALS:
        return f"≤ {ABSOLUTE_GOALS[row]:g} MiB", _met(ours, ABSOLUTE_GOALS[row])
    goal = GOALS.get(row)
    if goal is None:
        return "", ""
    return f"≤ {goal:.3f}", _met(ratio, goal)


def _met(value: float | None, goal: float) -> str:
    if value is None:
        return ""
    return "met" if value <= goal else "**not met**"


def _value(value: float | None, in_memory: bool) -> str:
    if value is None:
        return "-"
    if in_memory:
        return f"{value:.2f} MiB"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def starts_table(engines: list[Subject], counts: list[int], rounds: int) -> str:
    lines = [
        "| create+start at once (API, bridge) | engine | p50 | p95 | all started |",
        "|---:|---|---:|---:|---:|",
    ]
    for count in counts:
        times: dict[str, list[float]] = defaultdict(list)
        ends: dict[str, list[float]] = defaultdict(list)
        for _ in range(max(2, rounds // 3 if count > 1 else rounds * 2)):
            for subject in engines:
                assert subject.engine is not None
                found = rows.at_once(subject.engine, count)
                times[subject.name] += found
                ends[subject.name].append(max(found))
        for name, values in times.items():
            ordered = sorted(values)
            p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
            cells = [
                _value(statistics.median(ordered), False),
                _value(p95, False),
                _value(statistics.median(ends[name]), False),
            ]
            lines.append(f"| {count} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def commands_table(figures: dict[str, tuple[list[float], list[float]]]) -> str:
    lines = [
        "| on the same engine | `sampan` | `docker` | ratio | goal | |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for label, (ours, theirs) in figures.items():
        a, b = statistics.median(ours), statistics.median(theirs)
        goal = COMMAND_GOALS[label]
        lines.append(
            f"| `{label}` | {_value(a, False)} | {_value(b, False)} | {a / b:.2f} | ≤ {goal} | {_met(a / b, goal)} |"
        )
    return "\n".join(lines)


def trace_table(traced: list[list[tuple[str, int]]]) -> str:
    """Median of each stage over the starts that went through the most common list of stages."""
    by_stages: dict[tuple[str, ...], list[list[int]]] = defaultdict(list)
    for trace in traced:
        by_stages[tuple(stage for stage, _ in trace)].append([us for _, us in trace])
    stages, values = max(by_stages.items(), key=lambda item: len(item[1]))
    lines = [
        f"| stage of a start with the bridge network, alone (median of {len(values)}) | µs | since the request |",
        "|---|---:|---:|",
    ]
    total = 0.0
    for stage, column in zip(stages, zip(*values, strict=True), strict=True):
        us = statistics.median(column)
        total += us
        lines.append(f"| {stage} | {us:.0f} | {total:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
