"""What confines a container's processes, put on one that enters it from the host."""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Confinement:
    """The capabilities of a container's first process, and the seccomp filter and the AppArmor
    profile of its configuration. Read on the host, applied in the container."""

    def __init__(self, pid: int, directory: str) -> None:
        """`directory` is the container's, which holds the configuration it was started with.

        Raises:
            CommandError: the configuration cannot be read, and so nothing be promised.
            RuntimeFailure: its seccomp profile does not compile here.
        """
        from sampan import jsontext
        from sampan.linux import capabilities, lsm, seccomp, syscalls

        try:
            with open(f"{directory}/config.json", "rb") as file:
                config: dict[str, Any] = jsontext.decode(file.read())
            with open(f"/proc/{pid}/status") as file:
                lines = dict(line.split(":\t", 1) for line in file if ":\t" in line)
        except (OSError, ValueError) as error:
            raise CommandError(f"cannot tell what confines the container: {error}") from None
        self._keep = int(lines["CapBnd"], 16)
        self._have = capabilities.bounding()
        profile = config["linux"].get("seccomp")
        self._program = seccomp.compile_profile(profile) if profile else b""
        self._apparmor = config["process"].get("apparmorProfile") or ""
        # The machine's own procfs: what the container mounts at /proc could swallow the write.
        self.proc = os.open("/proc", os.O_PATH | os.O_CLOEXEC) if self._apparmor else -1
        self._modules = capabilities, lsm, seccomp, syscalls

    def apply(self) -> None:
        """Confine the calling process, from its next exec on. Imports nothing.

        Raises:
            OSError, RuntimeFailure: the kernel refuses; the command must not be executed then.
        """
        capabilities, lsm, seccomp, syscalls = self._modules
        if self._apparmor:
            lsm.set_apparmor_exec(self.proc, self._apparmor)
            os.close(self.proc)
        # As root a program gets what is in the bounding set, and nothing besides.
        capabilities.drop_bounding(self._keep, self._have)
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        if self._program:
            seccomp.load(self._program)
