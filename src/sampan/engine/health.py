"""Health as docker counts it: pure values and rules, no clock and no process.

A container with a check is `starting` until its first success or until so many checks in a row have
failed; then `healthy` or `unhealthy`. Source: engine-api-v1.55.yaml, HealthConfig and Health; dockerd
20.10 asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from sampan.engine.model import ContainerConfig, HealthConfig
from sampan.errors import InvalidArgument

DEFAULT_INTERVAL_NS = 30_000_000_000
DEFAULT_TIMEOUT_NS = 30_000_000_000
DEFAULT_START_INTERVAL_NS = 5_000_000_000
DEFAULT_RETRIES = 3
SHORTEST_NS = 1_000_000
DEFAULT_SHELL = ("/bin/sh", "-c")

KEPT_RESULTS = 5
OUTPUT_BYTES = 4096
CUT_MARK = "..."  # after output that was longer
NO_EXIT_CODE = -1  # of a check that could not be made, or not in time

KINDS = ("CMD", "CMD-SHELL", "HTTP", "TCP")  # the last two are `health_probes`
STATUSES = frozenset({"none", "starting", "healthy", "unhealthy"})


class HealthStatus(StrEnum):
    """Docker's words; a container without a check has none of them."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class CheckResult(msgspec.Struct, kw_only=True, frozen=True):
    """One check: when (ns since the epoch), its exit code, what it wrote."""

    start_ns: int
    end_ns: int
    exit_code: int
    output: str = ""


class Health(msgspec.Struct, kw_only=True):
    """A container's health, part of its state; `log` holds the last results, oldest first."""

    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0
    log: list[CheckResult] = []


def check_config(check: HealthConfig | None) -> None:
    """Refuse times and counts that cannot be meant, with dockerd's texts.

    Raises:
        InvalidArgument: what it is.
    """
    if check is None:
        return
    for name, value in (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ):
        if value and value < SHORTEST_NS:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")


def merged(wanted: HealthConfig | None, preset: HealthConfig | None) -> HealthConfig | None:
    """The check of a container: what the client left open is the image's."""
    if wanted is None or preset is None:
        return wanted or preset
    return HealthConfig(
        **{
            name: getattr(wanted, name) or getattr(preset, name)
            for name in HealthConfig.__struct_fields__
        }
    )


def command(config: ContainerConfig) -> list[str] | None:
    """The arguments of the container's check, None when it has none."""
    check = config.healthcheck
    if check is None or not check.test:
        return None
    kind, *arguments = check.test
    match kind:
        case "CMD":
            return arguments
        case "CMD-SHELL":
            return [*(config.shell or DEFAULT_SHELL), *arguments]
        case _:
            return None


def is_checked(config: ContainerConfig) -> bool:
    """Whether the container has a check, by a command or by a probe."""
    check = config.healthcheck
    return check is not None and check.test[:1] in ([kind] for kind in KINDS)


def begun(config: ContainerConfig, before: Health | None) -> Health | None:
    """The health of a container that has just started; results of earlier runs stay to be seen."""
    if not is_checked(config):
        return None
    return Health(log=list(before.log) if before is not None else [])


def halted(health: Health | None) -> Health | None:
    """The health of a container that ended or was paused: nobody knows, which docker calls unhealthy."""
    if health is None:
        return None
    return Health(status=HealthStatus.UNHEALTHY, log=health.log)


def judged(health: Health, check: HealthConfig, result: CheckResult, *, started_ns: int) -> Health:
    """The health after a further result. Failures within the start period do not count yet."""
    log = [*health.log, result][-KEPT_RESULTS:]
    if result.exit_code == 0:
        return Health(status=HealthStatus.HEALTHY, log=log)
    status, streak = health.status, health.failing_streak
    forgiven = status is HealthStatus.STARTING and result.start_ns - started_ns < check.start_period
    if not forgiven:
        streak += 1
        if streak >= (check.retries or DEFAULT_RETRIES):
            status = HealthStatus.UNHEALTHY
    return Health(status=status, failing_streak=streak, log=log)


def pause_ns(check: HealthConfig, status: HealthStatus, *, ran_ns: int) -> int:
    """How long until the next check: the start interval while the container is starting up."""
    if status is HealthStatus.STARTING and ran_ns < check.start_period:
        return check.start_interval or DEFAULT_START_INTERVAL_NS
    return check.interval or DEFAULT_INTERVAL_NS


def timeout_ns(check: HealthConfig) -> int:
    """How long one check may take."""
    return check.timeout or DEFAULT_TIMEOUT_NS


def timeout_text(check: HealthConfig) -> str:
    """The output of a check that took too long; docker's text."""
    return f"Health check exceeded timeout ({go_duration(timeout_ns(check))})"


def matches(health: Health | None, wanted: Sequence[str]) -> bool:
    """The filter `health`; `none` is for containers without a check."""
    return (health.status.value if health is not None else "none") in wanted


def go_duration(span_ns: int) -> str:
    """A time as Go prints it: `500ms`, `1.5s`, `1m30s`, `1h0m0s`."""
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if span_ns < size * 1000:
            return f"{_decimal(span_ns, size)}{unit}" if span_ns else "0s"
    minutes, rest = divmod(span_ns, 60_000_000_000)
    seconds = f"{_decimal(rest, 1_000_000_000)}s"
    if not minutes:
        return seconds
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}"


def _decimal(value: int, size: int) -> str:
    whole, part = divmod(value, size)
    digits = str(part).rjust(len(str(size)) - 1, "0").rstrip("0") if part else ""
    return f"{whole}.{digits}" if digits else str(whole)
