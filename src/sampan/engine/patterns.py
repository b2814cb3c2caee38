"""Regular expressions that clients send, as far as they can be answered in a moment.

dockerd's expressions (RE2) are matched in time that grows with the text. Python's go back and try again:
`(a+)+$` would hold up the whole engine for years over a name of forty letters. So the ways in which an
expression can match are counted beforehand, at the most, and one with too many is refused.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from functools import lru_cache
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from sampan.errors import InvalidArgument

# Attempts, of which Python makes some twenty million a second.
MOST_ATTEMPTS = 20_000_000
LONGEST_PATTERN = 1000
_ONE_WAY = frozenset((codes.LITERAL, codes.NOT_LITERAL, codes.ANY, codes.IN, codes.AT))
_REPEATS = frozenset((codes.MAX_REPEAT, codes.MIN_REPEAT))


@lru_cache(maxsize=64)
def compile_pattern(text: str) -> re.Pattern[str]:
    """The expression, to be searched for by `found`.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        if len(text) > LONGEST_PATTERN:
            raise re.error("too long")
        with warnings.catch_warnings():  # of what Python may read otherwise some day
            warnings.simplefilter("ignore", FutureWarning)
            return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidArgument(f"no regular expression: {error}") from error


def found(pattern: re.Pattern[str], text: str) -> bool:
    """Whether the expression matches anywhere in the text.

    Raises:
        InvalidArgument: it might take too long to find out.
    """
    places = len(text) + 1
    if places * _ways(pattern.pattern, places) > MOST_ATTEMPTS:
        raise InvalidArgument(
            "the regular expression can match in too many ways",
            hint="use fewer repetitions, and none within another",
        )
    return pattern.search(text) is not None


@lru_cache(maxsize=1024)
def _ways(text: str, places: int) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return _ways_of(parser.parse(text), places)


def _ways_of(parts: Sequence[tuple[Any, Any]], places: int) -> float:
    """In how many ways, at most, these parts in a row match what begins at one of so many places."""
    ways = 1.0
    for code, argument in parts:
        if code in _REPEATS:
            lowest, highest, repeated = argument
            ways *= _repeated(_ways_of(repeated, places), lowest, min(highest, places))
        elif code is codes.BRANCH:
            ways *= sum(_ways_of(branch, places) for branch in argument[1])
        elif code is codes.SUBPATTERN:
            ways *= _ways_of(argument[3], places)
        elif code not in _ONE_WAY:  # what RE2 does not have: references, looking around
            ways *= float("inf")
    return ways


def _repeated(each: float, lowest: int, highest: int) -> float:
    """Of something that matches in `each` ways, repeated between so many times."""
    if each <= 1:
        return max(highest - lowest, 0) + 1.0
    try:
        return float(each ** (highest + 1))
    except OverflowError:
        return float("inf")
