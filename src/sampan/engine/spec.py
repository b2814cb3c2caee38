"""A container as the OCI runtime configuration: a pure function of its record and the machine.

Source: OCI runtime-spec config.md and config-linux.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sampan.engine import defaults, devices
from sampan.engine.container import Record
from sampan.engine.model import ExecConfig, HostConfig
from sampan.engine.mounts import oci_mount
from sampan.engine.resources import oci_resources
from sampan.engine.security import SecurityOptions, parse_security_options
from sampan.engine.sharing import SHM, donor_name
from sampan.linux.capabilities import NAMES

OCI_VERSION = "1.2.0"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of the machine and the engine a configuration depends on.

    `namespace_paths` maps an OCI namespace type to the namespace to join, an empty text to the
    host's own; types that are not in it are made new. `apparmor` is the profile to run
    under, empty for none. `files` are (source, target) of the files that the engine keeps for the
    container (`/etc/hosts` …). `mount_sources` are paths to mount at a destination instead of the
    mount's own source. `link_variables` are the environment's that tell of linked containers.
    """

    apparmor: str = ""
    files: Sequence[tuple[str, str]] = ()
    namespace_paths: dict[str, str] = field(default_factory=dict)
    default_ulimits: Sequence[tuple[str, int, int]] = ()
    mount_sources: Mapping[str, str] = field(default_factory=dict)
    link_variables: Sequence[str] = ()


def oci_config(record: Record, surroundings: Surroundings) -> dict[str, Any]:
    """The configuration without `linux.seccomp`, which the caller adds where it is wanted.

    Raises:
        NotFound: a device that is to be passed in does not exist.
    """
    config, host = record.config, record.host_config
    security = parse_security_options(host.security_opt)
    result: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "process": _process(record, security, surroundings),
        "root": {"path": "rootfs", "readonly": host.readonly_rootfs},
        "mounts": _mounts(record, surroundings),
        "linux": _linux(record, surroundings),
    }
    if "uts" not in surroundings.namespace_paths:
        result["hostname"] = record.hostname
        if config.domainname:
            result["domainname"] = config.domainname
    if host.annotations:
        result["annotations"] = dict(host.annotations)
    return result


def exec_process(
    record: Record, request: ExecConfig, arguments: list[str], links: Sequence[str] = ()
) -> dict[str, Any]:
    """The OCI `process` of a further process in the container."""
    security = parse_security_options(record.host_config.security_opt)
    environment = [*record_environment(record, links), *request.env]
    if request.tty:
        environment = with_default(environment, "TERM", "xterm")
    return _process_values(
        record,
        security,
        terminal=request.tty,
        arguments=arguments,
        environment=last_of_each(environment),
        user=request.user or record.config.user,
        cwd=request.working_dir or record.config.working_dir or "/",
        capabilities=sorted(NAMES) if request.privileged else None,
    )


def record_environment(record: Record, links: Sequence[str] = ()) -> list[str]:
    """PATH and HOSTNAME, what links say, then what image and user set."""
    environment = [f"PATH={defaults.PATH}", f"HOSTNAME={record.hostname}"]
    return last_of_each([*environment, *links, *record.config.env])


def last_of_each(environment: Sequence[str]) -> list[str]:
    """`KEY=value` entries, each key once, the last value at the first place. A key without `=`
    removes the variable, as Docker has it."""
    values: dict[str, str | None] = {}
    for entry in environment:
        key, equals, value = entry.partition("=")
        values[key] = value if equals else None
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def with_default(environment: Sequence[str], key: str, value: str) -> list[str]:
    """The environment with `key` set, where it was not."""
    if any(entry.partition("=")[0] == key for entry in environment):
        return [*environment]
    return [*environment, f"{key}={value}"]


def _process(
    record: Record, security: SecurityOptions, surroundings: Surroundings
) -> dict[str, Any]:
    environment = record_environment(record, surroundings.link_variables)
    if record.config.tty:
        environment = with_default(environment, "TERM", "xterm")
    process = _process_values(
        record,
        security,
        terminal=record.config.tty,
        arguments=[record.path, *record.args],
        environment=environment,
        user=record.config.user,
        cwd=record.config.working_dir or "/",
    )
    rlimits = _rlimits(record.host_config, surroundings)
    if rlimits:
        process["rlimits"] = rlimits
    if surroundings.apparmor:
        process["apparmorProfile"] = surroundings.apparmor
    return process


def _process_values(
    record: Record,
    security: SecurityOptions,
    *,
    terminal: bool,
    arguments: list[str],
    environment: list[str],
    user: str,
    cwd: str,
    capabilities: list[str] | None = None,
) -> dict[str, Any]:
    held = record.capabilities if capabilities is None else capabilities
    process: dict[str, Any] = {
        "terminal": terminal,
        "user": _user(user, record.host_config),
        "args": arguments,
        "env": environment,
        "cwd": cwd,
        # Nothing is inheritable: CVE-2022-24769. A user other than root gains capabilities by
        # file capabilities only, from the bounding set.
        "capabilities": {
            "bounding": held,
            "effective": held,
            "permitted": held,
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": record.host_config.oom_score_adj,
    }
    return process


def _user(user: str, host: HostConfig) -> dict[str, Any]:
    """Names are looked up by the runtime, where the container's own passwd file is."""
    value: dict[str, Any] = {"uid": 0, "gid": 0, "username": user}
    if host.group_add:
        value["additionalGroups"] = [*host.group_add]
    return value


def _rlimits(host: HostConfig, surroundings: Surroundings) -> list[dict[str, Any]]:
    limits = {name: (soft, hard) for name, soft, hard in surroundings.default_ulimits}
    limits |= {limit.name: (limit.soft, limit.hard) for limit in host.ulimits or ()}
    unlimited = (1 << 64) - 1
    return [
        {
            "type": f"RLIMIT_{name.upper()}",
            "soft": soft if soft >= 0 else unlimited,
            "hard": hard if hard >= 0 else unlimited,
        }
        for name, (soft, hard) in limits.items()
    ]


def _mounts(record: Record, surroundings: Surroundings) -> list[dict[str, Any]]:
    """Defaults, the engine's files, then the user's; a user's mount replaces a default one."""
    host = record.host_config
    wanted = {mount.destination for mount in record.mounts}
    base = defaults.mounts(
        privileged=host.privileged,
        shm_bytes=host.shm_size or defaults.SHM_BYTES,
        ipc_host=host.ipc_mode == "host",
        shm_source=surroundings.mount_sources.get(SHM, "") if donor_name(host.ipc_mode) else "",
    )
    if surroundings.namespace_paths.get("network") == "" and not host.privileged:
        # sysfs shows the network namespace it is mounted in; the host's own stays read-only.
        base = [_with_options(mount, "ro") if mount["type"] == "sysfs" else mount for mount in base]
    mounts = [mount for mount in base if mount["destination"] not in wanted]
    if host.ipc_mode == "none":
        mounts = [mount for mount in mounts if mount["destination"] != "/dev/shm"]
    for source, target in surroundings.files:
        if target not in wanted:
            options = ["rbind", "rprivate"] + (["ro"] if host.readonly_rootfs else [])
            mounts.append(
                {"destination": target, "type": "bind", "source": source, "options": options}
            )
    sources = surroundings.mount_sources
    return [
        *mounts,
        *(oci_mount(mount, sources.get(mount.destination, "")) for mount in record.mounts),
    ]


def _with_options(mount: dict[str, Any], option: str) -> dict[str, Any]:
    options = mount["options"]
    return mount if option in options else {**mount, "options": [*options, option]}


def _linux(record: Record, surroundings: Surroundings) -> dict[str, Any]:
    host = record.host_config
    nodes, rules = devices.nodes_and_rules(host)
    linux: dict[str, Any] = {
        "namespaces": _namespaces(record, surroundings),
        "cgroupsPath": record.cgroup_path,
        "resources": oci_resources(host, rules),
    }
    if nodes:
        linux["devices"] = nodes
    if host.sysctls:
        linux["sysctl"] = dict(host.sysctls)
    if not host.privileged:
        masked, readonly = host.masked_paths, host.readonly_paths
        linux["maskedPaths"] = [*defaults.MASKED_PATHS] if masked is None else masked
        linux["readonlyPaths"] = [*defaults.READONLY_PATHS] if readonly is None else readonly
    propagations = {mount.propagation for mount in record.mounts if mount.type == "bind"}
    if propagations & {"shared", "rshared"}:
        linux["rootfsPropagation"] = "shared"
    elif propagations & {"slave", "rslave"}:
        linux["rootfsPropagation"] = "rslave"
    return linux


def _namespaces(record: Record, surroundings: Surroundings) -> list[dict[str, str]]:
    namespaces = []
    for kind in ("mount", "uts", "ipc", "pid", "network", "cgroup"):
        path = surroundings.namespace_paths.get(kind)
        if path is None:
            namespaces.append({"type": kind})
        elif path:
            namespaces.append({"type": kind, "path": path})
    return namespaces


def cgroup_namespace_is_private(host: HostConfig, cgroup_version: int) -> bool:
    """Docker's default: private on cgroup v2, the host's on v1 and for privileged containers."""
    if host.cgroupns_mode:
        return host.cgroupns_mode == "private"
    return cgroup_version == 2 and not host.privileged
