"""Which handler a method and a path mean.

A path is walked segment by segment through dicts, so a look-up costs the same with one route or
with two hundred. `{name}` takes one segment, `{name...}` one or more: image names hold slashes.
A literal segment is tried before a placeholder, so a container may be called `json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import unquote

Target = TypeVar("Target")


class Route(NamedTuple, Generic[Target]):
    """A row of a route table: `Route("GET", "/containers/{id}/json", inspect)`."""

    method: str
    pattern: str
    target: Target


class _Node(Generic[Target]):
    __slots__ = ("children", "one", "rest", "route")

    def __init__(self) -> None:
        self.children: dict[str, _Node[Target]] = {}
        self.one: _Node[Target] | None = None
        self.rest: _Node[Target] | None = None
        self.route: Route[Target] | None = None


class Router(Generic[Target]):
    """The route tables, compiled."""

    def __init__(self, routes: Iterable[Route[Target]]) -> None:
        self._roots: dict[str, _Node[Target]] = {}
        for route in routes:
            self._add(route)

    def _add(self, route: Route[Target]) -> None:
        node = self._roots.setdefault(route.method, _Node())
        for segment in route.pattern.strip("/").split("/"):
            if segment.endswith("...}"):
                node.rest = node = node.rest or _Node()
            elif segment.startswith("{"):
                node.one = node = node.one or _Node()
            else:
                node = node.children.setdefault(segment, _Node())
        if node.route is not None:
            raise ValueError(f"two routes for {route.method} {route.pattern}")
        node.route = route

    def find(self, method: str, path: str) -> tuple[Route[Target], list[str]] | None:
        """The route of a request, with the values of its placeholders, percent-decoded.

        `path` is as it came, without version and query. None where nothing is built.
        """
        root = self._roots.get(method)
        if root is None or not path.startswith("/"):
            return None
        return _walk(root, path[1:].split("/"), 0, [])


def _walk(
    node: _Node[Target], segments: Sequence[str], index: int, values: list[str]
) -> tuple[Route[Target], list[str]] | None:
    if index == len(segments):
        return (node.route, values) if node.route is not None else None
    segment = segments[index]
    if (child := node.children.get(segment)) is not None and (
        found := _walk(child, segments, index + 1, values)
    ):
        return found
    if node.one is not None and segment:
        found = _walk(node.one, segments, index + 1, [*values, unquote(segment)])
        if found is not None:
            return found
    if node.rest is not None:
        for end in range(len(segments), index, -1):
            name = unquote("/".join(segments[index:end]))
            if name and (found := _walk(node.rest, segments, end, [*values, name])):
                return found
    return None
