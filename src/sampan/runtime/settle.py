"""The last steps before a program runs in a container, the same for init and for exec.

Everything here runs behind the container's namespaces and imports nothing.
"""

from __future__ import annotations

import os

from sampan.errors import RuntimeFailure
from sampan.linux import process, pty, seccomp
from sampan.linux import syscalls as sys
from sampan.runtime import console, identity, program, reaper
from sampan.runtime.messages import os_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sampan.linux.seqpacket import Socket
    from sampan.runtime.identity import Identity
    from sampan.runtime.messages import Progress
    from sampan.runtime.notify import Agent


class Settler:
    """What is left to do for one process.

    `keyring` names the session keyring to join (None: keep the runtime's), `stdio` what becomes
    0, 1, 2 (None: they are in place), `preserve_fds` how many descriptors from 3 on stay open.
    """

    __slots__ = (
        "_keep_admin",
        "adopts_orphans",
        "agent",
        "die_with_parent",
        "identity",
        "keyring",
        "path",
        "personality",
        "pid",
        "preserve_fds",
        "progress",
        "seccomp_flags",
        "seccomp_program",
        "stdio",
    )

    def __init__(
        self,
        who: Identity,
        progress: Progress,
        *,
        stdio: tuple[int, int, int] | None,
        linux: Mapping[str, Any],
        keyring: str | None,
        seccomp_program: bytes | None,
        preserve_fds: int,
        die_with_parent: bool,
        agent: Agent | None = None,
        adopts_orphans: bool = False,
    ) -> None:
        self.identity = who
        self.progress = progress
        self.stdio = stdio
        self.keyring = keyring
        self.personality: Mapping[str, Any] = linux.get("personality") or {}
        self.seccomp_program = seccomp_program
        self.seccomp_flags: Sequence[str] | None = (linux.get("seccomp") or {}).get("flags")
        self.preserve_fds = preserve_fds
        self.die_with_parent = die_with_parent
        self.adopts_orphans = adopts_orphans  # is the parent of what its descendants leave behind
        self.agent = agent
        self.path = ""
        self.pid = 0
        # For loading the seccomp filter, see seccomp(2).
        self._keep_admin = seccomp_program is not None and not who.no_new_privileges

    def settle(self, keep: Sequence[int] | None, *, admin: bool = False) -> None:
        """Become the container's user with its limits, and find the program.

        `identity.set_labels` has been called, by this process or the one that it was cloned from, and
        with an agent `pid` is known. Of this process's descriptors only `keep`, the standard streams
        and the preserved ones stay open; None: none is closed.
        `admin`: CAP_SYS_ADMIN stays, for `start_program` to use and drop.

        Raises:
            RuntimeFailure, OSError: at the step that `progress` notes.
        """
        who, progress = self.identity, self.progress
        self._keep_admin = admin or self._keep_admin
        if self.keyring is not None:
            progress.at("keyring")
            _join_keyring(self.keyring)
        progress.at("rlimit")
        identity.set_limits(who)
        identity.set_scheduling(who, progress)
        if keep is not None:
            progress.at("descriptors")
            self.close_all_but(keep)
        progress.at("user")
        identity.look_up_user(who)
        progress.at("stdio")
        if self.stdio is not None:
            process.install_stdio(self.stdio)
        console.own_stdio(who.uid)
        self._set_personality()
        identity.assume(who, progress, keep_admin=self._keep_admin)
        if self.die_with_parent:
            sys.prctl(sys.PR_SET_PDEATHSIG, sys.SIGKILL)
        if self.adopts_orphans:
            sys.prctl(sys.PR_SET_CHILD_SUBREAPER, 1)
        progress.at("exec")
        self.path = program.find(who)

    def become_program(self, sock: Socket, *, reaper_area: tuple[int, int] | None = None) -> None:
        """Close what is not the program's, load the filter, exec; returns never.

        With `reaper_area` (see `linux.process.argument_area`) this process stays as a reaper.
        """
        self._mark_descriptors()
        if self.seccomp_program is not None:
            self.progress.at("seccomp")
            self._load_filter(self.seccomp_program)
        identity.finish(self.identity, keep_admin=self._keep_admin)
        self.progress.at("exec", self.path)
        if reaper_area is not None:
            reaper.run(self.path, self.identity, sock, reaper_area)
        else:
            program.become(self.path, self.identity)

    def start_program(
        self, entering: Sequence[tuple[str, int, *tuple[object, ...]]], *, cgroup_fd: int = -1
    ) -> tuple[int, int, RuntimeFailure | None]:
        """Start the program in a child that shares our memory till then (`linux.vfork`).

        The child makes the calls `entering` first. This process has settled. Returns the child's PID,
        its pidfd, and why it has ended, if it has.

        Raises:
            RuntimeFailure, OSError: there is no child.
        """
        self._mark_descriptors()
        process.default_signals()
        calls = [*entering, ("setsid", sys.SYS_setsid)]
        if self.die_with_parent:
            calls.append(("prctl", sys.SYS_prctl, sys.PR_SET_PDEATHSIG, sys.SIGKILL, 0, 0, 0))
        if self.adopts_orphans:
            calls.append(("prctl", sys.SYS_prctl, sys.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
        if self.stdio is None:
            calls.append(("ioctl", sys.SYS_ioctl, 0, pty.TIOCSCTTY, 0))
        if self.seccomp_program is not None:
            self.progress.at("seccomp")
            filter = seccomp.load_arguments(self.seccomp_program, self.seccomp_flags)
            calls.append(("seccomp", sys.SYS_seccomp, *filter))
        if self._keep_admin:
            sets = self.identity.sets
            masks = sys.capset_arguments(sets.effective, sets.permitted, sets.inheritable)
            calls.append(("capset", sys.SYS_capset, *masks))
        calls.append(program.call(self.path, self.identity))
        self.progress.at("clone")
        child = process.clone_program(calls, cgroup_fd=cgroup_fd)
        failure = None if child.failed is None else self._call_failure(*child.failed)
        return child.pid, child.pidfd, failure

    def _call_failure(self, call: str, error: OSError) -> RuntimeFailure:
        if call == "seccomp":
            return seccomp.load_failure(error)
        if call == "execve":
            return program.exec_failure(self.path, error)
        return os_failure("exec", error)

    def _mark_descriptors(self) -> None:
        """Only the standard streams and the preserved descriptors are the program's."""
        first = 3 + self.preserve_fds
        sys.close_range(first, flags=sys.CLOSE_RANGE_CLOEXEC)
        for fd in range(3, first):
            os.set_inheritable(fd, True)

    def _load_filter(self, program: bytes) -> None:
        if self.agent is None:
            seccomp.load(program, self.seccomp_flags)
            return
        listener = seccomp.load(program, [*(self.seccomp_flags or ()), seccomp.NEW_LISTENER])
        assert listener is not None
        self.agent.hand_over(listener, self.pid)

    def close_all_but(self, keep: Sequence[int]) -> None:
        """Done before the first path of the container's is followed, which may be a hostile link.

        Close-on-exec is too late: a passwd file, directory or program at `/proc/self/fd/N/..` is
        looked up while N is open, and would be the machine's (CVE-2024-21626).
        """
        agent = () if self.agent is None else (self.agent.sock.fileno(),)
        first = 3 + self.preserve_fds
        for fd in sorted({*keep, *agent, *(self.stdio or ())}):
            if fd > first:
                sys.close_range(first, fd - 1)
            first = max(first, fd + 1)
        sys.close_range(first)

    def _set_personality(self) -> None:
        if not self.personality:
            return
        self.progress.at("personality")
        domain = process.PERSONALITIES.get(self.personality.get("domain") or "")
        if domain is None:
            raise RuntimeFailure("personality", f"invalid domain: {self.personality.get('domain')}")
        sys.personality(domain)


def _join_keyring(name: str) -> None:
    """A session keyring of the container's own, so that it sees none of the runtime's keys."""
    try:
        sys.keyctl(sys.KEYCTL_JOIN_SESSION_KEYRING, os.fsencode(name))
    except OSError as error:
        if error.errno not in (1, 38):  # EPERM: a nested container's filter; ENOSYS: no keys
            raise


def keyring_name(container_id: str) -> str:
    """The session keyring that all processes of a container share."""
    return f"_ses.{container_id}"
