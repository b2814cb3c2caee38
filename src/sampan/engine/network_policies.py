"""Another egress policy for a network, while containers are in it.

It is kept in the network's options, where `inspect` shows it and the next daemon finds it, in place of
whatever label or option had said it so far.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import msgspec

from sampan.engine.container import Container
from sampan.engine.networks import Entry, Networks
from sampan.engine.policies import Policies, parse_policy
from sampan.engine.terms import NETWORK_POLICY, PREFIXES
from sampan.errors import Forbidden, NotFound, SampanError, Unsupported

log = logging.getLogger(__name__)

_KEYS = tuple(prefix + NETWORK_POLICY for prefix in PREFIXES)


async def change_policy(
    networks: Networks,
    policies: Policies,
    find: Callable[[str], Container],
    reference: str,
    text: str,
) -> None:
    """Put a policy in force for everybody in the network; open connections that it forbids end.

    `find` gives the container of an ID. When it raises the former policy is in force.

    Raises:
        NotFound: there is no such network.
        InvalidArgument: a policy that cannot be meant.
        Forbidden: the network is predefined, or a configuration only.
        Unsupported: the network's driver has no port that could be guarded.
        RuntimeFailure: the kernel refused.
    """
    policy = parse_policy(text)
    async with networks.changing:
        entry = networks.get(reference)
        if entry.predefined or entry.network is None:
            raise Forbidden(f"the policy of network {entry.name} cannot be changed")
        if entry.record.driver != "bridge" and not policy.is_full:
            raise Unsupported(
                f"a network policy cannot be enforced in network {entry.name}",
                hint="its containers' packets do not pass a port of the host; take a bridge network",
            )
        before = entry.record
        networks.rewrite(
            entry,
            msgspec.structs.replace(
                before,
                options={**_without_policy(before.options), _KEYS[0]: policy.text},
                labels=_without_policy(before.labels),
            ),
        )
        try:
            await _enforce(entry, policies, find)
        except SampanError:
            networks.rewrite(entry, before)
            try:
                await _enforce(entry, policies, find)
            except SampanError as error:
                log.error("network %s: its former policy: %s", entry.name, error.message)
            raise


async def _enforce(entry: Entry, policies: Policies, find: Callable[[str], Container]) -> None:
    """For all who are in it now; who comes later finds what is kept."""
    assert entry.network is not None
    network = entry.network
    inside = [attachment.container_id for attachment in network.attachments()]
    results = await asyncio.gather(
        *(_enforce_for(identity, entry, policies, find) for identity in inside),
        return_exceptions=True,
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _enforce_for(
    identity: str, entry: Entry, policies: Policies, find: Callable[[str], Container]
) -> None:
    try:
        container = find(identity)
    except NotFound:
        return
    assert entry.network is not None
    async with container.lock:
        await policies.enforce(container, entry.network)


def _without_policy(given: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in given.items() if key not in _KEYS}
