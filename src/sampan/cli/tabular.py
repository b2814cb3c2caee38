"""Columns aligned as Go's text/tabwriter does it, with the settings of docker's tables."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PADDING = 3


def align(lines: Sequence[Sequence[str]], *, minimum: int = 10) -> str:
    """The lines of cells as text. The last cell of a line belongs to no column, as in tabwriter:
    a column is as wide as the widest of the neighbouring lines that go on behind it.
    """
    widths: list[list[int]] = [[0] * (len(line) - 1) for line in lines]
    deepest = max((len(line) for line in lines), default=0)
    for column in range(deepest - 1):
        _fit(lines, widths, column, minimum)
    return "".join(_line(line, width) for line, width in zip(lines, widths, strict=True))


def _fit(
    lines: Sequence[Sequence[str]], widths: list[list[int]], column: int, minimum: int
) -> None:
    start = 0
    while start < len(lines):
        end = start
        width = minimum
        while end < len(lines) and len(lines[end]) > column + 1:
            width = max(width, len(lines[end][column]) + PADDING)
            end += 1
        for index in range(start, end):
            widths[index][column] = width
        start = end + 1


def _line(line: Sequence[str], widths: Sequence[int]) -> str:
    if not line:
        return "\n"
    padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
    return "".join(padded) + line[-1] + "\n"
