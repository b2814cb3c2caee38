"""The daemon's command line: every option, the kind of its value, and its help."""

from __future__ import annotations

import argparse
from typing import NoReturn

import sampan
from sampan.daemon import dockerd_options, network_options, preset_options
from sampan.engine.options import HISTORY_LINES
from sampan.errors import InvalidArgument
from sampan.oci.go_bool import parse_bool

CONFIG_FILE = "/etc/sampan/daemon.json"
DATA_ROOT = "/var/lib/sampan"
EXEC_ROOT = "/run/sampan"
# How long requests under way may take when the daemon ends.
SHUTDOWN_TIMEOUT_S = 2
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


class _Parser(argparse.ArgumentParser):
    """argparse that raises instead of printing its usage over the one line that matters."""

    def error(self, message: str) -> NoReturn:
        raise InvalidArgument(message, hint=f"see '{self.prog} --help'")


def _truth(text: str) -> bool:
    """Of `--debug=false`."""
    truth = parse_bool(text)
    if truth is None:
        raise argparse.ArgumentTypeError(f"invalid boolean: {text}")
    return truth


# Option → the kind of its value.
KINDS: dict[str, type] = {
    "bridge": str,
    "cgroup-parent": str,
    "data-root": str,
    "debug": bool,
    "default-ulimit": list,
    "disk-budget": str,
    "events-max-age": str,
    "events-max-size": str,
    "exec-root": str,
    "firewall-table": str,
    "group": str,
    "http-proxy": str,
    "https-proxy": str,
    "history-lines": int,
    "history-max-age": str,
    "history-max-size": str,
    "host": list,
    "init": bool,
    "insecure-registry": list,
    "label": list,
    "log-level": str,
    "max-concurrent-downloads": int,
    "max-concurrent-uploads": int,
    "max-download-attempts": int,
    "no-proxy": str,
    "oom-score-adjust": int,
    "pidfile": str,
    "registry-mirror": list,
    "respect-host-firewall": bool,
    "shutdown-timeout": int,
    "storage-opt": list,
    "trace-start": bool,
    **preset_options.KINDS,
    **network_options.KINDS,
    **{name: option.kind for name, option in dockerd_options.OPTIONS.items()},
    **dockerd_options.NO_DIFFERENCE,
}
_SHORT = {
    "bridge": "-b",
    "debug": "-D",
    "group": "-G",
    "host": "-H",
    "log-level": "-l",
    "pidfile": "-p",
}
HELP = {
    **preset_options.HELP,
    **network_options.HELP,
    "http-proxy": "Proxy that registries are reached by over HTTP",
    "https-proxy": "Proxy that registries are reached by over HTTPS",
    "no-proxy": "Hosts that are reached without a proxy",
    "oom-score-adjust": "oom_score_adj of the daemon itself, not of containers",
    "shutdown-timeout": f"Seconds that requests under way may take at the daemon's end (default {SHUTDOWN_TIMEOUT_S}, -1: any)",
    "bridge": "Bridge of the default network",
    "cgroup-parent": "Cgroup that holds those of all containers",
    "data-root": f"Root directory of persistent state (default {DATA_ROOT})",
    "debug": "Enable debug mode",
    "default-ulimit": "Default ulimits for containers",
    "disk-budget": "What images may take on the disk, like 20GB; the least recently used go first",
    "events-max-age": "How long events are kept, like 30d or 12h (default 30d)",
    "events-max-size": "What kept events may take on the disk, like 64MiB (the default)",
    "exec-root": f"Root directory of run-time state (default {EXEC_ROOT})",
    "firewall-table": "Name of the engine's own nftables table",
    "group": "Group of the unix sockets (default docker or sampan, where there is one)",
    "history-lines": f"Last lines of output kept of a container that ended (default {HISTORY_LINES})",
    "history-max-age": "How long it is kept how containers ended, like 30d or 12h (default 30d)",
    "history-max-size": "What that may take in the database, like 16MiB (the default)",
    "host": "Daemon sockets to listen on: unix:///path or tcp://address:port",
    "init": "Run an init inside of every container to forward signals and reap processes",
    "insecure-registry": "Do not verify the certificates of this registry (host[:port] or CIDR), and use HTTP if need be",
    "label": "Set key=value labels of the daemon",
    "log-level": f"Set the logging level ({', '.join(LOG_LEVELS)})",
    "max-concurrent-downloads": "Layers downloaded at once (default 3)",
    "max-concurrent-uploads": "Layers uploaded at once (default 5)",
    "max-download-attempts": "Tries of a layer's download (default 5)",
    "pidfile": "Path of the PID file (default sampand.pid in the exec root)",
    "respect-host-firewall": "Published ports are behind the host's own rules for incoming packets (default true)",
    "registry-mirror": "Ask this mirror (URL) before Docker Hub",
    "storage-opt": "Option of the storage driver: overlay2.size=20G limits what each container may write",
    "trace-start": "Log where the time of each container start goes",
}


def parser(program: str) -> argparse.ArgumentParser:
    """Of all options; what is not given is not in its result. A mistake is an InvalidArgument."""
    made = _Parser(
        prog=program,
        description="A Docker-compatible container engine",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    made.add_argument(
        "--config-file",
        dest="config-file",
        metavar="FILE",
        help=f"Daemon configuration file (default {CONFIG_FILE})",
    )
    for name, kind in sorted(KINDS.items()):
        flags = [_SHORT[name], f"--{name}"] if name in _SHORT else [f"--{name}"]
        if kind is bool:
            made.add_argument(
                *flags,
                dest=name,
                nargs="?",
                const=True,
                type=_truth,
                help=HELP.get(name, argparse.SUPPRESS),
                metavar="",
            )
        elif kind in (list, dict):
            made.add_argument(
                *flags,
                dest=name,
                action="append",
                help=HELP.get(name, argparse.SUPPRESS),
                metavar="X",
            )
        else:
            made.add_argument(
                *flags, dest=name, type=kind, help=HELP.get(name, argparse.SUPPRESS), metavar="X"
            )
    made.add_argument(
        "--validate", action="store_true", help="Validate the daemon configuration and exit"
    )
    made.add_argument(
        "-v", "--version", action="version", version=f"Sampan version {sampan.__version__}"
    )
    return made
