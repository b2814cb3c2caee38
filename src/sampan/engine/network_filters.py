"""Which networks a list or a prune means: docker's filters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sampan.engine.filters import check_names, labels_chosen, labels_match, timestamp_ns
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from sampan.engine.networks import Entry

Filters = Mapping[str, Sequence[str]]

LISTED = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
PRUNED = frozenset({"label", "label!", "until"})
_TRUE, _FALSE = frozenset({"true", "1"}), frozenset({"false", "0"})


def select(entries: Iterable[Entry], filters: Filters) -> list[Entry]:
    """The networks that match all filters; the values of one are alternatives.

    Raises:
        InvalidArgument: an unknown filter or value; dockerd's texts.
    """
    check_names(filters, LISTED)
    dangling = _flag(filters)
    for value in filters.get("type", ()):
        if value not in ("builtin", "custom"):
            raise InvalidArgument(f"invalid filter: 'type'='{value}'")
    return [
        entry
        for entry in entries
        if (dangling is None or dangling == _dangling(entry)) and _matches(entry, filters)
    ]


def prunable(entries: Iterable[Entry], filters: Filters) -> list[Entry]:
    """The networks that a prune may remove, whether in use or not.

    Raises:
        InvalidArgument: an unknown filter or value; dockerd's texts.
    """
    check_names(filters, PRUNED)
    until = filters.get("until", ())
    if len(until) > 1:
        raise InvalidArgument("more than one until filter specified")
    limit = timestamp_ns(until[0]) if until else time.time_ns() + 1
    return [
        entry
        for entry in entries
        if not entry.predefined
        and entry.row.created_ns < limit
        and labels_chosen(entry.record.labels, filters)
    ]


def _dangling(entry: Entry) -> bool:
    return not (entry.predefined or entry.in_use)


def _matches(entry: Entry, filters: Filters) -> bool:
    record = entry.record
    checks: dict[str, Callable[[str], bool]] = {
        "driver": lambda value: record.driver == value,
        "id": lambda value: entry.id.startswith(value),
        "name": lambda value: value in entry.name,
        "scope": lambda value: value == "local",
        "type": lambda value: (value == "builtin") == entry.predefined,
    }
    return all(
        any(check(value) for value in filters[name])
        for name, check in checks.items()
        if filters.get(name)
    ) and labels_match(record.labels, filters.get("label", ()))


def _flag(filters: Filters) -> bool | None:
    values = filters.get("dangling")
    if not values:
        return None
    if len(values) == 1 and values[0] in _TRUE | _FALSE:
        return values[0] in _TRUE
    raise InvalidArgument(f"invalid filter 'dangling={values}'")
