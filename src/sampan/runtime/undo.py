"""Releases of what was acquired, so that a failure leaves nothing behind."""

from __future__ import annotations

from sampan.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Undo:
    """Releases of what was acquired, run in reverse order; the first failure of one is noted."""

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def add(self, release: Callable[..., object], *arguments: Any) -> None:
        self._steps.append((release, arguments))

    def run(self, failure: BaseException | None = None) -> None:
        """Release everything; what fails on the way becomes a note on `failure`."""
        while self._steps:
            release, arguments = self._steps.pop()
            try:
                release(*arguments)
            except (OSError, RuntimeFailure) as error:
                if failure is not None:
                    failure.add_note(f"while undoing: {error}")

    def forget(self) -> None:
        """Keep everything."""
        self._steps.clear()
