"""Which seccomp profile a container runs under, compiled once per profile."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from typing import Any, NamedTuple

import msgspec

from sampan.engine.container import Record
from sampan.engine.seccomp_profile import default_profile, parse_profile
from sampan.engine.security import parse_security_options
from sampan.linux import seccomp

# Profiles in memory, the ones used last. Their texts come from clients and may be large; one that is
# forgotten is parsed again, its program is still there.
KEPT = 16
UNUSED_KEPT_S = 7 * 24 * 3600
"""How long a program that no container starts with stays on the disk."""


class Profile(NamedTuple):
    """`section` is `linux.seccomp` as JSON, `program` the path of the compiled BPF."""

    section: msgspec.Raw
    program: str


class Profiles:
    """Profiles by what selects them: the profile's text and the capabilities.

    Compiled programs are files, so that a start neither compiles nor carries them.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._known: OrderedDict[tuple[str, tuple[str, ...]], Profile] = OrderedDict()

    def of(self, record: Record) -> Profile | None:
        """The container's profile; None when it is unconfined.

        Raises:
            InvalidArgument: the profile's text is none.
            RuntimeFailure: it does not compile.
        """
        text = parse_security_options(record.host_config.security_opt).seccomp
        if text == "unconfined" or (record.host_config.privileged and text == "builtin"):
            return None
        key = text, tuple(record.capabilities)
        if (profile := self._known.get(key)) is None:
            profile = self._known[key] = self._compile(text, record.capabilities)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return profile

    def _compile(self, text: str, capabilities: list[str]) -> Profile:
        section: dict[str, Any] = (
            default_profile(capabilities)
            if text == "builtin"
            else parse_profile(text, capabilities)
        )
        _, path = seccomp.cached_program(section, self._directory)
        os.utime(path)  # `drop_unused` goes by it
        return Profile(msgspec.Raw(msgspec.json.encode(section)), path)

    def drop_unused(self, now_s: float | None = None) -> list[str]:
        """Delete the programs that were taken up long ago and are not in memory, and the links to
        what is gone; return their names."""
        limit_s = (time.time() if now_s is None else now_s) - UNUSED_KEPT_S
        used = {os.path.basename(profile.program) for profile in self._known.values()}
        gone = []
        for name in os.listdir(self._directory):
            path = os.path.join(self._directory, name)
            if os.path.islink(path):
                continue
            forgotten = name not in used and os.lstat(path).st_mtime < limit_s
            if forgotten or name.startswith("."):  # one that a crash cut short
                os.unlink(path)
                gone.append(name)
        for name in os.listdir(self._directory):
            path = os.path.join(self._directory, name)
            if os.path.islink(path) and not os.path.exists(path):
                os.unlink(path)
                gone.append(name)
        return gone
