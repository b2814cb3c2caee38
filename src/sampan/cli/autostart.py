"""Starting the engine where none listens, so that no command needs a set-up step first.

Only the engine of this machine is started, never one at an address that the user gave. The daemon is
a session of its own, so that closing the terminal does not end it; its messages go to
`<exec root>/sampand.log`. SAMPAN_DAEMON_OPTIONS are further options of it; SAMPAN_AUTOSTART=0 turns
all of this off.
"""

from __future__ import annotations

import _socket
import os
import select
import sys

from sampan.cli import roots
from sampan.cli.failures import ConnectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.address import Address
    from sampan.cli.call import Call

READY_TIMEOUT_MS = 30_000
LOOK_AGAIN_MS = 200
PROGRAM = "import sys; from sampan.daemon.main import main; sys.exit(main())"


def start_engine(call: Call, address: Address) -> None:
    """Start the daemon and return when it takes connections.

    Raises:
        ConnectError: it may not be started, or does not come up; its own last words are the hint.
    """
    if call.environ.get("SAMPAN_AUTOSTART") == "0":
        raise _refused(address, "SAMPAN_AUTOSTART=0 forbids to start one: run 'sampan daemon'")
    if os.geteuid() != 0:
        raise _refused(address, "only root can start the engine: run 'sudo sampan daemon'")
    call.complain(f"sampan: no engine at {address.url}, starting one")
    root = roots.exec_root(call.environ)
    os.makedirs(root, mode=0o711, exist_ok=True)
    log_path = f"{root}/sampand.log"
    notices = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    notices.bind("")  # an abstract name of the kernel's choosing
    name = "@" + notices.getsockname()[1:].decode()
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        pid = _spawn(call, log, {**call.environ, "NOTIFY_SOCKET": name})
    finally:
        os.close(log)
    _await_ready(address, pid, notices, log_path)


def daemon_argv(arguments: list[str]) -> list[str]:
    """The command that is the daemon: a program of its own, whose code the client never loads.

    The interpreter runs isolated: what stands in the working directory is not the daemon's.
    """
    return [sys.executable, "-I", "-c", PROGRAM, *arguments]


def daemon_arguments(call: Call) -> list[str]:
    """The daemon's options for the roots that the environment names."""
    environ = call.environ
    arguments = []
    if "SAMPAN_EXEC_ROOT" in environ:
        arguments += ["--exec-root", roots.exec_root(environ)]
    if "SAMPAN_DATA_ROOT" in environ:
        arguments += ["--data-root", roots.data_root(environ)]
    return arguments + environ.get("SAMPAN_DAEMON_OPTIONS", "").split()


def _spawn(call: Call, log: int, environ: dict[str, str]) -> int:
    """The daemon, started with nothing of this process but its environment; its pid."""
    argv = daemon_argv(daemon_arguments(call))
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    actions = [
        (os.POSIX_SPAWN_DUP2, null, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]
    try:
        return os.posix_spawn(sys.executable, argv, environ, file_actions=actions, setsid=True)
    finally:
        os.close(null)


def _await_ready(address: Address, pid: int, notices: _socket.socket, log_path: str) -> None:
    """Return when the daemon says READY=1, or when another one that was quicker listens."""
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(notices.fileno(), select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    try:
        for _ in range(READY_TIMEOUT_MS // LOOK_AGAIN_MS):
            events = dict(poll.poll(LOOK_AGAIN_MS))
            if notices.fileno() in events and b"READY=1" in notices.recv(4096):
                return
            if _listens(address):
                return
            if pidfd in events:
                os.waitpid(pid, 0)
                raise _refused(address, _last_words(log_path))
        raise _refused(address, f"the engine does not come up; see {log_path}")
    finally:
        os.close(pidfd)
        notices.close()


def _listens(address: Address) -> bool:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(address.path)
    except OSError:
        return False
    finally:
        sock.close()
    return True


def _last_words(log_path: str) -> str:
    with open(log_path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file.read().splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("sampand: ")]
    return (told or lines or [f"the engine ended at once; see {log_path}"])[-1]


def _refused(address: Address, hint: str) -> ConnectError:
    return ConnectError(
        f"Cannot connect to the Docker daemon at {address.url}. Is the docker daemon running?",
        hint=hint,
    )
