"""The generated OCI configuration is valid by the spec's own schema and says what was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.builders import make_record
from sampan.engine import defaults, spec
from sampan.engine.container import BoundMount
from sampan.engine.model import ContainerConfig, DeviceMapping, ExecConfig, HostConfig, Ulimit
from sampan.engine.security import effective_capabilities

SURROUNDINGS = spec.Surroundings(
    files=[("/data/c/hosts", "/etc/hosts")], default_ulimits=[("nproc", 5, 9)]
)


def config(host: HostConfig | None = None, **changes: Any) -> dict[str, Any]:
    host = host or HostConfig()
    changes.setdefault("capabilities", effective_capabilities(host))
    return spec.oci_config(make_record(host_config=host, **changes), SURROUNDINGS)


HOSTS = {
    "default": HostConfig(),
    "limits": HostConfig(memory=64 << 20, nano_cpus=500_000_000, pids_limit=5, cpuset_cpus="0"),
    "privileged": HostConfig(privileged=True),
    "read-only": HostConfig(readonly_rootfs=True),
    "sysctls": HostConfig(sysctls={"net.ipv4.ip_forward": "1"}),
    "ulimits": HostConfig(ulimits=[Ulimit(name="nofile", soft=10, hard=20)]),
    "device": HostConfig(
        devices=[DeviceMapping(path_on_host="/dev/null", path_in_container="/dev/x")]
    ),
    "security": HostConfig(security_opt=["no-new-privileges", "apparmor=mine"]),
    "rule": HostConfig(device_cgroup_rules=["c 13:* rwm"]),
}


@pytest.mark.parametrize("name", HOSTS)
def test_schema(name: str, oci_schema: Any) -> None:
    """Valid by the runtime-spec's JSON schema."""
    oci_schema.validate(config(HOSTS[name]))


def test_user_mount_replaces_default_and_file() -> None:
    """A mount of the user's at /dev/shm or /etc/hosts is the only one there."""
    mounts = [
        BoundMount(type="tmpfs", source="", destination="/dev/shm", mode="size=1m"),
        BoundMount(type="bind", source="/srv/hosts", destination="/etc/hosts", rw=False),
    ]
    result = config(mounts=mounts)["mounts"]
    at = {mount["destination"]: mount for mount in result}
    assert len(at) == len(result)
    assert at["/dev/shm"]["options"][-1] == "size=1m"
    assert at["/etc/hosts"]["source"] == "/srv/hosts"
    assert "ro" in at["/etc/hosts"]["options"]


def test_environment() -> None:
    """PATH and HOSTNAME first, the user's values win, a bare name removes."""
    result = config(config=ContainerConfig(env=["A=1", "PATH=/bin", "A=2", "HOSTNAME"], tty=True))
    assert result["process"]["env"] == ["PATH=/bin", "A=2", "TERM=xterm"]


def test_ulimits_of_the_daemon_are_defaults() -> None:
    """--default-ulimit holds where the container does not say otherwise."""
    assert config()["process"]["rlimits"] == [{"type": "RLIMIT_NPROC", "soft": 5, "hard": 9}]
    own = config(HostConfig(ulimits=[Ulimit(name="nproc", soft=1, hard=1)]))
    assert own["process"]["rlimits"] == [{"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}]


def test_privileged_has_everything() -> None:
    """No masks, all devices, all capabilities, a writable /sys."""
    result = config(HostConfig(privileged=True))
    assert "maskedPaths" not in result["linux"]
    assert result["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "CAP_SYS_ADMIN" in result["process"]["capabilities"]["bounding"]
    assert any(node["path"] == "/dev/null" for node in result["linux"]["devices"])
    sysfs = next(m for m in result["mounts"] if m["destination"] == "/sys")
    assert "ro" not in sysfs["options"]


@pytest.mark.parametrize(
    ("host", "present", "absent"),
    [
        (HostConfig(), "CAP_CHOWN", "CAP_SYS_ADMIN"),
        (HostConfig(cap_add=["sys_admin"]), "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"),
        (HostConfig(cap_drop=["CAP_CHOWN"]), "CAP_KILL", "CAP_CHOWN"),
        (HostConfig(cap_drop=["ALL"], cap_add=["KILL"]), "CAP_KILL", "CAP_CHOWN"),
        (HostConfig(cap_add=["ALL"], cap_drop=["KILL"]), "CAP_SYS_ADMIN", "CAP_KILL"),
    ],
)
def test_capabilities(host: HostConfig, present: str, absent: str) -> None:
    """Added and dropped as Docker does."""
    held = effective_capabilities(host)
    assert present in held
    assert absent not in held


def test_namespaces() -> None:
    """New ones by default; joined by path; the host's are left out."""
    record = make_record()
    surroundings = spec.Surroundings(
        namespace_paths={"network": "/proc/9/ns/net", "pid": "", "cgroup": ""}
    )
    namespaces = spec.oci_config(record, surroundings)["linux"]["namespaces"]
    assert {"type": "network", "path": "/proc/9/ns/net"} in namespaces
    assert {n["type"] for n in namespaces} == {"mount", "uts", "ipc", "network"}


def test_exec_process() -> None:
    """An exec has the container's environment and user, and what it adds."""
    record = make_record(config=ContainerConfig(env=["A=1"], user="web"))
    process = spec.exec_process(record, ExecConfig(env=["A=2", "B=3"], tty=True), ["id"])
    assert process["user"]["username"] == "web"
    assert process["env"][2:] == ["A=2", "B=3", "TERM=xterm"]
    assert process["terminal"] is True
    privileged = spec.exec_process(record, ExecConfig(privileged=True, user="0"), ["id"])
    assert "CAP_SYS_ADMIN" in privileged["capabilities"]["effective"]
    assert privileged["user"]["username"] == "0"


def test_masks_can_be_emptied() -> None:
    """`--security-opt systempaths=unconfined` comes as empty lists."""
    linux = config(HostConfig(masked_paths=[], readonly_paths=[]))["linux"]
    assert linux["maskedPaths"] == []
    assert list(config()["linux"]["maskedPaths"]) == list(defaults.MASKED_PATHS)


@pytest.fixture(scope="module")
def oci_schema() -> Any:
    """The runtime-spec's schema; skipped where the specifications are not beside the project."""
    from jsonschema import Draft4Validator

    directory = Path(__file__).parents[3] / "shared/specs/oci-runtime"
    if not directory.is_dir():
        pytest.skip("the OCI runtime-spec's schemas are not beside the project")
    documents = {path.name: json.loads(path.read_text()) for path in directory.glob("*.json")}
    from referencing import Registry
    from referencing.jsonschema import DRAFT4

    registry: Any = Registry().with_resources(
        (name, DRAFT4.create_resource(document)) for name, document in documents.items()
    )
    schema = {**documents["config-schema.json"], "id": ""}
    return Draft4Validator(schema, registry=registry)
