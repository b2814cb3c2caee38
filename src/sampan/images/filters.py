"""The filters of `images`: pure functions from a request's filters to a choice of images."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from sampan.errors import InvalidArgument
from sampan.images.image import Image
from sampan.oci.go_time import parse_duration, parse_time
from sampan.oci.reference import Reference

Filters = Mapping[str, Sequence[str]]
ACCEPTED = frozenset(("before", "dangling", "label", "reference", "since", "until"))
_TRUE, _FALSE = frozenset(("true", "1")), frozenset(("false", "0"))


def select(
    images: Iterable[Image], filters: Filters, resolve: Callable[[str], Image]
) -> list[tuple[Image, list[Reference]]]:
    """The images that pass all filters, newest first, each with the references to show.

    Raises:
        InvalidArgument: a filter or its value is unknown.
        NoSuchImage: `before` or `since` names none.
    """
    for name in filters:
        if name not in ACCEPTED:
            raise InvalidArgument(f"invalid filter '{name}'")
    tests = _tests(filters, resolve)
    patterns = [_glob(pattern) for pattern in filters.get("reference", ())]
    dangling = truth(filters.get("dangling", ()), "invalid filter 'dangling")
    chosen = []
    for image in images:
        if not all(test(image) for test in tests):
            continue
        shown = [ref for ref in image.references if not patterns or _matches(patterns, ref)]
        if patterns and not shown:
            continue
        tagged = any(not reference.digest for reference in shown)
        if dangling is None or dangling != tagged:
            chosen.append((image, shown))
    return sorted(chosen, key=lambda item: item[0].created_ns, reverse=True)


def _tests(filters: Filters, resolve: Callable[[str], Image]) -> list[Callable[[Image], bool]]:
    tests: list[Callable[[Image], bool]] = []
    if wanted := filters.get("label", ()):
        tests.append(lambda image: has_labels(image, wanted))
    if names := filters.get("before", ()):
        limit = min(resolve(name).created_ns for name in names)
        tests.append(lambda image: image.created_ns < limit)
    if names := filters.get("since", ()):
        start = max(resolve(name).created_ns for name in names)
        tests.append(lambda image: image.created_ns > start)
    if texts := filters.get("until", ()):
        end = min(_moment(text) for text in texts)
        tests.append(lambda image: image.created_ns < end)
    return tests


def has_labels(image: Image, wanted: Sequence[str]) -> bool:
    """Whether every `key` or `key=value` of `wanted` is among the image's labels."""
    labels = image.config.labels or {}
    for entry in wanted:
        key, equals, value = entry.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def truth(values: Sequence[str], refusal: str) -> bool | None:
    """What a filter's values say, the last of them; None for no values.

    Raises:
        InvalidArgument: one is neither true nor false, with the text `refusal`.
    """
    found = None
    for value in values:
        if value.lower() not in _TRUE | _FALSE:
            raise InvalidArgument(f"{refusal}=[{' '.join(values)}]'")
        found = value.lower() in _TRUE
    return found


def _moment(text: str) -> int:
    """Unix nanoseconds of a time stamp, of Unix seconds, or of a duration before now."""
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text) * 1_000_000_000
    try:
        return parse_time(text)
    except ValueError:
        return time.time_ns() - parse_duration(text)


def _matches(patterns: Sequence[re.Pattern[str]], reference: Reference) -> bool:
    return any(
        pattern.fullmatch(reference.familiar) or pattern.fullmatch(reference.familiar_name)
        for pattern in patterns
    )


def _glob(pattern: str) -> re.Pattern[str]:
    """Go's path.Match: `*` and `?` stop at a slash, `[…]` is a class, `\\` escapes.

    As there, what is between two stars is looked for once, where it comes first: many stars cost no more
    than one.
    """
    parts: list[str] = []
    stars: list[int] = []  # where they are in `parts`
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            stars.append(len(parts))
            parts.append("[^/]*")
        elif character == "?":
            parts.append("[^/]")
        elif character == "[":
            end = pattern.find("]", position + 1)
            if end < 0:
                raise InvalidArgument("syntax error in pattern")
            body = pattern[position:end].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"(?!/)[{body}]")
            position = end + 1
        elif character == "\\" and position < len(pattern):
            parts.append(re.escape(pattern[position]))
            position += 1
        else:
            parts.append(re.escape(character))
    for star, following in pairwise(stars):
        parts[star] = "(?>[^/]*?"
        parts[following - 1] += ")"
    try:
        return re.compile("".join(parts), re.ASCII)
    except re.error as error:
        raise InvalidArgument("syntax error in pattern") from error
