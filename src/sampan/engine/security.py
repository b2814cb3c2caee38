"""Capabilities and `--security-opt`: what the user said, checked and made explicit."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.engine import defaults
from sampan.engine.model import HostConfig
from sampan.errors import InvalidArgument, Unsupported
from sampan.linux.capabilities import NAMES

UNCONFINED = "unconfined"


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """`--security-opt`, parsed. `seccomp` is `builtin`, `unconfined` or a profile's JSON text;
    `apparmor` a profile's name, empty for the default one."""

    no_new_privileges: bool = False
    seccomp: str = "builtin"
    apparmor: str = ""


def parse_security_options(options: list[str] | None) -> SecurityOptions:
    """Parse `SecurityOpt`, in which `=` and, from old clients, `:` separate key and value.

    Raises:
        InvalidArgument: with dockerd's text.
        Unsupported: an SELinux label, which would not be set.
    """
    no_new_privileges, seccomp, apparmor = False, "builtin", ""
    for option in options or ():
        if option == "no-new-privileges":
            no_new_privileges = True
            continue
        if option == "disable":
            continue
        separator = "=" if "=" in option else ":"
        key, found, value = option.partition(separator)
        if not found:
            raise InvalidArgument(f'invalid --security-opt 1: "{option}"')
        match key:
            case "label":
                # Whoever asks for a label is not to believe in one that is not there.
                if value != "disable":
                    raise Unsupported(f"HostConfig.SecurityOpt {option} is not built yet")
            case "apparmor":
                apparmor = value
            case "seccomp":
                seccomp = value
            case "no-new-privileges":
                if value.lower() not in ("true", "false", "1", "0", "t", "f"):
                    raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
                no_new_privileges = value.lower() in ("true", "1", "t")
            case _:
                raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
    return SecurityOptions(no_new_privileges, seccomp, apparmor)


def effective_capabilities(host: HostConfig) -> list[str]:
    """The capabilities of the container's process, sorted; see capabilities(7).

    Raises:
        InvalidArgument: an unknown capability, with dockerd's text.
    """
    added = _normalised(host.cap_add, "CapAdd")
    dropped = _normalised(host.cap_drop, "CapDrop")
    if host.privileged:
        return sorted(NAMES)
    if "ALL" in added:
        return sorted(set(NAMES) - dropped)
    if "ALL" in dropped:
        return sorted(added)
    return sorted(set(defaults.CAPABILITIES) - dropped | added)


def _normalised(names: list[str] | None, field: str) -> set[str]:
    capabilities = set()
    for name in names or ():
        upper = name.upper()
        full = upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"
        if full != "ALL" and full not in NAMES:
            raise InvalidArgument(f'invalid {field}: unknown capability: "{full}"')
        capabilities.add(full)
    return capabilities
