"""API versions: which are served, and what requests and answers of older ones look like.

Handlers speak the newest shape with all legacy fields kept, which is what a path without a version
gets. For a path with one, the tables in `version_steps` bring requests up, and take out of answers what
that version did not have yet or no longer had: one small function a change.
"""

from __future__ import annotations

import re
from typing import Any

from sampan.api.version_steps import containers, images, requests, system
from sampan.api.version_steps.step import AnswerSteps, Document, Version
from sampan.errors import InvalidArgument

__all__ = ["ANSWERS", "NEWEST", "OLDEST", "Document", "Version", "answer", "request"]

OLDEST: Version = (1, 12)
NEWEST: Version = (1, 55)

# Answers to versions below this are the bare message: they know no JSON errors.
FIRST_JSON_ERRORS: Version = (1, 24)

# Before, it was no failure to kill what does not run.
FIRST_KILL_CONFLICT: Version = (1, 20)

# Before, the host's half of a container could come with its start.
FIRST_BARE_START: Version = (1, 24)

ANSWERS: AnswerSteps = {**containers.ANSWERS, **images.ANSWERS, **system.ANSWERS}

_PREFIX = re.compile(r"/v([0-9]+(?:\.[0-9]+)*)(/.*)", re.DOTALL)

# A number with more digits is no version, and would only fill answers and logs.
_LONGEST = 32


def spelled(version: Version) -> str:
    """`1.55`."""
    return f"{version[0]}.{version[1]}"


def split_version(path: str) -> tuple[Version | None, str]:
    """The version a path asks for, None for the newest, and the path without it.

    Raises:
        InvalidArgument: dockerd's texts for a version that is too old or too new.
    """
    match = _PREFIX.fullmatch(path)
    if match is None:
        return None, path
    if len(match[1]) > _LONGEST:
        raise InvalidArgument(f"invalid version format: {match[1][:_LONGEST]}…")
    version = parse_version(match[1])
    if version < OLDEST:
        raise InvalidArgument(
            f"client version {match[1]} is too old. Minimum supported API version is "
            f"{spelled(OLDEST)}, please upgrade your client to a newer version"
        )
    if version > NEWEST:
        raise InvalidArgument(
            f"client version {match[1]} is too new. Maximum supported API version is "
            f"{spelled(NEWEST)}"
        )
    return version, match[2]


def parse_version(text: str) -> Version:
    """`1.41` as a pair that compares; more parts than two say nothing."""
    major, minor, *_ = [*(int(part) for part in text.split(".")[:2]), 0, 0]
    return major, minor


def answer(kind: str, document: Document, version: Version | None) -> Document:
    """`document` as `version` had it, changed in place; untouched for a path without version."""
    if version is not None:
        for step in ANSWERS[kind]:
            if step.concerns(version):
                step.change(document)
    return document


def moved(kind: str, document: Document, version: Version | None) -> None:
    """Put what a request of old has elsewhere into its present place, before it is decoded."""
    for step in requests.moves(kind, version):
        step.change(document)


def request(kind: str, value: Any, version: Version | None) -> list[str]:
    """Make of a decoded request what it meant in `version`, in place; return warnings for the answer.

    Raises:
        InvalidArgument: what it asks for, its version did not have.
    """
    steps = requests.REQUESTS[kind] if version is not None else ()
    told = [step.change(value) for step in steps if step.concerns(version or NEWEST)]
    return [text for text in told if isinstance(text, str)]
