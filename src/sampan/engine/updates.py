"""`docker update`: other limits and another restart policy, at once and for all further starts.

What changes in a record and in a cgroup are pure functions; `update` does it. The cgroup of a container
that runs comes first, then the row: a daemon that dies in between has answered nobody, and the next
start has the limits of before.
Source: dockerd 20.10 asked; engine-api-v1.55.yaml, ContainerUpdate.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from sampan.engine import boot_clock, terms
from sampan.engine.container import Container, Status
from sampan.engine.model import HostConfig, Resources, UpdateConfig, spelling
from sampan.engine.registry import Registry
from sampan.engine.resources import Machine, check_limits, oci_resources
from sampan.engine.restarts import check_policy
from sampan.errors import Conflict, InvalidArgument, RuntimeFailure, Unavailable
from sampan.linux.cgroups.manager import open_cgroup

ChangeTerms = Callable[[Container, terms.Terms, terms.Terms], Awaitable[None]]

log = logging.getLogger(__name__)

_MEMORY = ("memory", "memory_swap", "memory_reservation")
_CPU = (
    *("cpu_shares", "nano_cpus", "cpu_period", "cpu_quota"),
    *("cpu_realtime_period", "cpu_realtime_runtime", "cpuset_cpus", "cpuset_mems"),
)
_DEVICE_RATES = {
    "blkio_device_read_bps": "throttleReadBpsDevice",
    "blkio_device_write_bps": "throttleWriteBpsDevice",
    "blkio_device_read_iops": "throttleReadIOPSDevice",
    "blkio_device_write_iops": "throttleWriteIOPSDevice",
}
_BLOCK_IO = ("blkio_weight", "blkio_weight_device", *_DEVICE_RATES)
CHANGEABLE = frozenset((*_MEMORY, *_CPU, *_BLOCK_IO, "pids_limit"))

# What the kernel has where nothing is set: to take a change back.
_UNSET_CPU = {"shares": 1024, "quota": -1, "period": 100_000}
_UNSET_BLKIO_WEIGHT = 100


async def update(
    container: Container,
    change: UpdateConfig,
    registry: Registry,
    machine: Machine,
    change_network: ChangeTerms,
) -> list[str]:
    """Change the container; return the warnings. All of it happens, or nothing.

    `change_network` puts the second terms in force instead of the first, as far as they are about its
    network.

    Raises:
        InvalidArgument: a value that cannot be meant, or a field that an update does not change.
        Conflict: it contradicts what the container has; dockerd's texts.
        RuntimeFailure: the kernel refuses, or the database cannot be written.
    """
    warnings = check_limits(change, machine, update=True)
    check_policy(HostConfig(restart_policy=change.restart_policy))
    async with container.lock:
        if container.state.status in (Status.REMOVING, Status.DEAD):
            reason = 'container is marked for removal and cannot be "update"'
            raise Conflict(_cannot(container, reason))
        before = container.host_config
        refuse_others(before, change)
        if conflict := conflict_with(before, change):
            raise Conflict(_cannot(container, conflict))
        after = changed(before, change)
        _check_together(after, machine)
        terms_before, deadline_before = container.record.terms, container.record.deadline
        wishes = checked_wishes(change.annotations or {})
        terms_after = terms.changed(terms_before, wishes)
        undo = {**undoing(before, change), **block_io(after, before)}
        live = {**live_resources(after, change), **block_io(before, after)}
        await _apply(container, live, undo)
        try:
            await change_network(container, terms_before, terms_after)
        except BaseException:
            await _undo(container, undo)
            await change_network(container, terms_after, terms_before)
            raise
        container.record.host_config, container.record.terms = after, terms_after
        if terms.TTL in wishes:
            container.record.deadline = boot_clock.after_or_never(terms_after.ttl_ns)
        try:
            registry.write(container)
        except BaseException:
            container.record.host_config = before
            container.record.terms, container.record.deadline = terms_before, deadline_before
            await _undo(container, undo)
            await change_network(container, terms_after, terms_before)
            raise
    return warnings


async def change_nothing(_: Container, before: terms.Terms, after: terms.Terms) -> None:
    """For an engine without networks of its own."""


def checked_wishes(annotations: Mapping[str, str]) -> dict[str, str]:
    """The terms that an update changes.

    Raises:
        InvalidArgument: an annotation that is none of them.
    """
    wishes = terms.wishes_of(annotations)
    changeable = {prefix + name for prefix in terms.PREFIXES for name in terms.CHANGEABLE}
    for name in annotations:
        if name not in changeable:
            raise InvalidArgument(f"annotation {name} cannot be updated")
    return wishes


def _check_together(after: HostConfig, machine: Machine) -> None:
    """Refuse what no start would succeed with. A reservation above the limit is none: dockerd takes it
    in an update, and so does the kernel."""
    copy = msgspec.convert(msgspec.to_builtins(after), HostConfig)
    copy.memory_reservation = 0
    check_limits(copy, machine)


def refuse_others(before: Resources, change: Resources) -> None:
    """Refuse what an update does not change, unless it says what is so already.

    dockerd takes such a field and does nothing.

    Raises:
        InvalidArgument: which field.
    """
    nothing = Resources()
    for name in Resources.__struct_fields__:
        value = getattr(change, name)
        if name in CHANGEABLE or value in (getattr(nothing, name), getattr(before, name)):
            continue
        if value not in ([], False, -1):
            raise InvalidArgument(
                f"{_spelled(name)} cannot be updated: it is set when a container is created"
            )


def conflict_with(before: HostConfig, change: UpdateConfig) -> str:
    """Why the change does not go with what the container has, in dockerd's words; empty if it does."""
    for name, other, text, has in (
        ("nano_cpus", "cpu_period", "Nano CPUs", "CPU Period"),
        ("nano_cpus", "cpu_quota", "Nano CPUs", "CPU Quota"),
        ("cpu_period", "nano_cpus", "CPU Period", "NanoCPUs"),
        ("cpu_quota", "nano_cpus", "CPU Quota", "NanoCPUs"),
    ):
        if getattr(change, name) > 0 and getattr(before, other) > 0:
            return f"Conflicting options: {text} cannot be updated as {has} has already been set"
    if change.memory and not change.memory_swap and change.memory > before.memory_swap:
        return (
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap "
            "at the same time"
        )
    if before.auto_remove and change.restart_policy.name not in ("", "no"):
        return "Restart policy cannot be updated because AutoRemove is enabled for the container"
    return ""


def changed(before: HostConfig, change: UpdateConfig) -> HostConfig:
    """The HostConfig afterwards; zero and empty leave a value as it is.

    A list of devices replaces the one before, and a device with a rate or weight of 0 has no limit.
    """
    values = {name: getattr(change, name) for name in CHANGEABLE if getattr(change, name)}
    for name in _DEVICE_RATES.keys() & values.keys():
        values[name] = [device for device in values[name] if device.rate] or None
    if "blkio_weight_device" in values:
        weighed = [device for device in values["blkio_weight_device"] if device.weight]
        values["blkio_weight_device"] = weighed or None
    if change.pids_limit is not None:
        values["pids_limit"] = max(change.pids_limit, 0)  # dockerd's spelling of "none"
    if change.restart_policy.name:
        values["restart_policy"] = change.restart_policy
    if change.annotations:
        values["annotations"] = {**(before.annotations or {}), **change.annotations}
    return msgspec.structs.replace(before, **values)


def live_resources(after: HostConfig, change: UpdateConfig) -> dict[str, Any]:
    """OCI resources for the cgroup of a running container: the sections that the change touches."""
    whole = oci_resources(after, [])
    sections: dict[str, Any] = {}
    for section, names in (("memory", _MEMORY), ("cpu", _CPU)):
        if any(getattr(change, name) for name in names) and section in whole:
            sections[section] = whole[section]
    if change.pids_limit is not None:
        sections["pids"] = {"limit": after.pids_limit or -1}
    return sections


def block_io(before: HostConfig, after: HostConfig) -> dict[str, Any]:
    """OCI resources that lead a cgroup from one to the other, as far as they are about block devices.

    A device that has no rate of its own any more gets 0, the kernel's word for none; the weight of one is
    then that of all, for there is no such word that all kernels know.

    Raises:
        NotFound: there is no such device.
    """
    old, new = (oci_resources(host, []).get("blockIO", {}) for host in (before, after))
    section: dict[str, Any] = {}
    weight = after.blkio_weight or _UNSET_BLKIO_WEIGHT
    if after.blkio_weight != before.blkio_weight:
        section["weight"] = weight
    for key, word, none in (
        ("weightDevice", "weight", weight),
        *((key, "rate", 0) for key in _DEVICE_RATES.values()),
    ):
        wanted = {_number(entry): entry for entry in new.get(key, ())}
        gone = [entry for entry in old.get(key, ()) if _number(entry) not in wanted]
        entries = [*({**entry, word: none} for entry in gone), *wanted.values()]
        if entries and old.get(key) != new.get(key):
            section[key] = entries
    return {"blockIO": section} if section else {}


def _number(entry: Mapping[str, Any]) -> tuple[int, int]:
    return entry["major"], entry["minor"]


def undoing(before: HostConfig, change: UpdateConfig) -> dict[str, Any]:
    """OCI resources that take `live_resources` back, where the kernel has a word for it."""
    sections = live_resources(before, change)
    if any(getattr(change, name) for name in _MEMORY):
        unset = {"limit": -1, "swap": -1, "reservation": -1}
        sections["memory"] = {**unset, **sections.get("memory", {})}
    if any(getattr(change, name) for name in _CPU):
        sections["cpu"] = {**_UNSET_CPU, **sections.get("cpu", {})}
    return sections


async def _apply(container: Container, wanted: dict[str, Any], undo: dict[str, Any]) -> None:
    if not (wanted and container.state.running):
        return
    try:
        await asyncio.to_thread(open_cgroup(container.record.cgroup_path).apply, wanted)
    except RuntimeFailure as failure:
        if _has_ended(container):
            return  # and its cgroup is gone, or about to go
        await _undo(container, undo)
        raise RuntimeFailure(
            "update", _cannot(container, failure.message), path=failure.path, errno=failure.errno
        ) from failure


def _has_ended(container: Container) -> bool:
    """Whether the process has ended, be it that the engine has not heard of it yet."""
    if not container.state.running or container.shim is None:
        return True
    ended = select.poll()
    try:
        ended.register(container.shim.pidfd, select.POLLIN)
    except Unavailable:
        return True  # its shim has ended, which it does last
    return bool(ended.poll(0))


async def _undo(container: Container, undo: dict[str, Any]) -> None:
    if not (undo and container.state.running):
        return
    try:
        await asyncio.to_thread(open_cgroup(container.record.cgroup_path).apply, undo)
    except RuntimeFailure as failure:
        log.warning("container %s: its old limits are not back: %s", container.id, failure.message)


def _cannot(container: Container, reason: str) -> str:
    return f"Cannot update container {container.id}: {reason}"


def _spelled(name: str) -> str:
    return "KernelMemoryTCP" if name == "kernel_memory_tcp" else spelling(name)
