"""OCI runtimes to choose from: Sampan's own, those of the daemon's options, runc and crun where they are."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

from sampan.engine.model import HostConfig
from sampan.errors import InvalidArgument

OWN = "sampan"
# What clients write into their requests that were made for dockerd's default.
ALIASES = frozenset({"", OWN, "io.containerd.runc.v2"})
IN_PATH = ("runc", "crun")
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Runtimes:
    """Commands by name; `given` are those of the daemon's options."""

    def __init__(self, given: Mapping[str, Sequence[str]]) -> None:
        self._given = given

    def check(self, host: HostConfig) -> None:
        """Refuse a runtime that there is not, and what it has not.

        Raises:
            InvalidArgument: dockerd's text for the former.
        """
        if host.runtime in ALIASES:
            return
        if not self.command(host.runtime):
            raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
        if host.init:
            raise InvalidArgument(
                f"the runtime {host.runtime} has no init of its own",
                hint=f"leave out --init, or --runtime {host.runtime}",
            )

    def command(self, name: str) -> tuple[str, ...]:
        """The command of a runtime; empty for Sampan's own, and for one that is not there."""
        if name in ALIASES:
            return ()
        if name in self._given:
            return tuple(self._given[name])
        path = shutil.which(name, path=SEARCH_PATH) if name in IN_PATH else None
        return (path,) if path else ()

    def shown(self) -> dict[str, Sequence[str]]:
        """All but our own, as `info` lists them."""
        names = [*self._given, *(name for name in IN_PATH if name not in self._given)]
        return {name: command for name in names if (command := self.command(name))}
