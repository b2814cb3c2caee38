"""Expressions of clients: found as `re` finds them, unless that could take for ever."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.engine.patterns import compile_pattern, found
from sampan.errors import InvalidArgument

ORDINARY = (
    *("web", "^/?web$", "web-[0-9]+", ".*web.*", "^(web|db)-.*-prod$", "a?b?c?", "[a-z]{2,8}", "", "^"),
    *(r"web\.", "(foo|bar)", "web_1|web_2", r"^\w+-\d+$", "(?i)WEB", ".*a.*b.*"),
)  # fmt: skip


@pytest.mark.parametrize("pattern", ORDINARY)
@pytest.mark.parametrize("name", ["web", "/web-12", "db-x-prod", "a" * 64, "WEB_1", ""])
def test_ordinary_ones(pattern: str, name: str) -> None:
    assert found(compile_pattern(pattern), name) == bool(re.search(pattern, name))


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+$", "(a*)*b", "(a|a)*b", "(a|aa)+$", "(.*)*x", ".*.*.*.*.*.*x", "a?" * 40 + "a" * 40),
        *("(x+x+)+y", r"(a)\1", "(?=a)b", "(a{1,100}){1,100}b"),
    ],
)  # fmt: skip
def test_endless_ones_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match="too many ways"):
        found(compile_pattern(pattern), "a" * 60 + "!")


@pytest.mark.parametrize("pattern", ["(", "[", "*", "a{2,1}", "a" * 2000, "(?P<x", "(" * 500])
def test_what_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match="no regular expression"):
        found(compile_pattern(pattern), "web")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the comparison's own expression
@given(st.text(alphabet="ab.*+?()|^$[]{1,2}\\", max_size=24), st.text(alphabet="ab", max_size=40))
def test_any(pattern: str, name: str) -> None:
    """It is found, not found, or refused; always soon."""
    try:
        assert found(compile_pattern(pattern), name) == bool(re.search(pattern, name))
    except InvalidArgument:
        pass
