"""`sampan info`: what the engine is, has and can."""

from __future__ import annotations

from sampan import __version__
from sampan.cli import inspection, jsontext, units
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (inspection.FORMAT,)


def run(call: Call) -> int:
    """Print the engine's state; without an engine the client's, and status 1."""
    client = {
        "Debug": False,
        "Version": __version__,
        "Context": "default",
        "Plugins": [],
        "Warnings": None,
    }
    info: dict[str, Any] = {}
    failure = None
    try:
        info = call.client.call("GET", "/info")
    except CommandError as error:
        failure = error
    form = call.text("format")
    if form:
        _formatted(call, form, {**info, "ClientInfo": client})
    else:
        call.say(
            f"Client:\n Version:    {__version__}\n Context:    default\n Debug Mode: false\n\nServer:"
        )
        if failure is None:
            _server(call, info)
            call.say("")
            for warning in info.get("Warnings") or ():
                call.complain(warning)
    if failure is not None:
        raise failure
    return 0


def _formatted(call: Call, form: str, info: dict[str, Any]) -> None:
    if form == "json":
        call.say(jsontext.encode(info))
        return
    from sampan.cli import template

    try:
        program = template.parse(form.replace("\\t", "\t").replace("\\n", "\n"))
    except template.ParseError as error:
        raise CommandError(f"template parsing error: {error.detail}", status=64) from None
    call.say(program.run(info))


def _server(call: Call, info: dict[str, Any]) -> None:
    for line in _lines(info):
        call.say(line)


def _lines(info: dict[str, Any]) -> list[str]:
    lines = [
        f" Containers: {info['Containers']}",
        f"  Running: {info['ContainersRunning']}",
        f"  Paused: {info['ContainersPaused']}",
        f"  Stopped: {info['ContainersStopped']}",
        f" Images: {info['Images']}",
    ]
    lines += _set(info, ("Server Version", "ServerVersion"), ("Storage Driver", "Driver"))
    lines += [f"  {name}: {value}" for name, value in info.get("DriverStatus") or ()]
    lines += _set(info, ("Logging Driver", "LoggingDriver"), ("Cgroup Driver", "CgroupDriver"))
    lines += _set(info, ("Cgroup Version", "CgroupVersion"))
    lines += _plugins(info.get("Plugins") or {})
    lines += [f" Swarm: {(info.get('Swarm') or {}).get('LocalNodeState', 'inactive')}"]
    lines += _runtimes(info)
    lines += _security(info)
    lines += _set(
        info,
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
    )
    lines += [
        f" CPUs: {info.get('NCPU', 0)}",
        f" Total Memory: {units.binary_size(info.get('MemTotal', 0))}",
    ]
    lines += _set(info, ("Name", "Name"), ("ID", "ID"))
    lines += [
        f" Docker Root Dir: {info.get('DockerRootDir', '')}",
        f" Debug Mode: {_word(info.get('Debug'))}",
    ]
    if info.get("Labels"):
        lines += [" Labels:", *(f"  {label}" for label in info["Labels"])]
    lines += [f" Experimental: {_word(info.get('ExperimentalBuild'))}"]
    lines += _registries(info.get("RegistryConfig") or {})
    lines += [f" Live Restore Enabled: {_word(info.get('LiveRestoreEnabled'))}"]
    lines += _set(info, ("Product License", "ProductLicense"))
    return lines


def _word(value: Any) -> str:
    return "true" if value else "false"


def _set(info: dict[str, Any], *names: tuple[str, str]) -> list[str]:
    return [f" {title}: {info[name]}" for title, name in names if info.get(name)]


def _plugins(plugins: dict[str, Any]) -> list[str]:
    lines = [" Plugins:"]
    for name in ("Volume", "Network", "Authorization", "Log"):
        if plugins.get(name) or name in ("Volume", "Network", "Log"):
            lines.append(f"  {name}: {' '.join(plugins.get(name) or ())}")
    return lines


def _runtimes(info: dict[str, Any]) -> list[str]:
    if not info.get("Runtimes"):
        return []
    lines = [f" Runtimes: {' '.join(info['Runtimes'])}"]
    lines += [f" Default Runtime: {info.get('DefaultRuntime', '')}"]
    lines += _set(info, ("Init Binary", "InitBinary"))
    for title, name in (
        ("containerd", "ContainerdCommit"),
        ("runc", "RuncCommit"),
        ("init", "InitCommit"),
    ):
        commit = info.get(name)
        if commit is not None:
            lines.append(f" {title} version: {commit.get('ID', '')}")
    return lines


def _security(info: dict[str, Any]) -> list[str]:
    options = info.get("SecurityOptions")
    if not options:
        return []
    lines = [" Security Options:"]
    for option in options:
        fields = [field.partition("=") for field in option.split(",")]
        for name, _, value in fields:
            if name == "name":
                lines.append(f"  {value}")
            else:
                lines.append(f"   {name.capitalize()}: {value}")
    return lines


def _registries(config: dict[str, Any]) -> list[str]:
    indexes = config.get("IndexConfigs") or {}
    insecure = [name for name, index in indexes.items() if not index.get("Secure", True)]
    insecure += config.get("InsecureRegistryCIDRs") or []
    lines = [" Insecure Registries:", *(f"  {name}" for name in insecure)] if insecure else []
    if config.get("Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {mirror}" for mirror in config["Mirrors"])]
    return lines
