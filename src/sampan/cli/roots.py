"""Where the engine of this machine keeps its things, as far as a client has to know."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_EXEC_ROOT = "/run/sampan"
DEFAULT_DATA_ROOT = "/var/lib/sampan"


def exec_root(environ: Mapping[str, str]) -> str:
    """Sockets and the pid file; SAMPAN_EXEC_ROOT names another."""
    return environ.get("SAMPAN_EXEC_ROOT") or DEFAULT_EXEC_ROOT


def data_root(environ: Mapping[str, str]) -> str:
    """The database and the containers; SAMPAN_DATA_ROOT names another."""
    return environ.get("SAMPAN_DATA_ROOT") or DEFAULT_DATA_ROOT


def pid_file(environ: Mapping[str, str]) -> str:
    """Whose first line is the daemon's pid."""
    return f"{exec_root(environ)}/sampand.pid"
