"""Patterns of image references, beside a slow and simple reading of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.images.filters import _glob


def simply(pattern: str, name: str) -> bool:
    """Stars and question marks stop at a slash."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return simply(pattern[1:], name) or (
            bool(name) and name[0] != "/" and simply(pattern, name[1:])
        )
    return bool(name) and name[0] in (pattern[0] if pattern[0] != "?" else name[0].replace("/", "")) and (
        simply(pattern[1:], name[1:])
    )  # fmt: skip


@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab", max_size=12))
def test_globs(pattern: str, name: str) -> None:
    assert bool(_glob(pattern).fullmatch(name)) == simply(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("busybox", "busybox", True),
        ("busy*", "busybox", True),
        ("busy*", "busybox/x", False),
        ("*/busy*:*", "library/busybox:latest", True),
        ("*", "a/b", False),
        ("*/*", "a/b", True),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "aXbYcZ", False),
        ("a*bc*bc", "abcbc", True),
        ("[ab]?", "bz", True),
        ("[^ab]?", "bz", False),
        (r"a\*b", "a*b", True),
        (r"a\*b", "axb", False),
    ],
)
def test_some(pattern: str, name: str, matches: bool) -> None:
    assert bool(_glob(pattern).fullmatch(name)) is matches


def test_many_stars_are_soon_answered() -> None:
    """Each way of matching one after the other would take longer than the universe has been there."""
    assert _glob("*a" * 60 + "*b").fullmatch("a" * 250) is None


def test_an_open_class_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="syntax error in pattern"):
        _glob("[a")
