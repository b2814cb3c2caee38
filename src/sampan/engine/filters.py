"""Filters of list, events and prune: pure functions over names and values.

A filter is `name: [values]`; values of one name are alternatives, names all have to match, except
`label`, of which every value has to match. Source: engine-api-v1.55.yaml, `filters` parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sampan.engine import health
from sampan.engine.numbers import decimal
from sampan.engine.patterns import compile_pattern, found
from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from sampan.engine.container import Container
    from sampan.engine.events import Event

Filters = Mapping[str, Sequence[str]]

CONTAINER_FILTERS = frozenset(
    [
        "ancestor",
        "before",
        "expose",
        "exited",
        "health",
        "id",
        "isolation",
        "is-task",
        "label",
        "name",
        "network",
        "publish",
        "since",
        "status",
        "volume",
    ]
)
EVENT_FILTERS = frozenset(
    [
        "config",
        "container",
        "daemon",
        "event",
        "image",
        "label",
        "network",
        "node",
        "plugin",
        "scope",
        "secret",
        "service",
        "type",
        "volume",
    ]
)
STATUSES = frozenset(["created", "dead", "exited", "paused", "removing", "restarting", "running"])
PRUNE_FILTERS = frozenset({"label", "label!", "until"})


def select(
    containers: Iterable[Container],
    *,
    all: bool = False,
    limit: int = 0,
    filters: Filters | None = None,
    image_ids: Mapping[str, frozenset[str]] | None = None,
) -> list[Container]:
    """The containers to list, newest first.

    `image_ids` gives for each value of the filter `ancestor` the image IDs that it covers. A
    `limit` and the filters `status` and `exited` look at stopped containers too, as dockerd does.

    Raises:
        InvalidArgument: an unknown filter or a value it does not take.
    """
    filters = filters or {}
    check_names(filters, CONTAINER_FILTERS)
    for status in filters.get("status", ()):
        if status not in STATUSES:
            raise InvalidArgument(f"invalid filter 'status={status}'")
    for status in filters.get("health", ()):
        if status not in health.STATUSES:
            raise InvalidArgument(f"Unrecognised filter value for health: {status}")
    everything = all or limit > 0 or "status" in filters or "exited" in filters
    ordered = sorted(containers, key=lambda container: container.created_ns, reverse=True)
    bounds = _bounds(ordered, filters)
    chosen = [
        container
        for container in ordered
        if (everything or container.state.counts_as_running)
        and bounds[0] < container.created_ns < bounds[1]
        and _container_matches(container, filters, image_ids or {})
    ]
    return chosen[:limit] if limit > 0 else chosen


def check_names(filters: Filters, known: frozenset[str]) -> None:
    """Refuse a filter that does not exist, with dockerd's text."""
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'")


def labels_match(labels: Mapping[str, str], wanted: Sequence[str]) -> bool:
    """Whether every `key` or `key=value` of `wanted` is among the labels."""
    for entry in wanted:
        key, equals, value = entry.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def labels_chosen(labels: Mapping[str, str], filters: Filters) -> bool:
    """Whether the filters `label` and `label!` of a prune leave a thing with these labels to it."""
    unwanted = filters.get("label!", ())
    return labels_match(labels, filters.get("label", ())) and not (
        unwanted and labels_match(labels, unwanted)
    )


def event_matches(event: Event, filters: Filters) -> bool:
    """Whether an event passes. Objects match by ID, ID prefix or name."""
    for name, values in filters.items():
        if not values:
            continue
        match name:
            case "type":
                passes = event.type in values
            case "event":
                passes = any(
                    event.action == value or event.action.startswith(f"{value}:")
                    for value in values
                )
            case "scope":
                passes = event.scope in values
            case "label":
                passes = labels_match(event.attributes, values)
            case "image":
                image = event.id if event.type == "image" else event.attributes.get("image", "")
                passes = image in values or image.partition(":")[0] in values
            case _:
                passes = event.type == name and _actor_matches(event, values)
        if not passes:
            return False
    return True


def prunable(container: Container, filters: Filters) -> bool:
    """Whether `prune` takes this stopped container."""
    check_names(filters, PRUNE_FILTERS)
    if not labels_chosen(container.config.labels, filters):
        return False
    until = filters.get("until", ())
    return not until or container.created_ns < timestamp_ns(until[0])


def timestamp_ns(text: str, *, now_ns: int | None = None) -> int:
    """A point in time: Unix seconds with a fraction, RFC 3339, or a Go duration before now.

    Raises:
        InvalidArgument: it is none of them.
    """
    import time

    text = text.strip()
    seconds, _, fraction = text.partition(".")
    whole, part = decimal(seconds), decimal(f"{fraction:0<9.9}")
    if whole is not None and part is not None:
        return whole * 1_000_000_000 + part
    if len(text) < 100 and DURATION.fullmatch(text):
        span = sum(
            float(number) * DURATION_UNITS[unit] for number, unit in DURATION_PART.findall(text)
        )
        return (now_ns if now_ns is not None else time.time_ns()) - int(span)
    try:
        moment = datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text))
        if moment.tzinfo is None:
            moment = moment.astimezone()
        second = int(moment.replace(microsecond=0).timestamp())
    except (ValueError, OverflowError):
        raise InvalidArgument(f'failed to parse value as time or duration: "{text}"') from None
    nanoseconds = re.search(r"\.([0-9]{1,9})", text)
    return second * 1_000_000_000 + (int(f"{nanoseconds[1]:0<9}") if nanoseconds else 0)


DURATION_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")


def _bounds(ordered: Sequence[Container], filters: Filters) -> tuple[int, int]:
    """The creation times between which `since` and `before` leave room."""
    after, before = -1, 1 << 63
    for name in ("since", "before"):
        for value in filters.get(name, ()):
            found = [c for c in ordered if c.name == value.lstrip("/") or c.id.startswith(value)]
            if not found:
                raise InvalidArgument(f"No such container: {value}")
            if name == "since":
                after = max(after, found[0].created_ns)
            else:
                before = min(before, found[0].created_ns)
    return after, before


def _container_matches(
    container: Container, filters: Filters, image_ids: Mapping[str, frozenset[str]]
) -> bool:
    return all(
        _container_passes(container, name, values, image_ids)
        for name, values in filters.items()
        if values
    )


def _container_passes(
    container: Container, name: str, values: Sequence[str], image_ids: Mapping[str, frozenset[str]]
) -> bool:
    match name:
        case "id":
            return any(container.id.startswith(value) for value in values)
        case "name":
            return any(_name_matches(container.name, value) for value in values)
        case "status":
            return container.state.status.value in values
        case "exited":
            codes = [_exit_code(value) for value in values]
            return container.state.status.value == "exited" and container.state.exit_code in codes
        case "label":
            return labels_match(container.config.labels, values)
        case "ancestor":
            return any(container.image[0] in image_ids.get(value, ()) for value in values)
        case "network":
            endpoints = container.record.endpoints
            return any(
                value in endpoints
                or any(e.network_id.startswith(value) for e in endpoints.values())
                for value in values
            )
        case "volume":
            mounts = container.record.mounts
            return any(
                value in (m.name or m.source, m.destination) for value in values for m in mounts
            )
        case "health":
            return health.matches(container.state.health, values)
        case "is-task":
            return values[0].lower() in ("false", "0")
        case "expose":
            ports = container.config.exposed_ports or {}
            return any(_port(value) in {_port(port) for port in ports} for value in values)
        case "publish":
            published = {f"{port.host_port}/{port.protocol}" for port in container.record.ports}
            return any(_port(value) in published for value in values)
        case _:  # since and before are bounds; isolation has no meaning on Linux
            return True


def _name_matches(name: str, pattern: str) -> bool:
    """Docker's names carry a slash, and the filter is a regular expression over either form."""
    try:
        compiled = compile_pattern(pattern)
        return found(compiled, name) or found(compiled, f"/{name}")
    except InvalidArgument as error:
        raise InvalidArgument(
            f"invalid filter 'name={pattern[:100]}': {error.message}", hint=error.hint
        ) from error


def _exit_code(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise InvalidArgument(f"invalid filter 'exited={value}'") from None


def _port(text: str) -> str:
    return text if "/" in text else f"{text}/tcp"


def _actor_matches(event: Event, values: Sequence[str]) -> bool:
    name = event.attributes.get("name", "")
    return any(event.id.startswith(value) or name == value.lstrip("/") for value in values)
