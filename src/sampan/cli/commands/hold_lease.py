"""`sampan lease hold`: a lease for as long as a command runs, or this one does.

The lease is held by a connection. So however this process ends, also by kill -9, everything that was made
under the lease goes.
"""

from __future__ import annotations

import os
import select
import time

from sampan.cli.client import query, quote
from sampan.cli.failures import ApiError, CommandError, ConnectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (("ttl", "", "string", "", "How long it outlives an engine that is restarted (1m)"),)

COMMAND_NOT_FOUND = 127
RECONNECT_S = 60.0
PAUSE_S = 0.1


def run(call: Call) -> int:
    """Hold the lease; the status is the command's."""
    name, command = call.args[0], call.args[1:]
    holder = Holder(call, name)
    if not command:
        call.say(name)
        _keep(call, name, holder, child=-1)
        return 1
    environment = {**call.environ, "SAMPAN_LEASE": name}
    try:
        child = os.posix_spawnp(command[0], command, environment)
    except OSError as error:
        _end(call, name)
        raise CommandError(
            f"{command[0]}: {str(error.strerror).lower()}", status=COMMAND_NOT_FOUND
        ) from None
    _keep(call, name, holder, child=os.pidfd_open(child))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _end(call, name)
    return 128 - code if code < 0 else code


class Holder:
    """The connection that holds a lease: its first line is read, the next is the lease's end."""

    def __init__(self, call: Call, name: str) -> None:
        path = f"/leases/{quote(name)}/hold{query(ttl=call.text('ttl'))}"
        self._response = call.client.open("POST", path, fresh=True)
        self._lines = self._response.values()
        next(self._lines, None)

    @property
    def fd(self) -> int:
        return self._response.connection.sock.fileno()

    def tells_end(self) -> bool:
        """Whether what comes is the lease's end, and not the engine's."""
        try:
            return next(self._lines, None) is not None
        except ConnectError:
            return False


def _keep(call: Call, name: str, holder: Holder, child: int) -> None:
    """Until the child (a pidfd, -1 for none) has ended; without one, until the lease is gone."""
    while True:
        poller = select.poll()
        poller.register(holder.fd, select.POLLIN)
        if child >= 0:
            poller.register(child, select.POLLIN)
        if child in {fd for fd, _ in poller.poll()}:
            return
        if holder.tells_end():
            call.complain(f"lease {name} is gone: somebody else removed it")
            if child >= 0:
                select.select([child], [], [])
            return
        holder = _hold_again(call, name)


def _hold_again(call: Call, name: str) -> Holder:
    """The engine is gone; the lease is held anew with the next one, which has it for its TTL."""
    last_s = time.monotonic() + RECONNECT_S
    while True:
        try:
            call.renewed_client()
            return Holder(call, name)
        except (ApiError, ConnectError):
            if time.monotonic() > last_s:
                raise
            time.sleep(PAUSE_S)


def _end(call: Call, name: str) -> None:
    """Remove everything, and wait for it."""
    try:
        call.renewed_client().call("DELETE", f"/leases/{quote(name)}")
    except ApiError as error:
        if error.code != 404:
            raise
