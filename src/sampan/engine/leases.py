"""Leases: what is made under one goes when its client is gone.

A lease lives for its TTL from the last renewal on, or as long as somebody holds it: a connection that is
open. It ends when the TTL runs out, when the last connection that held it is closed by its client, or when
it is removed. Then everything that was made under it goes: execs, containers, networks, volumes.

    active --- TTL runs out, connection ends, removed ---> ending --- all is gone ---> (no lease)

Membership is no table: containers have it in their terms, execs in memory, networks and volumes in the
label `sampan.lease`. So an object and its membership are one write. Only that a lease is there, and that it
ends, is written. Time in which no daemon ran is not counted against a client: a new engine grants each
lease its whole TTL again.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sampan.engine import terms
from sampan.engine.events import EventBus
from sampan.errors import Conflict, InvalidArgument, NotFound, RuntimeFailure
from sampan.state.leases import LeaseRow, LeaseRows

log = logging.getLogger(__name__)

LABEL = terms.PREFIXES[0] + terms.LEASE
DEFAULT_TTL_NS = 60 * 1_000_000_000
SHORTEST_TTL_NS = 1_000_000_000
FIRST_PAUSE_S = 0.5  # before what could not be removed is tried again
LONGEST_PAUSE_S = 30.0

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")

current: contextvars.ContextVar[str] = contextvars.ContextVar("lease", default="")
"""The lease that what runs now was asked for under; empty for none."""

EndMembers = Callable[[str], Awaitable[Sequence[str]]]


class Lease:
    """A lease. `holders` are connections, `making` requests that make something under it now."""

    def __init__(self, row: LeaseRow) -> None:
        self.row = row
        self.holders = 0
        self.making = 0
        self.due_s = 0.0  # on the loop's clock
        self.timer: asyncio.TimerHandle | None = None
        self.again = asyncio.Event()
        self.tried = asyncio.Event()
        self.gone = asyncio.Event()
        self.left: Sequence[str] = ()

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def ending(self) -> bool:
        return self.row.ending


class Leases:
    """All leases of one engine. `end_members` removes what was made under one, as far as it can, and
    says what is left and why; it is set before `open`."""

    def __init__(self, rows: LeaseRows, events: EventBus) -> None:
        self._rows = rows
        self._events = events
        self._leases: dict[str, Lease] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.end_members: EndMembers = _no_members

    def open(self) -> None:
        """Take up the leases of the former engine; those that were ending go on with that."""
        for row in self._rows.all():
            lease = self._leases[row.name] = Lease(row)
            if row.ending:
                self._begin_end(lease)
            else:
                self._renew(lease)

    async def close(self) -> None:
        """End none; the next engine goes on."""
        for lease in self._leases.values():
            _unwind(lease)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Looking

    def get(self, name: str) -> Lease:
        """The lease of that name.

        Raises:
            NotFound: there is none.
        """
        lease = self._leases.get(name)
        if lease is None:
            raise NotFound(f"No such lease: {name}", hint=f"'sampan lease create {name}' makes one")
        return lease

    def list(self) -> list[Lease]:
        """All, by name."""
        return [self._leases[name] for name in sorted(self._leases)]

    def left_s(self, lease: Lease) -> float | None:
        """How long it lives without a renewal; None while it is held, or ends."""
        if lease.holders or lease.ending:
            return None
        return max(0.0, lease.due_s - asyncio.get_running_loop().time())

    # Its life

    def create(self, name: str, ttl_ns: int = 0) -> Lease:
        """Make a lease; 0 for the usual TTL.

        Raises:
            InvalidArgument: no name, or a TTL below a second.
            Conflict: there is one of that name.
        """
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"invalid lease name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-]")
        ttl_ns = ttl_ns or DEFAULT_TTL_NS
        if not SHORTEST_TTL_NS <= ttl_ns <= terms.LONGEST_NS:
            raise InvalidArgument(f"invalid TTL of lease {name}: it is at least one second")
        if name in self._leases:
            raise Conflict(f"Conflict. The lease name {name} is already in use")
        row = LeaseRow(name, time.time_ns(), ttl_ns)
        self._write(row)
        lease = self._leases[name] = Lease(row)
        self._renew(lease)
        self._emit(lease, "create", ttl=str(ttl_ns))
        return lease

    def renew(self, name: str) -> Lease:
        """Let the lease live for its TTL from now on.

        Raises:
            NotFound, Conflict: it is gone, or about to go.
        """
        lease = self.get(name)
        _check_active(lease)
        self._renew(lease)
        return lease

    def hold(self, name: str, ttl_ns: int = 0) -> Lease:
        """Have it live, made if need be, until as many `let_go` came.

        Raises:
            InvalidArgument, Conflict: see `create` and `renew`.
        """
        lease = self._leases.get(name) or self.create(name, ttl_ns)
        _check_active(lease)
        lease.holders += 1
        _unwind(lease)
        return lease

    def let_go(self, lease: Lease, *, by_client: bool) -> None:
        """A connection that held it is gone; if the client closed it, and it was the last, so is the lease."""
        lease.holders -= 1
        if lease.holders or lease.ending:
            return
        if by_client:
            self._begin_end(lease, reason="its connection ended")
        else:
            self._renew(lease)

    async def remove(self, name: str) -> None:
        """End the lease; back when everything made under it is gone.

        Raises:
            NotFound: there is none.
            Conflict: something cannot be removed yet. The lease stays, ending, and goes on trying.
        """
        lease = self.get(name)
        if lease.ending:
            lease.tried.clear()
            lease.again.set()
        else:
            self._begin_end(lease, reason="removed")
        await lease.tried.wait()
        if not lease.gone.is_set():
            raise Conflict(f"lease {name} is ending, but not yet gone: {'; '.join(lease.left)}")

    # Members

    @contextmanager
    def joining(self, name: str = "") -> Iterator[str]:
        """Around making something: the name of the lease that it is to belong to, empty for none.

        That is `name`, or the lease of the request. The lease does not vanish before this is left.

        Raises:
            InvalidArgument, Conflict: there is no such lease, or it ends. Clients take a 404 for a
                missing image.
        """
        name = name or current.get()
        if not name:
            yield ""
            return
        try:
            lease = self.get(name)
        except NotFound as error:
            raise InvalidArgument(error.message, hint=error.hint) from error
        _check_active(lease)
        lease.making += 1
        try:
            yield name
        finally:
            lease.making -= 1

    @contextmanager
    def labelled(self, labels: Mapping[str, str] | None) -> Iterator[dict[str, str]]:
        """`joining` for what has its membership in a label: the labels to make it with."""
        labels = dict(labels or {})
        with self.joining(lease_of(labels)) as name:
            if name:
                labels[LABEL] = name
            yield labels

    # Ends

    def _renew(self, lease: Lease) -> None:
        _unwind(lease)
        loop = asyncio.get_running_loop()
        lease.due_s = loop.time() + lease.row.ttl_ns / 1e9
        if not lease.holders:
            lease.timer = loop.call_at(
                lease.due_s, self._run_out, lease, context=contextvars.Context()
            )

    def _run_out(self, lease: Lease) -> None:
        self._begin_end(lease, reason="not renewed")

    def _begin_end(self, lease: Lease, *, reason: str = "") -> None:
        """Let nothing more join, and remove what did, in the background."""
        _unwind(lease)
        if not lease.ending:
            lease.row = replace(lease.row, ending=True)
            try:
                self._write(lease.row)
            except RuntimeFailure as failure:
                log.error("%s", failure.message)  # a full disk: removing makes room
            self._emit(lease, "end", reason=reason)
            log.info("lease %s ends: %s", lease.name, reason)
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._end(lease), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, lease: Lease) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            busy = lease.making
            lease.left = await self.end_members(lease.name)
            if not lease.left and not busy:
                break
            if not busy:
                lease.tried.set()
            await _pause(lease.again, pause_s if lease.left else FIRST_PAUSE_S)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        self._rows.delete(lease.name)
        del self._leases[lease.name]
        lease.gone.set()
        lease.tried.set()
        self._emit(lease, "destroy")

    def _write(self, row: LeaseRow) -> None:
        try:
            self._rows.put(row)
        except sqlite3.Error as error:
            raise RuntimeFailure(
                "database", f"lease {row.name} cannot be written to the database: {error}"
            ) from error

    def _emit(self, lease: Lease, action: str, **attributes: str) -> None:
        self._events.emit("lease", action, lease.name, {"name": lease.name, **attributes})


def lease_of(labels: Mapping[str, str]) -> str:
    """The lease that labels name, empty for none."""
    return terms.wishes_of(labels).get(terms.LEASE, "")


def document(
    lease: Lease, left_s: float | None, members: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """A lease as the API shows it; times in ns."""
    return {
        "Name": lease.name,
        "Status": "ending" if lease.ending else "active",
        "TTL": lease.row.ttl_ns,
        "ExpiresIn": None if left_s is None else int(left_s * 1e9),
        "Holders": lease.holders,
        "CreatedAt": lease.row.created_ns,
        **members,
        "Left": list(lease.left),
    }


def _check_active(lease: Lease) -> None:
    if lease.ending:
        raise Conflict(f"lease {lease.name} is ending: what was made under it is being removed")


def _unwind(lease: Lease) -> None:
    if lease.timer is not None:
        lease.timer.cancel()
        lease.timer = None


async def _pause(again: asyncio.Event, longest_s: float) -> None:
    """Wait, unless somebody wants it tried again now."""
    try:
        async with asyncio.timeout(longest_s):
            await again.wait()
    except TimeoutError:
        pass
    again.clear()


async def _no_members(_: str) -> Sequence[str]:
    return ()
