"""What a configuration asks for, checked and sorted before anything is touched. Pure.

Source: OCI runtime-spec 1.2, config.md and config-linux.md.
"""

from __future__ import annotations

import os

from sampan.errors import RuntimeFailure
from sampan.linux import mounts, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sampan.linux.mounts import Mount, Options

HOOK_KINDS = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)

# The spec's default devices (config-linux.md): path, major, minor.
DEFAULT_DEVICES: tuple[tuple[str, int, int], ...] = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)

# What every container may use besides its own list: the default devices, making nodes (not using
# them), its console and its pseudoterminals. The kernel's numbers: admin-guide/devices.txt.
_DEFAULT_DEVICE_RULES: tuple[dict[str, Any], ...] = (
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for _, major, minor in DEFAULT_DEVICES
    ),
    {"allow": True, "type": "c", "major": 5, "minor": 1, "access": "rwm"},
    {"allow": True, "type": "c", "major": 5, "minor": 2, "access": "rwm"},
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},
)

_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in (
        "msgmax",
        "msgmnb",
        "msgmni",
        "sem",
        "shmall",
        "shmmax",
        "shmmni",
        "shm_rmid_forced",
    )
)


class MountStep:
    """One of the configuration's mounts with its options sorted, and its ID mappings."""

    __slots__ = ("gid_mappings", "mount", "options", "uid_mappings")

    def __init__(self, mount: Mount, options: Options, raw: Mapping[str, Any]) -> None:
        self.mount = mount
        self.options = options
        self.uid_mappings: Sequence[Mapping[str, Any]] = raw.get("uidMappings") or ()
        self.gid_mappings: Sequence[Mapping[str, Any]] = raw.get("gidMappings") or ()


class Plan:
    """A configuration's Linux part. `new`: kinds of namespaces to make; `joined`: kind → path."""

    __slots__ = (
        "config",
        "device_setup",
        "hooks",
        "joined",
        "linux",
        "mounts",
        "new",
        "process",
        "propagation",
        "resources",
        "rootfs",
        "sysctls",
    )

    def __init__(self, config: dict[str, Any], bundle: str) -> None:
        self.config = config
        self.linux: dict[str, Any] = config.get("linux") or {}
        self.process: dict[str, Any] = config.get("process") or {}
        self.new, self.joined = _namespaces(self.linux)
        self.rootfs = _rootfs(config, bundle)
        self.propagation = _propagation(self.linux)
        self.mounts = [_mount_step(raw, bundle) for raw in config.get("mounts") or ()]
        self.sysctls = _sysctls(self)
        self.resources = device_resources(self.linux.get("resources") or {})
        self.hooks: dict[str, list[dict[str, Any]]] = _hooks(config)
        self.device_setup = not any(
            step.mount.target.rstrip("/") == "/dev" and step.options.bind for step in self.mounts
        )
        _check(self)

    def has(self, kind: str) -> bool:
        """Is the container's namespace of this kind another than the runtime's?"""
        return kind in self.new or kind in self.joined

    @property
    def flags(self) -> int:
        """CLONE_NEW* of all namespaces to make but the cgroup namespace, which comes later."""
        bits = 0
        for kind in self.new - {"cgroup"}:
            bits |= namespaces.FLAGS[kind]
        return bits


def _invalid(message: str, path: str | None = None) -> RuntimeFailure:
    return RuntimeFailure("config", message, path=path)


def _namespaces(linux: Mapping[str, Any]) -> tuple[set[str], dict[str, str]]:
    new: set[str] = set()
    joined: dict[str, str] = {}
    for row in linux.get("namespaces") or ():
        kind = row.get("type")
        if kind not in namespaces.FLAGS:
            raise _invalid(f"namespace {kind!r} does not exist")
        if kind in new or kind in joined:
            raise _invalid(f"malformed spec file: duplicated ns {kind!r}")
        if path := row.get("path"):
            joined[kind] = path
        else:
            new.add(kind)
    return new, joined


def _rootfs(config: Mapping[str, Any], bundle: str) -> str:
    root = config.get("root")
    if not root or not root.get("path"):
        raise _invalid("root.path is missing")
    return os.path.normpath(os.path.join(bundle, root["path"]))


def _propagation(linux: Mapping[str, Any]) -> int:
    word = linux.get("rootfsPropagation") or ""
    if not word:
        return 0
    if word not in mounts.PROPAGATION:
        raise _invalid(f"rootfsPropagation={word} is not supported")
    return mounts.PROPAGATION[word]


def _mount_step(raw: Mapping[str, Any], bundle: str) -> MountStep:
    target = raw.get("destination") or ""
    if not target:
        raise _invalid("mount without a destination")
    if not target.startswith("/"):
        target = f"/{target}"
    kind = raw.get("type") or ""
    options = mounts.parse_options(raw.get("options") or ())
    if kind == "bind" and not options.bind:
        options.flags |= mounts.parse_options(["bind"]).flags
    if options.bind:
        kind = "bind"
    elif not kind:
        raise _invalid(f"mount {target}: neither a type nor the option bind", target)
    source = raw.get("source") or ("" if kind == "bind" else kind)
    if kind == "bind":
        source = os.path.join(bundle, source)  # a relative one counts from the bundle
    if (raw.get("uidMappings") or options.idmap) and kind != "bind":
        raise _invalid(f"mount {target}: only a bind mount can be mapped", target)
    mount = mounts.Mount(kind, source, os.path.normpath(target), raw.get("options") or ())
    return MountStep(mount, options, raw)


def _sysctls(plan: Plan) -> dict[str, str]:
    """sysctl name with slashes → value; only those that a namespace of the container owns."""
    result: dict[str, str] = {}
    for name, value in (plan.linux.get("sysctl") or {}).items():
        dotted = _dotted(name)
        kind = _sysctl_namespace(dotted)
        if kind is None:
            raise _invalid(f'sysctl "{name}" is not in a separate kernel namespace')
        if not plan.has(kind):
            raise _invalid(f'sysctl "{name}" is not allowed in the hosts {kind} namespace')
        path = _sysctl_path(name)
        if ".." in path.split("/"):
            raise _invalid(f'sysctl "{name}" is not a name')
        result[path] = str(value)
    return result


def _dotted(name: str) -> str:
    first = next((c for c in name if c in "./"), ".")
    return name if first == "." else name.translate({ord("/"): ".", ord("."): "/"})


def _sysctl_path(name: str) -> str:
    """`net.ipv4.ip_forward` or `net/ipv4/conf/eth0.1/forwarding` as a path; see sysctl.d(5)."""
    return _dotted(name).translate({ord("/"): ".", ord("."): "/"})


def _sysctl_namespace(dotted: str) -> str | None:
    if dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
        return "ipc"
    if dotted.startswith("net."):
        return "network"
    if dotted in ("kernel.domainname", "kernel.hostname"):
        return "uts"
    return None


def device_resources(asked: Mapping[str, Any]) -> dict[str, Any]:
    """`linux.resources` with the rules that every container needs behind its own device rules."""
    resources = dict(asked)
    rules = list(resources.get("devices") or ())
    if rules and not _allows_all(rules):
        resources["devices"] = rules + list(_DEFAULT_DEVICE_RULES)
    return resources


def _allows_all(rules: Sequence[Mapping[str, Any]]) -> bool:
    """Does the list end in allowing everything, so that more rules would only narrow nothing?"""
    last = rules[-1]
    return (
        bool(last.get("allow"))
        and (last.get("type") or "a") == "a"
        and last.get("major") is None
        and last.get("minor") is None
    )


def _hooks(config: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    hooks: dict[str, list[dict[str, Any]]] = {}
    for kind, entries in (config.get("hooks") or {}).items():
        if kind not in HOOK_KINDS or not entries:
            continue
        for entry in entries:
            if not str(entry.get("path") or "").startswith("/"):
                raise _invalid(f"{kind} hook: path {entry.get('path')!r} is not absolute")
        hooks[kind] = list(entries)
    return hooks


def _check(plan: Plan) -> None:
    uids = plan.linux.get("uidMappings")
    if "user" in plan.new and not uids:
        raise _invalid("User namespaces enabled, but no uid mappings found.")
    if uids and not plan.has("user"):
        raise _invalid("User namespace mappings specified, but USER namespace isn't enabled")
    for name in ("hostname", "domainname"):
        if plan.config.get(name) and not plan.has("uts"):
            raise _invalid(f"unable to set {name} without a private UTS namespace")
    if plan.linux.get("timeOffsets") and "time" not in plan.new:
        raise _invalid("time namespace offsets specified, but no new TIME namespace is asked for")
    if not plan.has("mount"):
        raise _invalid("a container without a mount namespace of its own is not possible")
    if plan.linux.get("intelRdt"):
        raise _invalid("intelRdt is specified in config, but this runtime does not have it")
    for kind in ("uidMappings", "gidMappings"):
        for row in plan.linux.get(kind) or ():
            if not all(isinstance(row.get(key), int) for key in ("containerID", "hostID", "size")):
                raise _invalid(f"{kind}: a mapping needs containerID, hostID and size")
