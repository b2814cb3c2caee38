"""Rows of a table and what each should come to: a figure of its own unit, and its goal.

A goal is absolute (`at_most`, in the row's unit) or a share of dockerd's (or another's) figure in the same run
(`share`), or a floor under that share (`at_least`, for throughput).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Figures = dict["Row", float]
"""What one measurement found."""
Collected = Mapping["Row", Mapping[str, Sequence[float]]]
"""Row → engine → what its rounds found."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `unit` is s, %, MiB, Mbit/s or nothing."""

    label: str
    unit: str = "s"
    at_most: float | None = None
    share: float | None = None
    at_least: float | None = None

    def goal(self) -> str:
        """The goal in words, empty for a row that is only told."""
        if self.at_most is not None:
            return f"≤ {shown(self.at_most, self.unit)}"
        if self.share is not None:
            return f"≤ {self.share:.3f}"
        return f"≥ {self.at_least:.2f}" if self.at_least is not None else ""

    def met(self, ours: float | None, theirs: float | None) -> bool | None:
        """Whether it is reached; None where that cannot be said."""
        if ours is None:
            return None
        if self.at_most is not None:
            return ours <= self.at_most
        if not theirs:
            return None
        if self.share is not None:
            return ours / theirs <= self.share
        return ours / theirs >= self.at_least if self.at_least is not None else None


def shown(value: float | None, unit: str) -> str:
    """A figure with its unit, as short as it can be read."""
    if value is None:
        return "-"
    if unit == "s":
        return f"{value * 1000:.2f} ms" if value < 1 else f"{value:.2f} s"
    return f"{value:.2f} {unit}".rstrip()


def table(figures: Collected, names: Sequence[str], beside: str = "dockerd") -> str:
    """Medians, engine beside engine, with the goals; shares are of the figure of `beside`."""
    lines = [
        "| median | " + " | ".join(names) + f" | sampan / {beside} | goal | |",
        "|---|" + "---:|" * len(names) + "---:|---:|---|",
    ]
    for row, by_engine in figures.items():
        medians = {name: statistics.median(values) for name, values in by_engine.items() if values}
        ours, theirs = medians.get("sampan"), medians.get(beside)
        ratio = f"{ours / theirs:.3f}" if ours is not None and theirs else ""
        met = {True: "met", False: "**not met**", None: ""}[row.met(ours, theirs)]
        cells = " | ".join(shown(medians.get(name), row.unit) for name in names)
        lines.append(f"| {row.label} | {cells} | {ratio} | {row.goal()} | {met} |")
    return "\n".join(lines)
