"""A change of the API at one version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Version = tuple[int, int]
Document = dict[str, Any]

Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class Before(Generic[Subject]):
    """What to do for versions below `version`, which brought something."""

    version: Version
    change: Callable[[Subject], object]

    def concerns(self, version: Version) -> bool:
        return version < self.version


@dataclass(frozen=True, slots=True)
class Since(Generic[Subject]):
    """What to do for `version` and later, which took something away."""

    version: Version
    change: Callable[[Subject], object]

    def concerns(self, version: Version) -> bool:
        return version >= self.version


AnswerStep = Before[Document] | Since[Document]
AnswerSteps = dict[str, tuple[AnswerStep, ...]]
"""Kind of answer → its steps, the newest first: each starts from what the one before it left."""


def drop(document: Document | None, *names: str) -> None:
    """Take fields out of an object, where there is one."""
    for name in names:
        if document is not None:
            document.pop(name, None)


def drop_empty(document: Document, *names: str) -> None:
    """Take fields out that say nothing: Go's `omitempty`."""
    for name in names:
        if not document.get(name):
            document.pop(name, None)
