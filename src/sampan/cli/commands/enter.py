"""`sampan enter`: a command in all namespaces of a container's first process, from the host.

The engine is asked which process that is, if it answers; the container's shim, if it does not. The
command has root's capabilities of the host inside the container's namespaces and no seccomp filter: it
is a tool for looking into a container that is in trouble; `sampan exec` is the one for everyday. What
it executes comes from the container all the same, so

- it is in the container's cgroup, and its limits hold;
- it never holds the caller's terminal, into which it could type commands (TIOCSTI): it has a session
  and, where the caller has a terminal, a pseudoterminal of the container's own.

    caller's terminal <-- raw --> sampan enter <-- master, slave --> [cgroup] child [setns] --> command

A process that enters a hostile container must not be one that the container can overwrite
(CVE-2019-5736): the interpreter is executed again from a read-only mount first, and is not dumpable
from before the namespaces are joined until the command is executed.
"""

from __future__ import annotations

import os
import sys

from sampan.cli import session, signals
from sampan.cli.client import quote
from sampan.cli.confinement import Confinement
from sampan.cli.failures import CommandError, ConnectError
from sampan.cli.terminal import FORWARDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call
    from sampan.linux.cgroups.base import Cgroup

FLAGS = (
    ("confined", "", "bool", "", "With no more than the container's capabilities, its seccomp filter and AppArmor profile, and no new privileges"),
)  # fmt: skip
SHELLS = ("bash", "sh")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(call: Call) -> int:
    """Enter a container; the status is the command's."""
    if os.geteuid() != 0:
        raise CommandError("only root can enter a container's namespaces: use sudo")
    _run_from_readonly_interpreter()
    name, *command = call.args
    pid, directory = _first_process(call, name)
    confinement = Confinement(pid, directory) if call.on("confined") else None
    cgroup = _cgroup(pid, name)
    try:
        pidfd = os.pidfd_open(pid)
        environ = _environment(pid, call.environ)
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY)
    except (ProcessLookupError, FileNotFoundError):
        raise CommandError(f"container {name} is not running") from None
    terminal = session.open_terminal(root)
    candidates = [command] if command else [[shell] for shell in SHELLS]

    def entered() -> int:
        try:
            cgroup.add(os.getpid())
            _join(pid, pidfd, confinement)
        except (ProcessLookupError, FileNotFoundError):
            os.write(2, f"container {name} is not running\n".encode())
            return 1
        return _execute(candidates, environ, confinement)

    return session.run(entered, terminal)


def _cgroup(pid: int, name: str) -> Cgroup:
    """The cgroup that the container's first process is in, which may be below the container's own.

    Raises:
        CommandError: it is frozen, and so would be whoever enters.
    """
    from sampan.linux.cgroups.layout import parse_own
    from sampan.linux.cgroups.manager import open_cgroup

    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            own = parse_own(file.read())
    except (ProcessLookupError, FileNotFoundError):
        raise CommandError(f"container {name} is not running") from None
    cgroup = open_cgroup(own.get("memory") or own.get("pids") or own[""])
    if cgroup.frozen():
        raise CommandError(f"container {name} is paused, unpause it first")
    return cgroup


def _run_from_readonly_interpreter() -> None:
    from sampan.linux import selfexec

    if selfexec.interpreter_is_readonly():
        return
    fd = selfexec.readonly_interpreter()
    os.execve(f"/proc/self/fd/{fd}", [sys.executable, *sys.orig_argv[1:]], dict(os.environ))


def _first_process(call: Call, name: str) -> tuple[int, str]:
    """Its pid, and the directory with the container's configuration."""
    try:
        client = call.running_client()
        found = client.call("GET", f"/containers/{quote(name)}/json")
        state = found["State"]
    except ConnectError:
        from sampan.cli import whereabouts

        return whereabouts.first_process(name, call.environ)
    if not state["Running"] or not state["Pid"]:
        raise CommandError(f"container {name} is not running")
    return int(state["Pid"]), os.path.dirname(found["HostsPath"])


def _environment(pid: int, ours: dict[str, str]) -> dict[str, str]:
    """The container's environment, with the terminal that is here."""
    with open(f"/proc/{pid}/environ", "rb") as file:
        lines = file.read().split(b"\0")
    pairs = (line.decode("utf-8", "surrogateescape").partition("=") for line in lines if line)
    environ = {name: value for name, _, value in pairs if name}
    environ.setdefault("PATH", DEFAULT_PATH)
    environ.setdefault("HOME", "/root")
    if "TERM" in ours:
        environ["TERM"] = ours["TERM"]
    return environ


def _join(pid: int, pidfd: int, confinement: Confinement | None) -> None:
    """Join every namespace of the process that is not this process's own, all at once."""
    from sampan.linux import namespaces, syscalls

    kinds = [kind for kind in namespaces.available() if not namespaces.same(pid, "self", kind)]
    flags = 0
    for kind in kinds:
        flags |= namespaces.FLAGS[kind]
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    # From here on nothing is imported: what would be found is the container's.
    sys.meta_path.clear()
    if flags:
        syscalls.setns(pidfd, flags)
    # Neither the command nor a link to /proc/self/fd/N shall lead to what the caller had open.
    # The machine's /proc alone is kept, for whoever executes it to use and close before.
    if confinement is not None and confinement.proc >= 0:
        if confinement.proc != 3:  # dup3(2) refuses to copy one onto itself
            confinement.proc = os.dup2(confinement.proc, 3, inheritable=False)
        syscalls.close_range(4)
    else:
        syscalls.close_range(3)
    if "user" in kinds:
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    os.chdir("/")


def _execute(
    candidates: list[list[str]], environ: dict[str, str], confinement: Confinement | None
) -> int:
    """Fork into the PID namespace, execute the first candidate that is there, wait for it."""
    child = os.fork()
    if child == 0:
        try:
            if confinement is not None:
                confinement.apply()
            _child(candidates, environ)
        finally:
            os._exit(126)
    # What the terminal or our parent sends to the session is the command's to answer.
    for number in FORWARDED:
        signals.raw.signal(number, signals.raw.SIG_IGN)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _child(candidates: list[list[str]], environ: dict[str, str]) -> None:
    failure = "executable file not found in $PATH"
    status = 127
    for command in candidates:
        for path in _paths(command[0], environ["PATH"]):
            try:
                os.execve(path, command, environ)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                failure, status = str(error.strerror).lower(), 126
    shown = candidates[-1][0]
    os.write(2, f'sampan: exec: "{shown}": {failure}\n'.encode("utf-8", "surrogateescape"))
    os._exit(status)


def _paths(name: str, path: str) -> list[str]:
    if "/" in name:
        return [name]
    return [f"{folder or '.'}/{name}" for folder in path.split(":")]
