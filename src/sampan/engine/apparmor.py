"""The profile that containers run under on a kernel with AppArmor, and its way into the kernel.

The profile is the engine's own and is in no file: whoever unloads all profiles of /etc/apparmor.d, or
reloads them, does not know of it. So before each start the number of the kernel's policy is read
(some microseconds); where it changed, the profile is looked for, and loaded anew if it is gone.

Source: apparmor.d(5), apparmor_parser(8). What is allowed and denied is what Docker documents of
docker-default (https://docs.docker.com/engine/security/apparmor/).
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import subprocess

from sampan.engine.model import HostConfig
from sampan.engine.security import UNCONFINED, parse_security_options
from sampan.errors import RuntimeFailure
from sampan.linux import lsm

log = logging.getLogger(__name__)

DEFAULT_PROFILE = "sampan-default"
PARSER = "apparmor_parser"
# Where it is on every distribution, also for a daemon that was started with a user's PATH.
_PARSER_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_PARSER_TIMEOUT_S = 120
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.:/@+-]+")

_TEXT = """\
profile %(name)s flags=(attach_disconnected,mediate_deleted) {
  # What a container may do is decided by its namespaces, capabilities, cgroup and seccomp filter.
  # This is what stays forbidden where one of them was widened.
  network,
  unix,
  capability,
  file,
  umount,

  # Signals come from the host and from each other, and go nowhere else.
%(senders)s
  signal (send, receive) peer=%(name)s,
  ptrace (trace, read, tracedby, readby) peer=%(name)s,

  deny mount,
  deny pivot_root,

  # Of procfs only what belongs to a process can be written.
  deny /proc/* w,
  deny /proc/{acpi,asound,bus,driver,dynamic_debug,fs,irq,scsi,sys,tty}/** wkl,
  deny /proc/{kcore,sysrq-trigger} rwklx,

  # Of sysfs only the cgroups: everything whose path does not begin with /sys/fs/cgr.
  deny /sys/[^f]** wklx,
  deny /sys/f[^s]** wklx,
  deny /sys/fs/[^c]** wklx,
  deny /sys/fs/c[^g]** wklx,
  deny /sys/fs/cg[^r]** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
}
"""


def profile_text(engine_label: str = UNCONFINED) -> str:
    """The default profile in AppArmor's language; `engine_label` is what the engine runs under."""
    senders = [UNCONFINED]
    if engine_label != UNCONFINED and _PLAIN_NAME.fullmatch(engine_label):
        senders.append(engine_label)
    rules = "\n".join(f'  signal (receive) peer="{sender}",' for sender in senders)
    return _TEXT % {"name": DEFAULT_PROFILE, "senders": rules}


class AppArmor:
    """AppArmor on this machine. Before `load` no profile is used by default.

    `default` names the profile of a container that asks for none, empty where there is none, and
    then, on a kernel with AppArmor, `problem` says why.
    """

    def __init__(self) -> None:
        self.enabled = lsm.apparmor_enabled()
        self.default = ""
        self.problem = ""
        self._revision = -1
        self._loading = asyncio.Lock()

    def load(self) -> None:
        """Put the default profile into the kernel, replacing that of an older engine. Blocks."""
        if not self.enabled:
            return
        try:
            self._load()
            self.default, self.problem = DEFAULT_PROFILE, ""
        except (OSError, ValueError) as error:
            self.problem = str(error)
            log.warning("containers run without an AppArmor profile: %s", error)

    def profile_of(self, host: HostConfig) -> str:
        """The profile a container is to run under, empty for none; docker's rules."""
        asked = parse_security_options(host.security_opt).apparmor
        if asked and (self.enabled or asked != UNCONFINED):
            return asked
        if host.privileged and self.enabled:
            return UNCONFINED
        return self.default

    async def ensure(self, profile: str) -> None:
        """Have the default profile in the kernel still, if that is the one that is wanted.

        Raises:
            RuntimeFailure: somebody unloaded it and it cannot be loaded anew.
        """
        if profile != DEFAULT_PROFILE or profile != self.default:
            return
        try:
            if lsm.apparmor_revision() == self._revision:
                return
            async with self._loading:
                await asyncio.to_thread(self._load_if_gone)
        except (OSError, ValueError) as error:
            raise RuntimeFailure(
                "apparmor",
                f"AppArmor enabled on system but the {DEFAULT_PROFILE} profile could not be "
                f"loaded: {error}",
            ) from error

    def _load_if_gone(self) -> None:
        revision = lsm.apparmor_revision()
        if lsm.apparmor_profile_loaded(DEFAULT_PROFILE):
            self._revision = revision
        else:
            self._load()

    def _load(self) -> None:
        """Run the parser.

        Raises:
            OSError: it is not there, or the kernel's policy cannot be read.
            ValueError: it refuses, and why.
        """
        parser = shutil.which(PARSER, path=f"{os.environ.get('PATH', '')}:{_PARSER_PATH}")
        if parser is None:
            raise FileNotFoundError(f"the command {PARSER} is not installed (package apparmor)")
        try:
            done = subprocess.run(
                [parser, "--skip-cache", "--replace"],
                input=profile_text(lsm.apparmor_label()).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_PARSER_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{PARSER} did not end within {_PARSER_TIMEOUT_S} s") from error
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())
            raise ValueError(f"{PARSER}: {said or f'exit status {done.returncode}'}")
        revision = lsm.apparmor_revision()
        if not lsm.apparmor_profile_loaded(DEFAULT_PROFILE):
            raise ValueError(f"{PARSER} loaded it, but the kernel does not show it")
        self._revision = revision
