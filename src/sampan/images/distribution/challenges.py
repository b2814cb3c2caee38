"""What a server asks for before it answers: the header `WWW-Authenticate`.

One header may hold several challenges, and an answer several headers. Source: RFC 9110, section 11.6.1;
RFC 6750, section 3 for Bearer's parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

# More than any registry asks for; what a hostile one sends beyond is not looked at.
LENGTH_LIMIT = 16 << 10

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(rf"({_TOKEN})(?=[ \t]*(?:,|$)|[ \t]+)")
_BETWEEN = re.compile(r"[ \t,]*")
_ESCAPED = re.compile(r"\\(.)")


class Challenge(NamedTuple):
    """A scheme in lower case, and its parameters by their names in lower case."""

    scheme: str
    parameters: Mapping[str, str]

    @property
    def scopes(self) -> list[str]:
        return self.parameters.get("scope", "").split()


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """The challenges of these header values, in order; what makes no sense ends a value."""
    return [challenge for value in values for challenge in _parse(value[:LENGTH_LIMIT])]


def of_scheme(challenges: Sequence[Challenge], scheme: str) -> Challenge | None:
    """The first challenge of a scheme that can be met: Bearer needs a realm to go to."""
    for challenge in challenges:
        if challenge.scheme == scheme and (scheme != "bearer" or challenge.parameters.get("realm")):
            return challenge
    return None


def _parse(value: str) -> list[Challenge]:
    found: list[Challenge] = []
    parameters: dict[str, str] = {}
    at = 0
    while True:
        between = _BETWEEN.match(value, at)
        at = between.end() if between else at
        if found and (match := _PARAMETER.match(value, at)):
            name, quoted, bare = match.groups()
            text = bare if quoted is None else _ESCAPED.sub(r"\1", quoted)
            parameters.setdefault(name.lower(), text)
        elif match := _SCHEME.match(value, at):
            parameters = {}
            found.append(Challenge(match[1].lower(), parameters))
        else:
            return found
        at = match.end()
