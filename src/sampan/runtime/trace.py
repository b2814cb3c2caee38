"""Where the time of one start goes: named instants of the runtime and of the container's init."""

from __future__ import annotations

from time import monotonic_ns


class Trace:
    """Marks in the order they were made: (stage, CLOCK_MONOTONIC in nanoseconds).

    A mark says that the stage ended. The init's stages, which run beside the runtime's, come
    with the prefix `init.`.
    """

    __slots__ = ("marks",)

    def __init__(self) -> None:
        self.marks: list[tuple[str, int]] = []

    def mark(self, stage: str) -> None:
        """Note that `stage` ended now."""
        self.marks.append((stage, monotonic_ns()))

    def extend(self, marks: list[list[object]], prefix: str) -> None:
        """Take over marks that another process made on the same clock."""
        for stage, instant in marks:
            if isinstance(instant, int):
                self.marks.append((f"{prefix}{stage}", instant))
        self.marks.sort(key=lambda mark: mark[1])
