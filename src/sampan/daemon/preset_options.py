"""dockerd's options about what containers get where nobody says otherwise, as an `engine.preset.Preset`."""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
from typing import Any

from sampan.engine.log_options import check_log_config
from sampan.engine.model import LogConfig
from sampan.engine.preset import Preset
from sampan.engine.runtimes import ALIASES, Runtimes
from sampan.engine.seccomp_profile import parse_profile
from sampan.errors import InvalidArgument

KINDS: dict[str, type] = {
    "add-runtime": list,
    "default-cgroupns-mode": str,
    "default-ipc-mode": str,
    "default-runtime": str,
    "default-shm-size": str,
    "dns": list,
    "dns-opt": list,
    "dns-search": list,
    "log-driver": str,
    "log-opt": list,
    "no-new-privileges": bool,
    "seccomp-profile": str,
}
HELP = {
    "add-runtime": "Another OCI runtime: name=/path",
    "default-cgroupns-mode": "Default mode of cgroup namespaces (host, private)",
    "default-ipc-mode": "Default mode of IPC namespaces (private, shareable)",
    "default-runtime": "Default OCI runtime for containers (default sampan)",
    "default-shm-size": "Default size of /dev/shm (default 64MiB)",
    "dns": "DNS server of containers that name none",
    "dns-opt": "DNS option, likewise",
    "dns-search": "DNS search domain, likewise",
    "log-driver": "Default driver for container logs (default json-file)",
    "log-opt": "Default options of that driver: key=value",
    "no-new-privileges": "Set no-new-privileges by default for new containers",
    "seccomp-profile": 'Path of the default seccomp profile; "unconfined" for none',
}
FILE_NAMES = {"add-runtime": "runtimes", "dns-opt": "dns-opts", "log-opt": "log-opts"}

BUILTIN, UNCONFINED = "builtin", "unconfined"
_MODES = {
    "default-cgroupns-mode": ("", "host", "private"),
    "default-ipc-mode": ("", "private", "shareable"),
}
_SIZE = re.compile(r"(\d{1,15})(?: ?([kmgt])i?b?|b)?", re.IGNORECASE)


def of_file(key: str, value: Any) -> Any:
    """A value of `daemon.json` in the form that the command line gives: objects become `key=value`,
    a size may be a number."""
    if key == "log-opts" and isinstance(value, dict):
        if all(isinstance(text, str) for text in value.values()):
            return [f"{name}={text}" for name, text in value.items()]
        raise InvalidArgument(f"log-opts: every value has to be a string, not {json.dumps(value)}")
    if key == "runtimes" and isinstance(value, dict):
        return [_runtime_of_file(name, runtime) for name, runtime in value.items()]
    if key == "default-shm-size" and type(value) is int:
        return str(value)
    return value


def preset(values: dict[str, Any]) -> Preset:
    """What the options say.

    Raises:
        InvalidArgument: a value that cannot be meant; in dockerd's words where it has some.
    """
    for name, modes in _MODES.items():
        if values.get(name, "") not in modes:
            raise InvalidArgument(
                f"{name} {values[name]} is not supported: use {' or '.join(modes[1:])}"
            )
    for address in values.get("dns", ()):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise InvalidArgument(f"{address} is not an ip address") from None
    driver = values.get("log-driver", "")
    options = _pairs(values.get("log-opt", ()))
    check_log_config(LogConfig(type=driver, config=dict(options)))
    return Preset(
        cgroupns_mode=values.get("default-cgroupns-mode", ""),
        dns=tuple(values.get("dns", ())),
        dns_options=tuple(values.get("dns-opt", ())),
        dns_search=tuple(values.get("dns-search", ())),
        ipc_mode=values.get("default-ipc-mode", ""),
        log_driver=driver or ("json-file" if options else ""),
        log_options=options,
        no_new_privileges=values.get("no-new-privileges", False),
        runtime=values.get("default-runtime", ""),
        seccomp_profile=_profile(values.get("seccomp-profile", "")),
        shm_bytes=_size(values.get("default-shm-size", "")),
    )


def _runtime_of_file(name: str, value: Any) -> str:
    """`{"path": …, "runtimeArgs": […]}` as the command line spells it."""
    known = {"path", "runtimeArgs"}
    if not isinstance(value, dict) or not set(value) <= known or not value.get("path"):
        raise InvalidArgument(f"runtimes: {name} has to have a path, and perhaps runtimeArgs")
    arguments = value.get("runtimeArgs") or []
    if not all(isinstance(text, str) for text in [value["path"], *arguments]):
        raise InvalidArgument(f"runtimes: {name}: path and runtimeArgs are strings")
    return f"{name}={shlex.join([value['path'], *arguments])}"


def runtimes(values: dict[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(name, command) of each runtime that is added; the default has to be one that there is.

    Raises:
        InvalidArgument: a value that cannot be meant.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in values.get("add-runtime", ()):
        name, _, rest = text.partition("=")
        command = tuple(shlex.split(rest))
        if not (name and command and command[0].startswith("/")):
            raise InvalidArgument(
                f"invalid value for --add-runtime: {text}: it has to be name=/path"
            )
        if name in ALIASES:
            raise InvalidArgument(f"runtime name '{name}' is reserved")
        found[name] = command
    default = values.get("default-runtime", "")
    if default and default not in ALIASES and not Runtimes(found).command(default):
        raise InvalidArgument(f"specified default runtime '{default}' does not exist")
    return tuple(found.items())


def _pairs(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise InvalidArgument(f"invalid value for --log-opt: {text}: it has to be key=value")
    return dict(text.split("=", 1) for text in texts)


def _size(text: str) -> int:
    if not text:
        return 0
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(match[1]) << (10 * (" kmgt".index((match[2] or " ").lower())))


def _profile(path: str) -> str:
    """The profile's text: a container that is made then keeps it, whatever becomes of the file.

    Raises:
        InvalidArgument: the file cannot be read, or is no profile.
    """
    if path in ("", BUILTIN):
        return ""
    if path == UNCONFINED:
        return UNCONFINED
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidArgument(f"opening seccomp profile ({path}) failed: {reason}") from error
    parse_profile(text, [])
    return text
