"""`--sysctl`: only what belongs to a namespace of the container's own.

The CLI refuses all others itself; a client of the API can send any. The texts are runc's, which says
them at start; here they come with create. Names are sysctl.d(5)'s, with dots or slashes.
"""

from __future__ import annotations

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


def _dotted(name: str) -> str:
    """`net/ipv4/conf/eth0.1/forwarding` with the separators changed, as sysctl.d(5) has it."""
    first = next((character for character in name if character in "./"), ".")
    return name if first == "." else name.translate(_SWAP)
