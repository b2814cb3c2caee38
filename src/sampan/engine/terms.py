"""Terms of a container that Docker has no field for: how long it may live, under which lease, after whom
it starts, what happens when it is unhealthy.

They travel as annotations or labels, so that every client of Docker's can set them:

    --annotation sampan.ttl=30m                        at most so long from its creation on
    --annotation sampan.lease=NAME                     goes with this lease, see `leases`
    --annotation sampan.after=db:healthy,cache         starts after these, see `order`
    --annotation sampan.on-unhealthy=restart:3         see `unhealthy`
    --annotation sampan.network-policy=allow:pypi.org  may open connections to these only, see `policies`
    --annotation sampan.net-rate=in=10mbit,out=5mbit   receives and sends no faster

`dev.sampan.ttl` and so on mean the same. Labels of an image are not looked at: an image decides nothing
of the kind.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sampan.engine.filters import DURATION, DURATION_PART, DURATION_UNITS
from sampan.engine.model import ContainerConfig, HostConfig
from sampan.engine.numbers import decimal
from sampan.errors import InvalidArgument
from sampan.network.policy import parse_policy
from sampan.network.rate import parse_rate

PREFIXES = ("sampan.", "dev.sampan.")
TTL, LEASE, AFTER, ON_UNHEALTHY = "ttl", "lease", "after", "on-unhealthy"
NETWORK_POLICY, NET_RATE = "network-policy", "net-rate"
NAMES = (TTL, LEASE, AFTER, ON_UNHEALTHY, NETWORK_POLICY, NET_RATE)
CHANGEABLE = frozenset((TTL, AFTER, ON_UNHEALTHY, NETWORK_POLICY, NET_RATE))

LONGEST_NS = 100 * 365 * 86_400 * 1_000_000_000
UNHEALTHY_ACTIONS = ("none", "stop", "restart")
HEALTHY = "healthy"
DEFAULT_BUDGET = 5  # restarts in a row of a container that stays unhealthy


class Dependency(msgspec.Struct, frozen=True):
    """Another container, by name or ID, that has to run first; or to be healthy."""

    name: str
    healthy: bool = False


class OnUnhealthy(msgspec.Struct, frozen=True):
    """What to do with an unhealthy container, and how many restarts in a row that may be."""

    action: str = "none"
    budget: int = DEFAULT_BUDGET


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked for; `ttl_ns` 0 for no end, `lease` empty for none."""

    ttl_ns: int = 0
    lease: str = ""
    after: tuple[Dependency, ...] = ()
    on_unhealthy: OnUnhealthy = OnUnhealthy()
    network_policy: str = ""
    net_rate: str = ""


NONE = Terms()


def asked(config: ContainerConfig, host: HostConfig) -> Terms:
    """The terms of a create request; an annotation goes before a label.

    Raises:
        InvalidArgument: a value that cannot be meant.
    """
    if not (config.labels or host.annotations):
        return NONE
    wishes = {**wishes_of(config.labels), **wishes_of(host.annotations or {})}
    return changed(NONE, wishes) if wishes else NONE


def wishes_of(pairs: Mapping[str, str]) -> dict[str, str]:
    """Name → value of those annotations or labels that are terms."""
    return {
        name: pairs[prefix + name]
        for prefix in reversed(PREFIXES)
        for name in NAMES
        if prefix + name in pairs
    }


def changed(before: Terms, wishes: Mapping[str, str]) -> Terms:
    """The terms with some of them replaced.

    Raises:
        InvalidArgument: a value that cannot be meant.
    """
    values: dict[str, object] = {}
    if TTL in wishes:
        values["ttl_ns"] = parse_span(TTL, wishes[TTL])
    if LEASE in wishes:
        values["lease"] = wishes[LEASE]
    if AFTER in wishes:
        values["after"] = parse_after(wishes[AFTER])
    if ON_UNHEALTHY in wishes:
        values["on_unhealthy"] = parse_on_unhealthy(wishes[ON_UNHEALTHY])
    if NETWORK_POLICY in wishes:
        values["network_policy"] = parse_policy(wishes[NETWORK_POLICY]).text
    if NET_RATE in wishes:
        values["net_rate"] = wishes[NET_RATE] if parse_rate(wishes[NET_RATE]) else ""
    return msgspec.structs.replace(before, **values)


def parse_span(name: str, text: str) -> int:
    """`1h30m`, or a number of seconds, in ns; 0 for none.

    Raises:
        InvalidArgument: it is neither, or longer than a century.
    """
    seconds = decimal(text)
    if seconds is not None:
        span = seconds * 1_000_000_000
    elif len(text) < 100 and DURATION.fullmatch(text):
        parts = DURATION_PART.findall(text)
        span = int(sum(float(number) * DURATION_UNITS[unit] for number, unit in parts))
    else:
        raise InvalidArgument(f"invalid {name}: {text!r} is no duration such as 90s or 1h30m")
    if not 0 <= span <= LONGEST_NS:
        raise InvalidArgument(f"invalid {name}: {text!r} is out of range")
    return span


def parse_after(text: str) -> tuple[Dependency, ...]:
    """`db:healthy,cache`.

    Raises:
        InvalidArgument: a name is missing or twice there, or a condition is none.
    """
    found: dict[str, Dependency] = {}
    for part in text.split(",") if text else ():
        name, mark, condition = part.partition(":")
        name = name.strip().removeprefix("/")
        if not name or (mark and condition != HEALTHY):
            raise InvalidArgument(f"invalid after: {part!r} is not NAME or NAME:{HEALTHY}")
        if name in found:
            raise InvalidArgument(f"invalid after: {name} is there twice")
        found[name] = Dependency(name, healthy=bool(mark))
    return tuple(found.values())


def parse_on_unhealthy(text: str) -> OnUnhealthy:
    """`none`, `stop`, `restart` or `restart:N`.

    Raises:
        InvalidArgument: it is something else.
    """
    action, mark, count = text.partition(":")
    budget = decimal(count) if mark else DEFAULT_BUDGET
    if action not in UNHEALTHY_ACTIONS or (mark and action != "restart") or not budget:
        raise InvalidArgument(
            f"invalid on-unhealthy: {text!r} is none of none, stop, restart, restart:N"
        )
    return OnUnhealthy(action, min(budget, 1 << 31))
