"""Create requests: what is refused, what is not built, how the image is merged in."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sampan.engine.model import (
    ContainerConfig,
    HealthConfig,
    HostConfig,
    LogConfig,
    PortBinding,
    RestartPolicy,
)
from sampan.engine.resources import Machine
from sampan.engine.validation import NOT_BUILT, check_request, checked_rename, fill_in, merge_image
from sampan.errors import Conflict, InvalidArgument, Unsupported
from sampan.oci.image_config import Healthcheck, RunDefaults

MACHINE = Machine(cpus=2, cpuset_cpus="0-1", cpuset_mems="0")


@pytest.mark.parametrize(
    ("config", "host", "text"),
    [
        ({"working_dir": "x"}, {}, "the working directory 'x' is invalid"),
        ({"hostname": "x" * 65}, {}, "invalid hostname xxx"),
        ({"env": ["=x"]}, {}, "invalid environment variable: =x"),
        ({"cmd": ["a\0b"]}, {}, "a NUL byte"),
        ({"stop_signal": "SIGNOSUCH"}, {}, "Invalid signal: SIGNOSUCH"),
        ({}, {"shm_size": -1}, "SHM size can not be less than 0"),
        ({}, {"oom_score_adj": 1001}, "Invalid value 1001, range for oom score adj"),
        ({}, {"log_config": LogConfig(type="x")}, "logger: no log driver named 'x' is registered"),
        ({}, {"isolation": "hyperv"}, "Invalid isolation"),
        ({}, {"cap_add": ["NOSUCH"]}, 'invalid CapAdd: unknown capability: "CAP_NOSUCH"'),
        ({}, {"cap_drop": ["NOSUCH"]}, 'invalid CapDrop: unknown capability: "CAP_NOSUCH"'),
        ({}, {"security_opt": ["nosuch=1"]}, 'invalid --security-opt 2: "nosuch=1"'),
        ({}, {"security_opt": ["word"]}, 'invalid --security-opt 1: "word"'),
        ({}, {"sysctls": {"kernel.panic": "1"}}, 'sysctl "kernel.panic" is not in a separate'),
        ({}, {"network_mode": "container:"}, "invalid container format"),
        (
            {"hostname": "x"},
            {"network_mode": "container:y"},
            "conflicting options: hostname and the network mode",
        ),
        ({"hostname": "x"}, {"uts_mode": "host"}, "conflicting options: hostname and the UTS"),
        ({}, {"uts_mode": "x"}, "invalid UTS mode: x"),
        ({}, {"userns_mode": "x"}, "invalid USER mode: x"),
        ({}, {"cgroupns_mode": "x"}, "invalid cgroup namespace mode: x"),
        ({}, {"ipc_mode": "x"}, "invalid IPC mode: x"),
        ({}, {"pid_mode": "x"}, "invalid PID mode: x"),
        ({}, {"device_cgroup_rules": ["x"]}, "invalid device cgroup rule format: 'x'"),
        ({}, {"restart_policy": RestartPolicy(name="x")}, "invalid restart policy 'x'"),
        (
            {},
            {"restart_policy": RestartPolicy(name="always", maximum_retry_count=3)},
            "maximum retry count cannot be used with restart policy 'always'",
        ),
        (
            {},
            {"restart_policy": RestartPolicy(name="on-failure", maximum_retry_count=-1)},
            "maximum retry count cannot be negative",
        ),
        (
            {},
            {"restart_policy": RestartPolicy(name="always"), "auto_remove": True},
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            {"healthcheck": HealthConfig(test=["CMD", "true"], interval=1)},
            {},
            "Interval in Healthcheck cannot be less than 1ms",
        ),
        (
            {"healthcheck": HealthConfig(test=["CMD", "true"], start_period=-1)},
            {},
            "StartPeriod in Healthcheck cannot be less than 1ms",
        ),
        (
            {"healthcheck": HealthConfig(test=["CMD", "true"], retries=-1)},
            {},
            "Retries in Healthcheck cannot be negative",
        ),
    ],
)
def test_refused(config: dict[str, Any], host: dict[str, Any], text: str) -> None:
    """Each bad value is refused by name."""
    with pytest.raises(InvalidArgument, match=f"^{re.escape(text)}"):
        check_request(ContainerConfig(**config), HostConfig(**host), MACHINE)


ASKING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "HostConfig.PortBindings": ({}, {"port_bindings": {"80/tcp": [PortBinding(host_port="1")]}}),
    "HostConfig.PublishAllPorts": ({}, {"publish_all_ports": True}),
    "HostConfig.VolumesFrom": ({}, {"volumes_from": ["x"]}),
    "HostConfig.VolumeDriver": ({}, {"volume_driver": "x"}),
    "HostConfig.DeviceRequests": ({}, {"device_requests": [{}]}),
    "HostConfig.Cgroup": ({}, {"cgroup": "container:x"}),
    "HostConfig.Capabilities": ({}, {"capabilities": ["CAP_CHOWN"]}),
    "Volumes": ({"volumes": {"/data": {}}}, {}),
}


@pytest.mark.parametrize("name", NOT_BUILT)
def test_not_built(name: str) -> None:
    """What is not built is refused by its JSON name, never ignored."""
    config, host = ASKING[name]
    with pytest.raises(Unsupported, match=f"^{re.escape(name)} is not built yet"):
        check_request(ContainerConfig(**config), HostConfig(**host), MACHINE)


@pytest.mark.parametrize("option", ["label=type:svirt_t", "label:user:x", "label=nosuch"])
def test_selinux_labels_are_not_built(option: str) -> None:
    """Refused rather than believed in; turning them off is what is the case anyhow."""
    text = re.escape(f"HostConfig.SecurityOpt {option} is not built yet")
    with pytest.raises(Unsupported, match=f"^{text}$"):
        check_request(ContainerConfig(), HostConfig(security_opt=[option]), MACHINE)
    for off in ("label=disable", "label:disable", "disable"):
        check_request(ContainerConfig(), HostConfig(security_opt=[off]), MACHINE)


def test_plain_request_is_fine() -> None:
    """What the docker CLI sends for `run IMAGE` is accepted without a warning."""
    host = HostConfig(restart_policy=RestartPolicy(name="no"), port_bindings={}, links=[])
    assert check_request(ContainerConfig(image="x", volumes={}), host, MACHINE) == []


IMAGE = RunDefaults(
    cmd=["serve"],
    entrypoint=["/entry"],
    env=["PATH=/bin", "A=image"],
    user="web",
    labels={"a": "1"},
)


@pytest.mark.parametrize(
    ("config", "command"),
    [
        ({}, (["/entry"], ["serve"])),
        ({"cmd": ["x"]}, (["/entry"], ["x"])),
        ({"cmd": "x"}, (["/entry"], ["x"])),
        ({"entrypoint": ["/other"]}, (["/other"], None)),
        ({"entrypoint": [""], "cmd": ["x"]}, (None, ["x"])),
    ],
)
def test_merged_command(config: dict[str, Any], command: tuple[Any, Any]) -> None:
    """Entrypoint and command come from the image where the client leaves them open."""
    merged = merge_image(ContainerConfig(**config), IMAGE)
    assert (merged.entrypoint, merged.cmd) == command


def test_merged_rest() -> None:
    """The client's values win, key by key."""
    merged = merge_image(ContainerConfig(env=["A=mine"], labels={"b": "2"}), IMAGE)
    assert merged.env == ["A=mine", "PATH=/bin"]
    assert merged.labels == {"a": "1", "b": "2"}
    assert merged.user == "web"


def test_nothing_to_run() -> None:
    """Without any command there is no container."""
    with pytest.raises(InvalidArgument, match=r"^No command specified$"):
        merge_image(ContainerConfig(), RunDefaults())
    with pytest.raises(InvalidArgument, match=r"^No command specified$"):
        merge_image(ContainerConfig(entrypoint=[""]), IMAGE)


def test_rename() -> None:
    """dockerd's texts for the two renames that are none."""
    with pytest.raises(InvalidArgument, match="Neither old nor new names may be empty"):
        checked_rename("/", "a")
    with pytest.raises(Conflict, match="same name as its current name"):
        checked_rename("/a", "a")


def test_fill_in() -> None:
    """What the engine chose is written down as if it had been asked for."""
    host = HostConfig(memory=64 << 20, memory_swappiness=-1, pids_limit=0)
    fill_in(host, cgroup_version=1)
    assert (host.memory_swap, host.memory_swappiness, host.pids_limit) == (128 << 20, None, None)
    assert (host.cgroupns_mode, host.ipc_mode, host.runtime) == ("host", "private", "sampan")
    other = HostConfig(privileged=True, masked_paths=["/proc/keys"])
    fill_in(other, cgroup_version=2)
    assert (other.cgroupns_mode, other.masked_paths) == ("host", None)


@pytest.mark.parametrize(
    "image",
    [
        RunDefaults(cmd=["a\0"]),
        RunDefaults(cmd=["a"], env=["A=\0"]),
        RunDefaults(cmd=["a"], working_dir="/\0"),
        RunDefaults(cmd=["a"], user="\0"),
        RunDefaults(cmd=["a"], volumes={"/\0": {}}),
    ],
)
def test_an_image_with_nul(image: RunDefaults) -> None:
    with pytest.raises(InvalidArgument, match="a NUL byte"):
        merge_image(ContainerConfig(), image)


@pytest.mark.parametrize(
    "check",
    [
        Healthcheck(test=["CMD", "true"], interval=-1),
        Healthcheck(test=["CMD", "true"], retries=-1),
        Healthcheck(test=["TCP", "x"]),
    ],
)
def test_an_image_with_a_bad_health_check(check: Healthcheck) -> None:
    """What an image says is checked as what a client says."""
    image = RunDefaults(cmd=["x"], healthcheck=check)
    with pytest.raises(InvalidArgument, match=r"[hH]ealth ?check"):
        merge_image(ContainerConfig(), image)
    merge_image(ContainerConfig(healthcheck=HealthConfig(test=["NONE"], interval=10**9, retries=1)), image)  # fmt: skip
