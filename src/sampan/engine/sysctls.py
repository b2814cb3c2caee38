"""`--sysctl`, and those of one interface: only what belongs to a namespace of the container's own.

The CLI refuses all others itself; a client of the API can send any. The texts are runc's, which says
them at start; here they come with create. Names are sysctl.d(5)'s, with dots or slashes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sampan.engine.model import HostConfig
from sampan.errors import InvalidArgument

# Those of the IPC namespace, see ipc_namespaces(7).
_IPC = frozenset(
    f"kernel.{name}"
    for name in (
        *("msgmax", "msgmnb", "msgmni", "sem"),
        *("shmall", "shmmax", "shmmni", "shm_rmid_forced"),
    )
)
_SWAP = str.maketrans("./", "/.")
OF_ENDPOINT = "com.docker.network.endpoint.sysctls"
# Capital letters do not come through the docker CLI.
_OF_INTERFACE = re.compile(
    r"net\.((?:ipv4|ipv6|mpls)\.\w+)\.(?:IFNAME|ifname)\.(\w+)=(.*)", re.ASCII
)


def check_sysctls(host: HostConfig) -> None:
    """Refuse what would change the machine, or what the engine sets itself.

    Raises:
        InvalidArgument: with runc's text.
    """
    for name in host.sysctls or ():
        dotted = _dotted(name)
        if dotted in _IPC or dotted.startswith("fs.mqueue."):
            if host.ipc_mode == "host":
                raise InvalidArgument(f'sysctl "{name}" is not allowed in the hosts ipc namespace')
        elif dotted.startswith("net."):
            if host.network_mode == "host":
                raise InvalidArgument(f'sysctl "{name}" not allowed in host network namespace')
        elif dotted == "kernel.hostname" and host.uts_mode != "host":
            raise InvalidArgument(
                f'sysctl "{name}" is not allowed as it conflicts with the OCI "hostname" field'
            )
        elif dotted != "kernel.domainname" or host.uts_mode == "host":
            raise InvalidArgument(f'sysctl "{name}" is not in a separate kernel namespace')
        if any(part in ("", ".", "..") for part in dotted.translate(_SWAP).split("/")):
            raise InvalidArgument(f'sysctl "{name}" is not a name')


def endpoint_sysctls(options: Mapping[str, str] | None) -> dict[str, str]:
    """What a driver option asks for one interface: paths below /proc/sys/net, with `IFNAME`, and values.

    Raises:
        InvalidArgument: with dockerd's text, which says how it is written.
    """
    found = {}
    for text in (options or {}).get(OF_ENDPOINT, "").split(","):
        match = _OF_INTERFACE.fullmatch(text)
        if match is not None:
            found[f"{match[1].replace('.', '/')}/IFNAME/{match[2]}"] = match[3]
        elif text or found:
            raise InvalidArgument(
                f"unrecognised network interface sysctl '{text}'; represent 'net.X.Y.ethN.Z=V' as "
                "'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )
    return found


def _dotted(name: str) -> str:
    """`net/ipv4/conf/eth0.1/forwarding` with the separators changed, as sysctl.d(5) has it."""
    first = next((character for character in name if character in "./"), ".")
    return name if first == "." else name.translate(_SWAP)
