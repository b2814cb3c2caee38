"""The daemon's options, spelled as dockerd's, on the command line and in `daemon.json`.

An option stands in one of the two, never in both: then nobody has to know which one wins.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from sampan.daemon import dockerd_options, network_options, preset_options
from sampan.daemon.command_line import (
    CONFIG_FILE,
    DATA_ROOT,
    EXEC_ROOT,
    KINDS,
    LOG_LEVELS,
    SHUTDOWN_TIMEOUT_S,
    parser,
)
from sampan.daemon.quantities import parse_age, parse_size, parse_ulimit
from sampan.engine.options import HISTORY_BYTES, HISTORY_LINES, EngineOptions
from sampan.engine.preset import Preset
from sampan.engine.storage_options import default_size
from sampan.errors import InvalidArgument
from sampan.images.distribution.settings import (
    RegistrySettings,
    check_insecure,
    check_mirror,
)
from sampan.network.bridge_wishes import BridgeWishes
from sampan.network.pools import Pool
from sampan.state.events import Limits

DEFAULT_CONFIG_FILE = CONFIG_FILE
# Option → dockerd's word for it where it is refused.
REGISTRY_NUMBERS = {
    "max-concurrent-downloads": "concurrent downloads",
    "max-concurrent-uploads": "concurrent uploads",
    "max-download-attempts": "download attempts",
}
PROXIES = ("http-proxy", "https-proxy", "no-proxy")
SMALLEST_EVENT_LOG_BYTES = 64 << 10
MOST_HISTORY_LINES = 1000

# Options that may be given several times are plural in the file, as in dockerd's.
FILE_NAMES = {
    **preset_options.FILE_NAMES,
    **network_options.FILE_NAMES,
    **dockerd_options.FILE_NAMES,
    "default-ulimit": "default-ulimits",
    "host": "hosts",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}

# What a running daemon takes up from its file (SIGHUP).
RELOADED = frozenset(
    {
        *("debug", "log_level", "labels", "shutdown_timeout_s"),
        *("registries", "disk_budget_bytes", "events", "history", "history_lines"),
        *("preset", "init", "ulimits"),
    }
)


@dataclass(frozen=True, slots=True)
class Options:
    """What the daemon was told. `ulimits` are (name, soft, hard)."""

    hosts: tuple[str, ...] = ()
    data_root: str = DATA_ROOT
    exec_root: str = EXEC_ROOT
    debug: bool = False
    log_level: str = "info"
    group: str = ""
    pidfile: str = ""
    bridge: str = "sampan0"
    default_bridge: BridgeWishes = field(default_factory=BridgeWishes)
    address_pools: tuple[Pool, ...] = ()
    network_defaults: dict[str, dict[str, str]] = field(default_factory=dict)
    host_gateway: str = ""
    firewall_table: str = ""
    ip: str = ""
    respect_host_firewall: bool = True
    cgroup_parent: str = "/sampan"
    labels: tuple[str, ...] = ()
    init: bool = False
    ulimits: tuple[tuple[str, int, int], ...] = ()
    preset: Preset = field(default_factory=Preset)
    runtimes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    trace_start: bool = False
    oom_score_adjust: int = 0
    shutdown_timeout_s: int = SHUTDOWN_TIMEOUT_S
    proxies: tuple[tuple[str, str], ...] = ()
    registries: RegistrySettings = field(default_factory=RegistrySettings)
    disk_budget_bytes: int = 0
    container_size_bytes: int = 0
    events: Limits = field(default_factory=Limits)
    history: Limits = field(default_factory=lambda: Limits(size_bytes=HISTORY_BYTES))
    history_lines: int = HISTORY_LINES
    config_file: str = field(default=DEFAULT_CONFIG_FILE, compare=False)
    validate: bool = field(default=False, compare=False)

    @property
    def listen_on(self) -> tuple[str, ...]:
        """The hosts, or the one socket that is listened on when none is given."""
        return self.hosts or (f"unix://{self.exec_root}/sampan.sock",)

    @property
    def pid_path(self) -> str:
        return self.pidfile or f"{self.exec_root}/sampand.pid"

    def for_engine(self) -> EngineOptions:
        """The engine's part."""
        return EngineOptions(
            data_root=self.data_root,
            exec_root=self.exec_root,
            bridge=self.bridge,
            default_bridge=self.default_bridge,
            address_pools=self.address_pools,
            network_defaults=self.network_defaults,
            host_gateway=self.host_gateway,
            firewall_table=self.firewall_table,
            publish_address=self.ip,
            respect_host_firewall=self.respect_host_firewall,
            cgroup_parent=self.cgroup_parent,
            debug=self.debug,
            trace_start=self.trace_start,
            labels=self.labels,
            runtimes=dict(self.runtimes),
            preset=replace(self.preset, init=self.init, ulimits=self.ulimits),
            disk_budget_bytes=self.disk_budget_bytes,
            container_size_bytes=self.container_size_bytes,
            registries=self.registries,
            event_limits=self.events,
            history_limits=self.history,
            history_lines=self.history_lines,
        )


def parse(arguments: Sequence[str], *, program: str = "sampand") -> Options:
    """Command line and configuration file together.

    Exits by itself for `--help` and `--version`.

    Raises:
        InvalidArgument: an unknown option or a value that cannot be meant; one line for the user.
    """
    given = vars(parser(program).parse_args(list(arguments)))
    path = given.pop("config-file", None)
    validate = given.pop("validate", False)
    from_file = read_file(path or DEFAULT_CONFIG_FILE, needed=path is not None)
    _refuse_both(given, from_file)
    return _checked(
        {**from_file, **given},
        config_file=path or DEFAULT_CONFIG_FILE,
        validate=validate,
    )


def read_file(path: str, *, needed: bool) -> dict[str, Any]:
    """The options of a configuration file, by the command line's names; {} when there is none.

    Raises:
        InvalidArgument: it cannot be read, is no JSON or holds something unknown.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        if needed:
            raise InvalidArgument(f"no such configuration file: {path}") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read {path}: {error}") from error
    try:
        value = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise InvalidArgument(f"{path}: it has to hold one JSON object")
    return _known(value, path)


def _known(value: dict[str, Any], path: str) -> dict[str, Any]:
    value = _without_proxies(value, path)
    names = {FILE_NAMES.get(name, name): name for name in KINDS}
    unknown = sorted(set(value) - set(names))
    if unknown:
        raise InvalidArgument(
            f"{path}: the following directives don't match any configuration option: "
            f"{', '.join(unknown)}"
        )
    return {names[key]: _of_kind(key, item, KINDS[names[key]], path) for key, item in value.items()}


def _without_proxies(value: dict[str, Any], path: str) -> dict[str, Any]:
    """`proxies` has the three in an object of its own, as dockerd's file."""
    proxies = value.get("proxies", {})
    if not isinstance(proxies, dict) or not set(proxies) <= set(PROXIES):
        raise InvalidArgument(f"{path}: proxies can hold {', '.join(PROXIES)}")
    return {**{key: item for key, item in value.items() if key != "proxies"}, **proxies}


def _of_kind(key: str, item: Any, kind: type, path: str) -> Any:
    """A value of the file in the form that the command line gives."""
    item = network_options.of_file(key, preset_options.of_file(key, item))
    if key == "default-ulimits" and isinstance(item, dict):
        return [_ulimit_of_file(name, limit, path) for name, limit in item.items()]
    fits = isinstance(item, kind) and not (kind is int and isinstance(item, bool))
    if kind is list and key not in dockerd_options.FILE_NAMES.values():
        fits = fits and all(isinstance(entry, str) for entry in item)
    if not fits:
        raise InvalidArgument(f"{path}: {key} cannot be {json.dumps(item)}")
    return item


def _ulimit_of_file(name: str, limit: Any, path: str) -> str:
    if isinstance(limit, dict):
        soft, hard = limit.get("Soft"), limit.get("Hard")
        if type(soft) is int and type(hard) is int:
            return f"{name}={soft}:{hard}"
    raise InvalidArgument(f'{path}: default-ulimits: {name} has to be {{"Soft": n, "Hard": n}}')


def _refuse_both(given: dict[str, Any], from_file: dict[str, Any]) -> None:
    both = [
        f"{name}: (from flag: {_shown(given[name])}, from file: {_shown(from_file[name])})"
        for name in sorted(set(given) & set(from_file))
    ]
    if both:
        raise InvalidArgument(
            "the following directives are specified both as a flag and in the configuration "
            f"file: {', '.join(both)}"
        )


def _shown(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool | list) else str(value)


def _checked(values: dict[str, Any], *, config_file: str, validate: bool) -> Options:
    dockerd_options.refuse(values)
    level = values.get("log-level", "info").lower()
    if level not in LOG_LEVELS:
        raise InvalidArgument(f"unable to parse logging level: {values['log-level']}")
    options = {
        name.replace("-", "_"): values[name]
        for name in (
            "bridge",
            "cgroup-parent",
            "debug",
            "firewall-table",
            "group",
            "init",
            "oom-score-adjust",
            "pidfile",
            "respect-host-firewall",
            "trace-start",
        )
        if name in values
    }
    if values.get("shutdown-timeout", 0) < -1:
        raise InvalidArgument(f"invalid shutdown timeout: {values['shutdown-timeout']}")
    if not -1000 <= values.get("oom-score-adjust", 0) <= 1000:
        raise InvalidArgument(
            f"invalid oom-score-adjust: {values['oom-score-adjust']}: -1000 to 1000"
        )
    return Options(
        **options,
        ip=network_options.address(values, "ip"),
        default_bridge=network_options.bridge_wishes(values),
        address_pools=network_options.pools(values),
        network_defaults=network_options.network_defaults(values),
        host_gateway=network_options.address(values, "host-gateway-ip"),
        log_level=level,
        data_root=_absolute(values.get("data-root", DATA_ROOT)),
        exec_root=_absolute(values.get("exec-root", EXEC_ROOT)),
        hosts=tuple(values.get("host", ())),
        labels=tuple(_label(text) for text in values.get("label", ())),
        disk_budget_bytes=parse_size(values.get("disk-budget", "0")),
        container_size_bytes=default_size(values.get("storage-opt", ())),
        events=_limits(values, "events", Limits(), SMALLEST_EVENT_LOG_BYTES),
        history=_limits(values, "history", Limits(size_bytes=HISTORY_BYTES), 0),
        history_lines=_history_lines(values),
        ulimits=tuple(parse_ulimit(text) for text in values.get("default-ulimit", ())),
        preset=preset_options.preset(values),
        runtimes=preset_options.runtimes(values),
        shutdown_timeout_s=values.get("shutdown-timeout", SHUTDOWN_TIMEOUT_S),
        proxies=tuple((name, values[name]) for name in PROXIES if name in values),
        registries=_registries(values),
        config_file=config_file,
        validate=validate,
    )


def _registries(values: dict[str, Any]) -> RegistrySettings:
    """The options that registries are about; numbers of 0 mean the default, as with dockerd."""
    numbers = {}
    for name, word in REGISTRY_NUMBERS.items():
        if (number := values.get(name, 0)) < 0:
            raise InvalidArgument(f"invalid max {word}: {number}")
        if number:
            numbers[name.replace("-", "_")] = number
    return RegistrySettings(
        mirrors=tuple(check_mirror(text) for text in values.get("registry-mirror", ())),
        insecure=tuple(check_insecure(text) for text in values.get("insecure-registry", ())),
        **numbers,
    )


def _limits(values: dict[str, Any], name: str, limits: Limits, smallest: int) -> Limits:
    """How much is kept of what happened: `<name>-max-size` and `<name>-max-age`."""
    size, age = f"{name}-max-size", f"{name}-max-age"
    if size in values:
        limits.size_bytes = parse_size(values[size], size)
        if limits.size_bytes < smallest:
            raise InvalidArgument(
                f"invalid value for --{size}: {values[size]}: at least {smallest >> 10}KiB are needed"
            )
    if age in values:
        limits.age_s = parse_age(values[age], age)
    return limits


def _history_lines(values: dict[str, Any]) -> int:
    lines: int = values.get("history-lines", HISTORY_LINES)
    if not 0 <= lines <= MOST_HISTORY_LINES:
        raise InvalidArgument(
            f"invalid value for --history-lines: {lines}: 0 to {MOST_HISTORY_LINES} can be kept"
        )
    return lines


def _absolute(path: str) -> str:
    if not path:
        raise InvalidArgument("a root directory cannot be an empty path")
    return os.path.abspath(path)


def _label(text: str) -> str:
    if "=" not in text:
        raise InvalidArgument(f"bad attribute format: {text}")
    return text


def changed(old: Options, new: Options) -> list[str]:
    """Names of the options that differ."""
    return [
        item.name
        for item in fields(Options)
        if item.compare and getattr(old, item.name) != getattr(new, item.name)
    ]
