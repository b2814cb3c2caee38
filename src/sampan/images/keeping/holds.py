"""Operations under way that need what has no name yet, or what they are still reading."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, eq=False)
class Hold:
    """One operation: what it is in the user's words (`load`, `pull busybox:latest`), and since when.

    One that says which images it reads (`image_ids`) protects these. One that does not protects
    all that it made or looked at in the stores.
    """

    what: str
    image_ids: frozenset[str] | None = None
    began_ns: int = field(default_factory=time.time_ns)

    def owner(self, image_id: str) -> str:
        """Its name among those that need the parts of an image."""
        return f"operation {id(self)} {image_id}"


class Holds:
    """The operations under way, oldest first."""

    def __init__(self) -> None:
        self._holds: dict[Hold, None] = {}

    def __iter__(self) -> Iterator[Hold]:
        return iter(list(self._holds))

    def add(self, hold: Hold) -> None:
        self._holds[hold] = None

    def remove(self, hold: Hold) -> None:
        del self._holds[hold]

    @property
    def unbounded(self) -> bool:
        """Whether one of them may need anything that it made or looked at."""
        return any(hold.image_ids is None for hold in self._holds)

    def reads(self, image_id: str) -> bool:
        """Whether one of them reads this image."""
        return any(hold.image_ids and image_id in hold.image_ids for hold in self._holds)
