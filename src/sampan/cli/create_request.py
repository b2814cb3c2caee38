"""The flags of `run` and `create` as the body of POST /containers/create.

The body has the fields that docker's client sends, so that an engine cannot tell the two apart; what
a command line rarely has (ports, mounts, networks, health checks) is read by `create_parts`.
"""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError
from sampan.cli.flags import assignments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

ENDPOINT: dict[str, Any] = {
    "IPAMConfig": None,
    "Links": None,
    "Aliases": None,
    "MacAddress": "",
    "DriverOpts": None,
    "GwPriority": 0,
    "NetworkID": "",
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "DNSNames": None,
}
"""An attachment to a network with no wishes, as docker's client writes it."""


def body(call: Call, *, detach: bool) -> dict[str, Any]:
    """The request for a container from IMAGE [COMMAND] [ARG...].

    Raises:
        CommandError: two flags contradict each other, or a value is none.
    """
    config = _config(call, detach)
    host = _host_config(call)
    config["HostConfig"] = host
    config["NetworkingConfig"] = {"EndpointsConfig": _networks(call, host)}
    return config


def _config(call: Call, detach: bool) -> dict[str, Any]:
    attached = call.items("attach")
    stdin = call.on("interactive")
    chosen = set(attached) or {"stdout", "stderr"} | ({"stdin"} if stdin else set())
    if stdin:
        chosen.add("stdin")
    if detach:
        chosen = set()
    config: dict[str, Any] = {
        "Hostname": call.text("hostname"),
        "Domainname": call.text("domainname"),
        "User": call.text("user"),
        "AttachStdin": "stdin" in chosen,
        "AttachStdout": "stdout" in chosen,
        "AttachStderr": "stderr" in chosen,
        "Tty": call.on("tty"),
        "OpenStdin": stdin,
        "StdinOnce": stdin and "stdin" in chosen,
        "Env": environment(call),
        "Cmd": call.args[1:] or None,
        "Image": call.args[0],
        "Volumes": {},
        "WorkingDir": call.text("workdir"),
        "Entrypoint": [call.text("entrypoint")] if "entrypoint" in call.changed else None,
        "OnBuild": None,
        "Labels": _labels(call),
    }
    if call.text("stop-signal"):
        config["StopSignal"] = call.text("stop-signal")
    if "stop-timeout" in call.changed:
        config["StopTimeout"] = call.number("stop-timeout")
    if call["volume"]:
        _volumes(call, config)
    if call["publish"] or call["expose"]:
        from sampan.cli import create_parts

        config["ExposedPorts"] = create_parts.exposed(call)
    health = _health(call)
    if health is not None:
        config["Healthcheck"] = health
    return config


def _volumes(call: Call, config: dict[str, Any]) -> None:
    from sampan.cli import create_parts

    config["Volumes"] = {path: {} for path in create_parts.anonymous_volumes(call)}


def _health(call: Call) -> dict[str, Any] | None:
    if not any(name.startswith(("health-", "no-health")) for name in call.changed):
        return None
    from sampan.cli import create_parts

    return create_parts.health(call)


def environment(call: Call) -> list[str] | None:
    """`--env-file` and `--env`; a bare name takes the value that it has here."""
    lines = [line for path in call.items("env-file") for line in _file_lines(path, call.environ)]
    for assignment in call.items("env"):
        if "=" not in assignment and assignment in call.environ:
            assignment = f"{assignment}={call.environ[assignment]}"
        lines.append(assignment)
    return lines or None


def _file_lines(path: str, environ: dict[str, str]) -> list[str]:
    """Assignments from a file: no comments, bare names taken from `environ` or left out."""
    lines = []
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        raise CommandError(f"open {path}: {str(error.strerror).lower()}") from None
    except UnicodeDecodeError:
        raise CommandError(f"env file {path} contains invalid utf8 bytes") from None
    for line in text.split("\n"):
        line = line.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name, mark, _ = line.partition("=")
        if not name:
            raise CommandError(f"no variable name on line '{line}'")
        if any(letter.isspace() for letter in name):
            raise CommandError(f"variable '{name}' contains whitespaces")
        if mark:
            lines.append(line)
        elif name in environ:
            lines.append(f"{name}={environ[name]}")
    return lines


def _labels(call: Call) -> dict[str, str]:
    lines = [line for path in call.items("label-file") for line in _file_lines(path, {})]
    return assignments(lines + call.items("label"))


def _host_config(call: Call) -> dict[str, Any]:
    swappiness = call.number("memory-swappiness")
    if swappiness != -1 and not 0 <= swappiness <= 100:
        raise CommandError(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    host: dict[str, Any] = {
        "Binds": _binds(call),
        "ContainerIDFile": call.text("cidfile"),
        "LogConfig": _logging(call),
        "NetworkMode": "default",
        "PortBindings": _port_bindings(call),
        "RestartPolicy": _restart(call),
        "AutoRemove": call.on("rm"),
        "VolumeDriver": call.text("volume-driver"),
        "VolumesFrom": call.items("volumes-from") or None,
        "ConsoleSize": _console_size(),
        **_capabilities(call),
        "CgroupnsMode": _mode(call, "cgroupns", "CGROUP", ("host", "private")),
        "Dns": call.items("dns"),
        "DnsOptions": call.items("dns-option") + call.items("dns-opt"),
        "DnsSearch": call.items("dns-search"),
        "ExtraHosts": call.items("add-host") or None,
        "GroupAdd": call.items("group-add") or None,
        "IpcMode": call.text("ipc"),
        "Cgroup": "",
        "Links": call.items("link") or None,
        "OomScoreAdj": call.number("oom-score-adj"),
        "PidMode": _mode(call, "pid", "PID", ("host",), container=True),
        "Privileged": call.on("privileged"),
        "PublishAllPorts": call.on("publish-all"),
        "ReadonlyRootfs": call.on("read-only"),
        "SecurityOpt": None,
        "UTSMode": _mode(call, "uts", "UTS", ("host",)),
        "UsernsMode": _mode(call, "userns", "USER", ("host",)),
        "ShmSize": call.number("shm-size"),
        "Isolation": call.text("isolation"),
        **_resources(call),
        "MaskedPaths": None,
        "ReadonlyPaths": None,
    }
    if call["security-opt"]:
        from sampan.cli import create_parts

        create_parts.security(call, host)
    _host_extras(call, host)
    return host


def _host_extras(call: Call, host: dict[str, Any]) -> None:
    """The fields that docker leaves out when they are not asked for."""
    if "init" in call.changed:
        host["Init"] = call.on("init")
    if call.text("runtime"):
        host["Runtime"] = call.text("runtime")
    if call["tmpfs"]:
        host["Tmpfs"] = {
            path: rest for path, _, rest in (t.partition(":") for t in call.items("tmpfs"))
        }
    if call["sysctl"]:
        host["Sysctls"] = assignments(call.items("sysctl"))
    if call["annotation"]:
        host["Annotations"] = assignments(call.items("annotation"))
    for flag in ("health-http", "health-tcp", "net-rate", "network-policy", "on-unhealthy", "ttl"):
        if call.text(flag):
            host.setdefault("Annotations", {})[f"sampan.{flag}"] = call.text(flag)
    if call["after"]:
        host.setdefault("Annotations", {})["sampan.after"] = ",".join(call.items("after"))
    if call["storage-opt"]:
        if any("=" not in option for option in call.items("storage-opt")):
            raise CommandError("invalid storage option")
        host["StorageOpt"] = assignments(call.items("storage-opt"))
    if call["mount"]:
        host["Mounts"] = call.values("mount")


def _resources(call: Call) -> dict[str, Any]:
    devices: list[dict[str, str]] = []
    requests = None
    if call["device"] or call["gpus"]:
        from sampan.cli import create_parts

        devices, requests = create_parts.devices(call)
    return {
        "CpuShares": call.number("cpu-shares"),
        "Memory": call.number("memory"),
        "NanoCpus": call.number("cpus"),
        "CgroupParent": call.text("cgroup-parent"),
        "BlkioWeight": call.number("blkio-weight"),
        "BlkioWeightDevice": call.values("blkio-weight-device"),
        "BlkioDeviceReadBps": call.values("device-read-bps"),
        "BlkioDeviceWriteBps": call.values("device-write-bps"),
        "BlkioDeviceReadIOps": call.values("device-read-iops"),
        "BlkioDeviceWriteIOps": call.values("device-write-iops"),
        "CpuPeriod": call.number("cpu-period"),
        "CpuQuota": call.number("cpu-quota"),
        "CpuRealtimePeriod": call.number("cpu-rt-period"),
        "CpuRealtimeRuntime": call.number("cpu-rt-runtime"),
        "CpusetCpus": call.text("cpuset-cpus"),
        "CpusetMems": call.text("cpuset-mems"),
        "Devices": devices,
        "DeviceCgroupRules": call.items("device-cgroup-rule") or None,
        "DeviceRequests": requests,
        "MemoryReservation": call.number("memory-reservation"),
        "MemorySwap": call.number("memory-swap"),
        "MemorySwappiness": call.number("memory-swappiness"),
        "OomKillDisable": call.on("oom-kill-disable"),
        "PidsLimit": call.number("pids-limit"),
        "Ulimits": sorted(call.values("ulimit"), key=lambda limit: limit["Name"]),
        "CpuCount": call.number("cpu-count"),
        "CpuPercent": call.number("cpu-percent"),
        "IOMaximumIOps": call.number("io-maxiops"),
        "IOMaximumBandwidth": call.number("io-maxbandwidth"),
    }


def _binds(call: Call) -> list[str] | None:
    if not call["volume"]:
        return None
    from sampan.cli import create_parts

    return create_parts.binds(call) or None


def _logging(call: Call) -> dict[str, Any]:
    driver, options = call.text("log-driver"), assignments(call.items("log-opt"))
    if driver == "none" and options:
        raise CommandError("invalid logging opts for driver none")
    return {"Type": driver, "Config": options}


def _port_bindings(call: Call) -> dict[str, Any]:
    if not call["publish"]:
        return {}
    from sampan.cli import create_parts

    return create_parts.bindings(call)


def _capabilities(call: Call) -> dict[str, Any]:
    """Full names, sorted; ALL covers the rest, and what is both added and dropped is added."""
    added, dropped = (
        {_capability(name) for name in call.items(flag)} for flag in ("cap-add", "cap-drop")
    )
    added = {"ALL"} if "ALL" in added else added
    dropped = {"ALL"} if "ALL" in dropped else dropped
    return {"CapAdd": sorted(added) or None, "CapDrop": sorted(dropped - added) or None}


def _capability(name: str) -> str:
    name = name.strip().upper()
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def _restart(call: Call) -> dict[str, Any]:
    policy = restart_policy(call.text("restart"))
    if call.on("rm") and policy["Name"] not in ("no", ""):
        raise CommandError("conflicting options: cannot specify both --restart and --rm")
    return policy


def restart_policy(text: str) -> dict[str, Any]:
    """`on-failure:3` as the API has it.

    Raises:
        CommandError: it is no policy.
    """
    name, mark, count = text.partition(":")
    if mark and not name:
        raise CommandError("invalid restart policy format: no policy provided before colon")
    if count and not count.lstrip("-").isdecimal():
        raise CommandError("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def _mode(
    call: Call, flag: str, word: str, values: tuple[str, ...], *, container: bool = False
) -> str:
    mode = call.text(flag)
    if not mode or mode in values or (container and mode.startswith("container:") and mode[10:]):
        return mode
    raise CommandError(f"--{flag}: invalid {word} mode")


def _console_size() -> list[int]:
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return [0, 0]
    return [size.lines, size.columns]


def _networks(call: Call, host: dict[str, Any]) -> dict[str, Any]:
    names = call.items("network") + call.items("net")
    special = ("ip", "ip6", "mac-address", "link-local-ip", "network-alias", "net-alias")
    plain = not call.changed.intersection(special) and not call["link"]
    if plain and not names:
        return {"default": dict(ENDPOINT)}
    if plain and len(names) < 2 and "=" not in names[0]:
        host["NetworkMode"] = names[0]
        return {}
    from sampan.cli import create_parts

    return create_parts.networks(call, host, names)
