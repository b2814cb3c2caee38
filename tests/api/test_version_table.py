"""Which version has which field: a table over all versions from 1.12 to 1.55.

Rows: kind of answer, dotted path to the field, the first version that has it, and the last (None: the
newest). What a version has stands in engine-api-changelog.md.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sampan.api import versions
from sampan.api.version_steps.requests import MAC_ADDRESS_WARNING
from sampan.engine import model
from sampan.errors import InvalidArgument

ALL = [(1, minor) for minor in range(12, 56)]

ENDPOINT = {"Aliases": ["web"], "DNSNames": ["web"], "GwPriority": 0, "IPAddress": "10.0.0.2"}
NETWORK = {"rx_bytes": 1, "rx_packets": 1, "rx_errors": 0, "rx_dropped": 0, "tx_bytes": 2}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "container": {
        "Id": "0123456789abcdef",
        "State": {"Status": "removing"},
        "Mounts": [{"Destination": "/v", "Source": "/s", "RW": True}],
        "ImageManifestDescriptor": {},
        "Storage": {},
        "Config": {
            "OnBuild": None,
            "MacAddress": "",
            "Healthcheck": {"StartInterval": 1},
        },
        "HostConfig": {
            "Annotations": {},
            "KernelMemory": 0,
            "KernelMemoryTCP": 0,
            "VolumeDriver": "",
            "Memory": 1,
            "MemorySwap": 2,
            "CpuShares": 3,
            "CpusetCpus": "0",
            "Mounts": [{"BindOptions": {"ReadOnlyNonRecursive": True}}],
        },
        "NetworkSettings": {"IPAddress": "10.0.0.2", "Networks": {"net": ENDPOINT}},
    },
    "container summary": {
        "State": "removing",
        "Mounts": [],
        "ImageID": "sha256:1",
        "Labels": {},
        "Health": {},
        "ImageManifestDescriptor": {},
        "HostConfig": {"Annotations": {}},
        "NetworkSettings": {"Networks": {"net": ENDPOINT}},
    },
    "stats": {
        "name": "/box",
        "id": "0",
        "os_type": "linux",
        "pids_stats": {},
        "cpu_stats": {"online_cpus": 2},
        "precpu_stats": {"online_cpus": 2},
        "networks": {"eth0": NETWORK, "eth1": NETWORK},
    },
    "wait": {"StatusCode": 0, "Error": None},
    "image": {
        "Id": "sha256:1",
        "RepoTags": [],
        "RepoDigests": [],
        "Created": "0001-01-01T00:00:00Z",
        "Parent": "",
        "Container": "",
        "ContainerConfig": {},
        "VirtualSize": 1,
        "Descriptor": {},
        "Config": {"Hostname": "", "Env": None, "Cmd": ["sh"]},
    },
    "image summary": {
        "RepoTags": [],
        "RepoDigests": [],
        "Labels": None,
        "VirtualSize": 1,
        "Containers": 3,
        "Manifests": [],
        "Descriptor": {},
    },
    "info": {
        **dict.fromkeys(("NRI", "KernelMemoryTCP", "KernelMemory", "BridgeNfIptables", "SystemTime")),
        **dict.fromkeys(("DiscoveredDevices", "FirewallBackend", "Containerd", "CDISpecDirs")),
        **dict.fromkeys(("DefaultAddressPools", "CgroupVersion", "PidsLimit", "Warnings")),
        **dict.fromkeys(("CgroupDriver", "OSType", "ServerVersion", "CpuCfsQuota", "HttpProxy")),
        "Debug": True,
        "KernelVersion": "6",
        "OperatingSystem": "Debian",
        "RuncCommit": {"Expected": ""},
        "RegistryConfig": {"AllowNondistributableArtifactsCIDRs": []},
        "Runtimes": {"sampan": {"status": {}}},
        "SecurityOptions": ["name=seccomp,profile=builtin"],
    },
    "version": {**dict.fromkeys(("Platform", "Components", "MinAPIVersion", "Os"))},
    "event": {**dict.fromkeys(("status", "id", "from", "Type", "Action", "Actor", "scope", "timeNano"))},
    "network": {
        **dict.fromkeys(("Status", "EnableIPv4", "Ingress", "Created", "Internal", "EnableIPv6")),
        "Containers": {"0": {"Name": "box"}},
    },
    "network summary": {
        **dict.fromkeys(("Status", "EnableIPv4", "Ingress", "Created", "Internal", "EnableIPv6")),
        "Containers": {"0": {"Name": "box"}},
    },
    "volume": dict.fromkeys(("CreatedAt", "Options", "Labels", "Scope")),
    "exec": {"Pid": 1},
}  # fmt: skip

FIRST, LAST = (1, 12), (1, 55)
ROWS: list[tuple[str, str, versions.Version, versions.Version]] = [
    ("container", "NetworkSettings.IPAddress", FIRST, (1, 51)),
    ("container", "HostConfig.KernelMemoryTCP", FIRST, (1, 51)),
    ("container", "HostConfig.KernelMemory", FIRST, (1, 41)),
    ("container", "Config.OnBuild", FIRST, (1, 51)),
    ("container", "Config.MacAddress", FIRST, (1, 51)),
    ("container", "Config.Healthcheck.StartInterval", (1, 44), LAST),
    ("container", "Config.VolumeDriver", FIRST, (1, 20)),
    ("container", "Config.Memory", FIRST, (1, 19)),
    ("container", "Volumes", FIRST, (1, 19)),
    ("container", "Mounts", (1, 20), LAST),
    ("container", "NetworkSettings.Networks", (1, 21), LAST),
    ("container", "NetworkSettings.Networks.net.DNSNames", (1, 44), LAST),
    ("container", "NetworkSettings.Networks.net.GwPriority", (1, 48), LAST),
    ("container", "ImageManifestDescriptor", (1, 48), LAST),
    ("container", "Storage", (1, 52), LAST),
    ("container", "HostConfig.Annotations", (1, 43), LAST),
    ("container summary", "Health", (1, 52), LAST),
    ("container summary", "HostConfig.Annotations", (1, 46), LAST),
    ("container summary", "ImageManifestDescriptor", (1, 48), LAST),
    ("container summary", "NetworkSettings.Networks.net.GwPriority", (1, 48), LAST),
    ("container summary", "State", (1, 23), LAST),
    ("container summary", "Mounts", (1, 23), LAST),
    ("container summary", "NetworkSettings", (1, 22), LAST),
    ("container summary", "ImageID", (1, 21), LAST),
    ("container summary", "Labels", (1, 17), LAST),
    ("stats", "os_type", (1, 52), LAST),
    ("stats", "cpu_stats.online_cpus", (1, 27), LAST),
    ("stats", "pids_stats", (1, 23), LAST),
    ("stats", "networks", (1, 21), LAST),
    ("stats", "network", FIRST, (1, 20)),
    ("wait", "Error", (1, 34), (1, 41)),
    ("image", "Config.Env", FIRST, (1, 51)),
    ("image", "Config.Cmd", FIRST, LAST),
    ("image", "Config.Hostname", FIRST, (1, 49)),
    ("image", "Descriptor", (1, 48), LAST),
    ("image", "Parent", FIRST, (1, 51)),
    ("image", "ContainerConfig", FIRST, (1, 44)),
    ("image", "VirtualSize", FIRST, (1, 43)),
    ("image", "Created", FIRST, (1, 43)),
    ("image", "RepoTags", (1, 21), LAST),
    ("image summary", "VirtualSize", FIRST, (1, 43)),
    ("image summary", "Manifests", (1, 47), LAST),
    ("image summary", "Descriptor", (1, 48), LAST),
    ("image summary", "RepoDigests", (1, 18), LAST),
    ("image summary", "Labels", (1, 17), LAST),
    ("info", "NRI", (1, 53), LAST),
    ("info", "KernelMemoryTCP", FIRST, (1, 51)),
    ("info", "KernelMemory", FIRST, (1, 41)),
    ("info", "BridgeNfIptables", FIRST, (1, 49)),
    ("info", "RegistryConfig.AllowNondistributableArtifactsCIDRs", FIRST, (1, 48)),
    ("info", "RuncCommit.Expected", FIRST, (1, 48)),
    ("info", "DiscoveredDevices", (1, 50), LAST),
    ("info", "FirewallBackend", (1, 49), LAST),
    ("info", "Containerd", (1, 46), LAST),
    ("info", "CDISpecDirs", (1, 44), LAST),
    ("info", "Runtimes.sampan.status", (1, 44), LAST),
    ("info", "CgroupVersion", (1, 41), LAST),
    ("info", "PidsLimit", (1, 40), LAST),
    ("info", "Warnings", (1, 39), LAST),
    ("info", "SecurityOptions", (1, 24), LAST),
    ("info", "ExecutionDriver", FIRST, (1, 24)),
    ("info", "CgroupDriver", (1, 23), LAST),
    ("info", "OSType", (1, 22), LAST),
    ("info", "ServerVersion", (1, 21), LAST),
    ("info", "CpuCfsQuota", (1, 19), LAST),
    ("info", "SystemTime", (1, 18), LAST),
    ("version", "Components", (1, 35), LAST),
    ("version", "MinAPIVersion", (1, 25), LAST),
    ("version", "Os", (1, 18), LAST),
    ("event", "status", FIRST, (1, 51)),
    ("event", "scope", (1, 30), LAST),
    ("event", "Actor", (1, 22), LAST),
    ("event", "timeNano", (1, 21), LAST),
    ("network", "Status", (1, 52), LAST),
    ("network", "EnableIPv4", (1, 48), LAST),
    ("network", "Ingress", (1, 29), LAST),
    ("network", "Created", (1, 25), LAST),
    ("network", "EnableIPv6", (1, 23), LAST),
    ("network", "Containers.0.Name", (1, 22), LAST),
    ("network summary", "Containers", FIRST, (1, 51)),
    ("volume", "CreatedAt", (1, 31), LAST),
    ("volume", "Options", (1, 25), LAST),
    ("volume", "Labels", (1, 23), LAST),
    ("exec", "Pid", (1, 25), LAST),
]


def has(document: Any, path: str) -> bool:
    for name in path.split("."):
        if not isinstance(document, dict) or name not in document:
            return False
        document = document[name]
    return True


def answer(kind: str, version: versions.Version | None) -> dict[str, Any]:
    return versions.answer(kind, copy.deepcopy(DOCUMENTS[kind]), version)


@pytest.mark.parametrize(("kind", "path", "first", "last"), ROWS, ids=lambda value: str(value))
def test_field(kind: str, path: str, first: versions.Version, last: versions.Version) -> None:
    having = [version for version in ALL if has(answer(kind, version), path)]
    assert having == [version for version in ALL if first <= version <= last]


def test_each_step_has_a_row_or_a_case() -> None:
    """A step that changes nothing in these documents is one that nobody tests."""
    for kind, steps in versions.ANSWERS.items():
        for step in steps:
            before = copy.deepcopy(DOCUMENTS[kind])
            step.change(before)
            assert before != DOCUMENTS[kind] or step.change.__name__ in CASES, step.change.__name__


CASES = {"info_with_unknown_system"}


@pytest.mark.parametrize("kind", versions.ANSWERS)
def test_a_path_without_version_gets_everything(kind: str) -> None:
    assert answer(kind, None) == DOCUMENTS[kind]


@pytest.mark.parametrize(
    ("kind", "path", "values"),
    [
        ("container", "State.Status", {(1, 24): "exited", (1, 25): "removing"}),
        ("container", "Volumes", {(1, 19): {"/v": "/s"}}),
        ("container", "Config.Cpuset", {(1, 19): "0"}),
        ("container", "NetworkSettings.Networks.net.Aliases", {
            (1, 44): ["web", "0123456789ab"], (1, 45): ["web"],
        }),
        ("container summary", "State", {(1, 24): "exited", (1, 25): "removing"}),
        ("stats", "network.rx_bytes", {(1, 20): 2}),
        ("image summary", "Containers", {(1, 50): -1, (1, 51): 3}),
        ("image summary", "RepoTags", {(1, 42): ["<none>:<none>"], (1, 43): []}),
        ("info", "Debug", {(1, 18): 1, (1, 19): True}),
        ("info", "SecurityOptions", {
            (1, 24): ["seccomp"], (1, 25): ["name=seccomp,profile=builtin"],
        }),
    ],
)  # fmt: skip
def test_value(kind: str, path: str, values: dict[versions.Version, object]) -> None:
    for version, expected in values.items():
        value: Any = answer(kind, version)
        for name in path.split("."):
            value = value[name]
        assert value == expected
        assert type(value) is type(expected)


# -- requests up -----------------------------------------------------------------------------------


def create(
    version: versions.Version | None, **fields: Any
) -> tuple[model.CreateRequest, list[str]]:
    request = model.CreateRequest(**fields)
    return request, versions.request("create", request, version)


def host(**fields: Any) -> dict[str, Any]:
    return {"host_config": model.HostConfig(**fields)}


def mount(**fields: Any) -> dict[str, Any]:
    return host(mounts=[model.MountSpec(**fields)])


def one_mount(request: model.CreateRequest) -> model.MountSpec:
    assert request.host_config.mounts
    return request.host_config.mounts[0]


def endpoint(name: str = "bridge", **fields: Any) -> dict[str, Any]:
    wish = model.EndpointConfig(**fields)
    return {"networking_config": model.NetworkingConfig(endpoints_config={name: wish})}


def first_with(fields: dict[str, Any], kept: Any) -> versions.Version:
    """The first version that means what the fields say."""
    return next(version for version in ALL if kept(create(version, **copy.deepcopy(fields))[0]))


@pytest.mark.parametrize(
    ("fields", "kept", "first"),
    [
        (host(auto_remove=True), lambda r: r.host_config.auto_remove, (1, 25)),
        (host(kernel_memory_tcp=5), lambda r: r.host_config.kernel_memory_tcp, (1, 40)),
        (host(console_size=(4, 5)), lambda r: r.host_config.console_size == (4, 5), (1, 42)),
        (host(annotations={"a": "b"}), lambda r: r.host_config.annotations, (1, 43)),
        (
            {"healthcheck": model.HealthConfig(start_interval=5)},
            lambda r: r.healthcheck.start_interval, (1, 44),
        ),
        (
            mount(type="bind", bind_options=model.BindOptions(non_recursive=True)),
            lambda r: one_mount(r).bind_options.non_recursive, (1, 40),
        ),
        (
            mount(type="bind", bind_options=model.BindOptions(create_mountpoint=True)),
            lambda r: one_mount(r).bind_options.create_mountpoint, (1, 42),
        ),
        (
            mount(type="tmpfs", tmpfs_options=model.TmpfsOptions(options=[["exec"]])),
            lambda r: one_mount(r).tmpfs_options.options, (1, 46),
        ),
        (
            endpoint(mac_address="02:00:00:00:00:01"),
            lambda r: r.networking_config.endpoints_config["bridge"].mac_address, (1, 44),
        ),
        (
            endpoint(gw_priority=7),
            lambda r: r.networking_config.endpoints_config["bridge"].gw_priority, (1, 48),
        ),
        ({}, lambda r: r.host_config.ipc_mode == "", (1, 40)),
        ({}, lambda r: r.host_config.cgroupns_mode == "", (1, 41)),
        (
            {"hostname": "a", "domainname": "b"},
            lambda r: (r.hostname, r.domainname) == ("a", "b"), (1, 23),
        ),
    ],
)  # fmt: skip
def test_create_means_it_since(fields: dict[str, Any], kept: Any, first: versions.Version) -> None:
    assert first_with(fields, kept) == first


@pytest.mark.parametrize(
    ("fields", "kept", "last"),
    [
        (host(kernel_memory=5), lambda r: r.host_config.kernel_memory, (1, 41)),
        ({"mac_address": "02:00:00:00:00:01"}, lambda r: r.mac_address, (1, 51)),
    ],
)
def test_create_means_it_until(fields: dict[str, Any], kept: Any, last: versions.Version) -> None:
    meant = [v for v in ALL if kept(create(v, **copy.deepcopy(fields))[0])]
    assert meant == [v for v in ALL if v <= last]


@pytest.mark.parametrize(
    ("fields", "first", "message"),
    [
        (
            mount(type="bind", bind_options=model.BindOptions(read_only_force_recursive=True)),
            (1, 44), "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ),
        (
            mount(type="volume", volume_options=model.VolumeOptions(subpath="a")),
            (1, 45), "VolumeOptions.Subpath needs API v1.45 or newer",
        ),
        (mount(type="image"), (1, 48), 'Mount type "Image" needs API v1.48 or newer'),
        (
            {"networking_config": model.NetworkingConfig(endpoints_config={"a": None, "b": None})},
            (1, 44), "Container cannot be created with multiple network endpoints: a, b",
        ),
    ],
)  # fmt: skip
def test_create_is_refused_before(
    fields: dict[str, Any], first: versions.Version, message: str
) -> None:
    for version in ALL:
        if version < first:
            with pytest.raises(InvalidArgument) as caught:
                create(version, **copy.deepcopy(fields))
            assert caught.value.message == message
        else:
            create(version, **copy.deepcopy(fields))


def test_the_containers_mac_address() -> None:
    """Warned of from 1.44, gone with 1.52; it has to be the endpoint's."""
    mac = "02:00:00:00:00:01"
    warned = [version for version in ALL if create(version, mac_address=mac)[1]]
    assert warned == [version for version in ALL if (1, 44) <= version < (1, 52)]
    assert create((1, 44), mac_address=mac, **endpoint(mac_address=mac))[1] == [MAC_ADDRESS_WARNING]
    with pytest.raises(InvalidArgument, match="conflicting MAC addresses"):
        create((1, 44), mac_address=mac, **endpoint(mac_address="02:00:00:00:00:02"))


def test_update() -> None:
    for version in ALL:
        change = model.UpdateConfig(pids_limit=0, kernel_memory=5, kernel_memory_tcp=6)
        change.restart_policy.name = "always"
        versions.request("update", change, version)
        assert (change.pids_limit is None) is (version < (1, 40))
        assert bool(change.kernel_memory) is (version < (1, 42))
        assert bool(change.kernel_memory_tcp) is (version < (1, 52))
        assert bool(change.restart_policy.name) is (version >= (1, 23))


def test_exec() -> None:
    for version in ALL:
        config = model.ExecConfig(env=["A=b"], working_dir="/", console_size=(1, 2))
        versions.request("exec", config, version)
        assert bool(config.env) is (version >= (1, 25))
        assert bool(config.working_dir) is (version >= (1, 35))
        assert bool(config.console_size) is (version >= (1, 42))


@pytest.mark.parametrize("version", [(1, 12), (1, 23), None])
def test_moved_fields(version: versions.Version | None) -> None:
    document: dict[str, Any] = {
        "Memory": 5,
        "Cpuset": "1",
        "HostConfig": {"Memory": 6, "LxcConf": []},
    }
    versions.moved("create", document, version)
    expected = {"HostConfig": {"Memory": 6, "CpusetCpus": "1"}}
    if version == (1, 23):
        expected["HostConfig"]["LxcConf"] = []
    assert document == expected


def test_not_moved_since_1_24() -> None:
    document = {"Memory": 5}
    versions.moved("create", document, (1, 24))
    assert document == {"Memory": 5}
