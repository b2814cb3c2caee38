"""A container's first process, found without the engine: its database and the shim's own word.

The database says which ID a name has; the shim that listens at `<exec root>/shims/<id>.sock` says
which process the container's first one is. Both outlive the daemon.
"""

from __future__ import annotations

import os

from sampan.cli import roots
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_HEX = frozenset("0123456789abcdef")
ANSWER_TIMEOUT_S = 5.0


def first_process(name: str, environ: Mapping[str, str]) -> tuple[int, str]:
    """The pid of the container's first process, and the container's directory.

    Raises:
        CommandError: there is no such container, or it does not run.
    """
    identifier = _identifier(name.removeprefix("/"), environ)
    path = f"{roots.exec_root(environ)}/shims/{identifier}.sock"
    from sampan.errors import RuntimeFailure
    from sampan.linux import seqpacket
    from sampan.shim import protocol

    try:
        plain = seqpacket.connect(path)
    except OSError:
        raise CommandError(f"container {name} is not running") from None
    import socket

    with socket.socket(fileno=plain.detach()) as sock:
        sock.settimeout(ANSWER_TIMEOUT_S)
        try:
            protocol.send(sock, {"type": "hello", "seq": 1, "version": protocol.PROTOCOL_VERSION})
            while received := protocol.receive(sock):
                message, fds = received
                protocol.close_all(fds)
                if message.get("type") == "answer" and message.get("seq") == 1:
                    if message.get("exited"):
                        break
                    directory = f"{roots.data_root(environ)}/containers/{identifier}"
                    return int(message["started"]["pid"]), directory
        except (OSError, RuntimeFailure) as error:
            raise CommandError(f"the shim of {name} does not answer: {error}") from None
    raise CommandError(f"container {name} is not running")


def _identifier(name: str, environ: Mapping[str, str]) -> str:
    """The ID of a container by its name, its ID, or the beginning of its ID."""
    rows = _rows(environ)
    exact = [identifier for identifier, known in rows if name in (known.lstrip("/"), identifier)]
    if exact:
        return exact[0]
    found = [identifier for identifier, _ in rows if identifier.startswith(name)]
    if name and _HEX.issuperset(name) and len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise CommandError(f"more than one container has an ID that begins with {name}")
    raise CommandError(f"No such container: {name}")


def _rows(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    import sqlite3

    path = f"{roots.data_root(environ)}/engine.db"
    if not os.path.exists(path):
        raise CommandError(f"no engine has been at work in {roots.data_root(environ)}")
    database = sqlite3.connect(f"file:{path}?mode=rw", uri=True)
    try:
        return list(database.execute("SELECT id, name FROM containers"))
    except sqlite3.Error as error:
        raise CommandError(f"cannot read {path}: {error}") from None
    finally:
        database.close()
