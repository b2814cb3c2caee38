"""Options of create and run: what the container gets of each; on dockerd too.

What else an option does stands beside its subject: test_run (process, limits, confinement), test_network,
test_volumes, test_health, test_restart_policies. docs/options.md says which test shows which field.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine, cgroups_below
from support.http import Answer

MIB = 1 << 20


def disk() -> str:
    """A block device of the machine that is a whole disk."""
    for name in sorted(os.listdir("/sys/block")):
        if os.path.exists(f"/dev/{name}") and not name.startswith(("loop", "ram", "zram", "sr")):
            return f"/dev/{name}"
    pytest.skip("needs a disk")


def create(target: Engine, host: dict[str, Any], **config: object) -> Answer:
    body = {
        "Image": IMAGE,
        "Cmd": ["true"],
        "HostConfig": {"NetworkMode": "none", **host},
        **config,
    }
    return target.request("POST", "/containers/create", body=body)


@pytest.mark.cgroup1
@pytest.mark.parametrize(
    ("option", "file"),
    [
        ("--device-read-bps", "blkio.throttle.read_bps_device"),
        ("--device-write-bps", "blkio.throttle.write_bps_device"),
        ("--device-read-iops", "blkio.throttle.read_iops_device"),
        ("--device-write-iops", "blkio.throttle.write_iops_device"),
    ],
)
def test_device_rates(docker: DockerCLI, option: str, file: str) -> None:
    path = disk()
    number = os.stat(path).st_rdev
    rate = "1048576"
    shown = docker("run", "--rm", "--network", "none", option, f"{path}:{rate}", IMAGE, "cat", f"/sys/fs/cgroup/blkio/{file}").line  # fmt: skip
    assert shown == f"{os.major(number)}:{os.minor(number)} {rate}"


@pytest.mark.cgroup1
@pytest.mark.parametrize(
    ("options", "file", "shown"),
    [
        (["--memory-swappiness", "30"], "memory/memory.swappiness", "30"),
        (["--oom-kill-disable", "-m", "64m"], "memory/memory.oom_control", "oom_kill_disable 1"),
        (["-m", "64m", "--memory-swap", "-1"], "memory/memory.limit_in_bytes", str(64 * MIB)),
        (["-m", "64m", "--memory-swap", "80m"], "memory/memory.memsw.limit_in_bytes", str(80 * MIB)),
        (["--cpuset-mems", "0"], "cpuset/cpuset.mems", "0"),
        (["--cpu-period", "50000"], "cpu/cpu.cfs_period_us", "50000"),
        (["--cpu-quota", "20000"], "cpu/cpu.cfs_quota_us", "20000"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_limit(docker: DockerCLI, options: list[str], file: str, shown: str) -> None:
    out = docker("run", "--rm", "--network", "none", *options, IMAGE, "cat", f"/sys/fs/cgroup/{file}").out  # fmt: skip
    assert out.splitlines()[0] == shown


@pytest.mark.cgroup1
def test_device_rules(docker: DockerCLI) -> None:
    """--device-cgroup-rule and the access of --device are the device cgroup's."""
    script = "cat /sys/fs/cgroup/devices/devices.list; ls -l /dev/log-of-kernel"
    out = docker(
        "run", "--rm", "--network", "none", "--device-cgroup-rule", "c 10:232 rw",
        "--device", "/dev/kmsg:/dev/log-of-kernel:r", IMAGE, "sh", "-c", script,
    ).out  # fmt: skip
    assert {"c 10:232 rw", "c 1:11 r"} <= set(out.splitlines())
    assert "1,  11" in out


@pytest.mark.cgroup1
def test_cgroup_parent(docker: DockerCLI, target: Engine) -> None:
    parent = f"{target.cgroup_parent}/below"
    try:
        out = docker("run", "--rm", "--network", "none", "--cgroup-parent", parent, IMAGE, "grep", ":memory:", "/proc/self/cgroup").line  # fmt: skip
        assert out.split(":")[2].startswith(parent + "/")
    finally:  # a parent stays, under dockerd, too
        for directory in cgroups_below(target.cgroup_parent.strip("/")):
            os.rmdir(directory)


@pytest.mark.parametrize(
    ("options", "command", "printed"),
    [
        (["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj", "500"),
        (["--domainname", "example.org"], "cat /proc/sys/kernel/domainname", "example.org"),
        (["--group-add", "audio", "--group-add", "12345"], "id -G", "0 29 12345"),
        (["--ipc", "none"], "test -e /dev/shm || echo none", "none"),
        (["--userns", "host"], "awk '{print $1, $2, $3}' /proc/self/uid_map", "0 0 4294967295"),
        (["--add-host", "six:::1"], "grep six /etc/hosts", "::1\tsix"),
        (["--dns-option", "ndots:3", "--network", "bridge"], "grep options /etc/resolv.conf", "options ndots:3"),
        (["--dns-search", "example.org", "--network", "bridge"], "grep search /etc/resolv.conf", "search example.org"),
        (["--shm-size", "2m"], "df -k /dev/shm | awk 'NR==2 {print $1, $2}'", "shm 2048"),
        (["--stop-signal", "USR1"], "echo fine", "fine"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_option(docker: DockerCLI, options: list[str], command: str, printed: str) -> None:
    given = options if "--network" in options else ["--network", "none", *options]
    assert docker("run", "--rm", *given, IMAGE, "sh", "-c", command).line == printed


@pytest.mark.parametrize(("mode", "same"), [("host", True), ("private", False)])
def test_cgroup_namespace(docker: DockerCLI, mode: str, same: bool) -> None:
    inside = docker("run", "--rm", "--network", "none", "--cgroupns", mode, IMAGE, "readlink", "/proc/self/ns/cgroup").line  # fmt: skip
    assert (inside == os.readlink("/proc/self/ns/cgroup")) is same


def test_uts_of_the_host(docker: DockerCLI) -> None:
    out = docker("run", "--rm", "--network", "none", "--uts", "host", IMAGE, "readlink", "/proc/self/ns/uts").line  # fmt: skip
    assert out == os.readlink("/proc/self/ns/uts")


def test_host_gateway(docker: DockerCLI) -> None:
    """It is the address of the default bridge, which is the container's way out."""
    script = "grep here /etc/hosts | cut -f1; ip route | awk '/default/ {print $3}'"
    out = docker("run", "--rm", "--add-host", "here:host-gateway", IMAGE, "sh", "-c", script).out
    address, gateway = out.split()
    assert address == gateway


def test_paths_unmasked(target: Engine) -> None:
    """Empty lists mean none; docker run --security-opt systempaths=unconfined sends them."""
    identity = create(
        target,
        {"MaskedPaths": [], "ReadonlyPaths": []},
        Cmd=["grep", "-c", "/proc/", "/proc/mounts"],
    ).json["Id"]
    host = target.get(f"/containers/{identity}/json").json["HostConfig"]
    assert (host["MaskedPaths"], host["ReadonlyPaths"]) == ([], [])


def test_network_disabled(target: Engine) -> None:
    identity = create(
        target,
        {"NetworkMode": "bridge"},
        Cmd=["ls", "/sys/class/net"],
        NetworkDisabled=True,
        Tty=True,
    ).json["Id"]
    target.post(f"/containers/{identity}/start")
    target.post(f"/containers/{identity}/wait")
    assert target.get(f"/containers/{identity}/logs", stdout=1).body.split() == [b"lo"]


def test_terminal_size(only_sampan: None, target: Engine) -> None:
    """ConsoleSize is (rows, columns) of a terminal at its start; dockerd does so since 23."""
    script = "stty size; stty size"
    identity = create(
        target, {"ConsoleSize": [31, 97]}, Cmd=["sh", "-c", script], Tty=True, OpenStdin=True
    ).json["Id"]
    target.post(f"/containers/{identity}/start")
    target.post(f"/containers/{identity}/wait")
    assert b"31 97" in target.get(f"/containers/{identity}/logs", stdout=1).body


def test_stop_timeout(docker: DockerCLI, target: Engine, unused_name: str) -> None:
    """Zero of the container's own: no ten seconds for a process that does not listen."""
    docker("run", "-d", "--name", unused_name, "--network", "none", "--stop-timeout", "0", IMAGE, "sh", "-c", "trap '' TERM; sleep 600 & wait; wait")  # fmt: skip
    docker("stop", unused_name)
    assert target.get(f"/containers/{unused_name}/json").json["State"]["ExitCode"] == 137


def test_what_is_only_kept(target: Engine) -> None:
    """Fields that say something to clients, to images made of the container, or on Windows."""
    kept = {
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "OnBuild": ["RUN x"],
        "Shell": ["/bin/x", "-c"],
        "ExposedPorts": {"80/tcp": {}},
        "Labels": {"a": "b"},
    }
    host = {"ContainerIDFile": "/nowhere/id"}
    identity = create(target, host, ArgsEscaped=True, **kept).json["Id"]
    document = target.get(f"/containers/{identity}/json").json
    assert {name: document["Config"][name] for name in kept} == kept
    assert document["HostConfig"]["ContainerIDFile"] == "/nowhere/id"


def test_annotations(only_sampan: None, target: Engine) -> None:
    """They are in the OCI configuration, for hooks and whoever looks; of API 1.43, dockerd 23."""
    identity = create(target, {"Annotations": {"a": "b"}}).json["Id"]
    target.post(f"/containers/{identity}/start")
    target.post(f"/containers/{identity}/wait")
    with open(f"{target.data_root}/containers/{identity}/config.json") as file:
        assert json.load(file)["annotations"] == {"a": "b"}
    assert target.get(f"/containers/{identity}/json").json["HostConfig"]["Annotations"] == {
        "a": "b"
    }


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        (["-v", "PATH:/d:ro"], "refused"),
        (["--mount", "type=bind,src=PATH,dst=/d,readonly"], "refused"),
        (["--mount", "type=bind,src=PATH,dst=/d,readonly,bind-recursive=readonly,bind-propagation=rprivate"], "refused"),
        (["--mount", "type=bind,src=PATH,dst=/d,readonly,bind-recursive=writable"], "written"),
    ],
)  # fmt: skip
def test_read_only_binds_are_so_below(
    only_sampan: None, newest_docker: DockerCLI, tmp_path: Path, options: list[str], outcome: str
) -> None:
    """What is mounted below is read-only, too; dockerd does that since 25."""
    below = tmp_path / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(below)], check=True)
    try:
        given = [option.replace("PATH", str(tmp_path)) for option in options]
        script = "touch /d/x 2>/dev/null && echo broken; touch /d/below/x 2>/dev/null && echo written || echo refused"
        assert newest_docker("run", "--rm", *given, IMAGE, "sh", "-c", script).line == outcome
    finally:
        subprocess.run(["umount", str(below)], check=True)


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ({"Aliases": ["a"]}, "network-scoped alias is supported only for containers in user defined networks"),
        ({"IPAMConfig": {"IPv4Address": "172.17.0.77"}}, "user specified IP address is supported on user defined networks only"),
    ],
)  # fmt: skip
def test_wishes_for_the_default_network(target: Engine, wish: dict[str, Any], text: str) -> None:
    networks = {"EndpointsConfig": {"bridge": wish}}
    made = create(target, {"NetworkMode": "bridge"}, NetworkingConfig=networks)
    answer = target.post(f"/containers/{made.json['Id']}/start")
    assert (answer.status, answer.message) == (400, text)


def test_a_network_that_there_is_not(target: Engine) -> None:
    """Found out at the start: clients take a 404 of create for a missing image."""
    networks = {"EndpointsConfig": {"nosuch": {}}}
    made = create(target, {"NetworkMode": "bridge"}, NetworkingConfig=networks)
    answer = target.post(f"/containers/{made.json['Id']}/start")
    assert (answer.status, answer.message) == (404, "network nosuch not found")


# Namespaces of another container


@pytest.fixture
def donor(docker: DockerCLI, unused_name: str) -> str:
    name = unused_name + "d"
    docker("run", "-d", "--name", name, "--network", "none", "--ipc", "shareable", IMAGE, "sleep", "600")  # fmt: skip
    docker("exec", name, "sh", "-c", "echo from the donor > /dev/shm/file")
    return name


def test_ipc_of_another_container(docker: DockerCLI, donor: str) -> None:
    """Its namespace and its /dev/shm."""
    script = "readlink /proc/self/ns/ipc; cat /dev/shm/file; echo back > /dev/shm/answer; grep -c mqueue /proc/mounts"
    lines = docker("run", "--rm", "--network", "none", "--ipc", f"container:{donor}", IMAGE, "sh", "-c", script).out.splitlines()  # fmt: skip
    assert lines == [
        docker("exec", donor, "readlink", "/proc/self/ns/ipc").line,
        "from the donor",
        "1",
    ]
    assert docker("exec", donor, "cat", "/dev/shm/answer").line == "back"


def test_shm_of_another_container_stays_when_that_ends(
    docker: DockerCLI, donor: str, unused_name: str
) -> None:
    docker("run", "-d", "--name", unused_name, "--network", "none", "--ipc", f"container:{donor}", IMAGE, "sleep", "600")  # fmt: skip
    docker("exec", unused_name, "sh", "-c", "echo mine > /dev/shm/mine")
    docker("kill", donor)
    assert docker("exec", unused_name, "cat", "/dev/shm/mine").line == "mine"


def test_shm_of_another_container_is_there_for_the_moment_of_a_start(
    only_sampan: None, docker: DockerCLI, target: Engine, donor: str
) -> None:
    """Where the engine mounts it nothing is left, whether the start succeeds or not."""
    for command, code in (("true", 0), ("nosuch", 127)):
        done = docker("run", "--rm", "--network", "none", "--ipc", f"container:{donor}", IMAGE, command, check=False)  # fmt: skip
        assert done.code == code
        assert os.listdir(f"{target.exec_root}/volumes") == []


def test_pid_of_another_container(docker: DockerCLI, donor: str) -> None:
    out = docker("run", "--rm", "--network", "none", "--pid", f"container:{donor}", IMAGE, "ps").out
    assert "sleep 600" in out


def test_others_are_named_by_id(
    docker: DockerCLI, target: Engine, donor: str, unused_name: str
) -> None:
    docker("create", "--name", unused_name, "--ipc", f"container:{donor}", "--pid", f"container:{donor}", IMAGE)  # fmt: skip
    identity = target.get(f"/containers/{donor}/json").json["Id"]
    host = target.get(f"/containers/{unused_name}/json").json["HostConfig"]
    assert (host["IpcMode"], host["PidMode"]) == (f"container:{identity}", f"container:{identity}")


@pytest.mark.parametrize("mode", ["--ipc", "--pid"])
def test_no_such_other_container(docker: DockerCLI, mode: str) -> None:
    done = docker("run", "--rm", mode, "container:nosuch", IMAGE, "true", check=False)
    assert done.code == 125
    assert "No such container: nosuch" in done.err


@pytest.mark.parametrize("mode", ["--ipc", "--pid"])
def test_the_other_container_does_not_run(docker: DockerCLI, donor: str, mode: str) -> None:
    docker("kill", donor)
    done = docker("run", "--rm", mode, f"container:{donor}", IMAGE, "true", check=False)
    assert done.code == 125
    assert "is not running" in done.err


def test_private_ipc_is_not_shared(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, "--network", "none", "--ipc", "private", IMAGE, "sleep", "600")  # fmt: skip
    done = docker("run", "--rm", "--ipc", f"container:{unused_name}", IMAGE, "true", check=False)
    assert done.code == 125
    assert "non-shareable IPC (hint: use IpcMode:shareable for the donor container)" in done.err


# Logs


def test_log_attributes(docker: DockerCLI, target: Engine, unused_name: str) -> None:
    """Labels, variables and tag that --log-opt names are in each entry, and in `logs --details`."""
    docker(
        "run", "--name", unused_name, "--network", "none", "-l", "one=1", "-l", "zz=2", "-l", "not=3",
        "-e", "E=5", "-e", "QQ=6", "-e", "X=7",
        "--log-opt", "labels=one,other", "--log-opt", "labels-regex=^z", "--log-opt", "env=E",
        "--log-opt", "env-regex=^Q", "--log-opt", "tag={{.Name}}/x", IMAGE, "echo", "hi",
    )  # fmt: skip
    expected = f"E=5,QQ=6,one=1,tag={unused_name}%2Fx,zz=2 hi"
    assert docker("logs", "--details", unused_name).line == expected
    with open(target.get(f"/containers/{unused_name}/json").json["LogPath"]) as file:
        attributes = json.loads(file.read())["attrs"]
    assert attributes == {"E": "5", "QQ": "6", "one": "1", "tag": f"{unused_name}/x", "zz": "2"}


def test_log_mode(docker: DockerCLI) -> None:
    options = ["--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=4k"]
    assert docker("run", "--rm", "--network", "none", *options, IMAGE, "echo", "hi").line == "hi"


# Refused, or warned of


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ({"ExtraHosts": ["bad"]}, 'bad format for add-host: "bad"'),
        ({"ExtraHosts": ["bad:xx"]}, 'invalid IP address in add-host: "xx"'),
        ({"LogConfig": {"Type": "json-file", "Config": {"bad": "x"}}}, "unknown log opt 'bad' for json-file log driver"),
        ({"LogConfig": {"Config": {"bad": "x"}}}, "unknown log opt 'bad' for json-file log driver"),
        ({"LogConfig": {"Type": "json-file", "Config": {"mode": "bad"}}}, "logger: logging mode not supported: bad"),
        ({"LogConfig": {"Type": "json-file", "Config": {"max-buffer-size": "4k"}}}, "logger: max-buffer-size option is only supported with 'mode=non-blocking'"),
        ({"CgroupnsMode": "bad"}, "invalid cgroup namespace mode: bad"),
        ({"MemorySwappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
        ({"OomScoreAdj": 5000}, "Invalid value 5000, range for oom score adj is [-1000, 1000]"),
        ({"ShmSize": -1}, "SHM size can not be less than 0"),
        ({"KernelMemory": MIB}, "Minimum kernel memory limit allowed is 6MB"),
        ({"CapAdd": ["bad"]}, 'invalid CapAdd: unknown capability: "CAP_BAD"'),
        ({"RestartPolicy": {"Name": "bad"}}, "invalid restart policy 'bad'"),
        ({"VolumesFrom": ["nosuch"]}, "No such container: nosuch"),
        ({"IpcMode": "container:nosuch"}, "No such container: nosuch"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_refused(target: Engine, host: dict[str, Any], text: str) -> None:
    answer = create(target, host)
    assert (answer.status, answer.message) == (400, text)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ({"Isolation": "hyperv"}, "Invalid isolation: \"hyperv\" - linux only supports 'default'"),
        ({"IOMaximumIOps": 50}, "Invalid QoS settings: linux does not support configuration of maximum IOPs"),
        ({"IOMaximumBandwidth": 50}, "Invalid QoS settings: linux does not support configuration of maximum bandwidth"),
        ({"CpuRealtimePeriod": 1000, "CpuRealtimeRuntime": 2000}, "cpu real-time runtime cannot be higher than cpu real-time period"),
        ({"SecurityOpt": ["bad"]}, 'invalid --security-opt 1: "bad"'),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_refused_with_another_status(target: Engine, host: dict[str, Any], text: str) -> None:
    """dockerd calls these its own errors (500); here they are the request's."""
    answer = create(target, host)
    assert answer.status == (500 if target.name == "dockerd" else 400)
    assert answer.message == text


@pytest.mark.parametrize(
    ("host", "warning"),
    [
        ({"KernelMemory": 64 * MIB}, "Specifying a kernel memory limit is deprecated and will be removed in a future release."),
        ({"CpuPercent": 50}, "linux does not support CPU percent. Percent discarded."),
        ({"OomKillDisable": True}, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_warned(target: Engine, host: dict[str, Any], warning: str) -> None:
    answer = create(target, host)
    assert answer.status == 201
    assert warning in answer.json["Warnings"]


# What dockerd passes over in silence, or refuses only at the start


@pytest.mark.parametrize(
    ("host", "status", "text"),
    [
        ({"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}, 501, "HostConfig.DeviceRequests is not built yet"),
        ({"StorageOpt": {"size": "10G"}}, 500, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option (or on ext4: mount the file system of the data root with the option prjquota)"),
        ({"StorageOpt": {"foo": "1"}}, 500, "Unknown option foo"),
        ({"Capabilities": ["CAP_CHOWN"]}, 501, "HostConfig.Capabilities is not built yet"),
        ({"Cgroup": "container:x"}, 501, "HostConfig.Cgroup is not built yet"),
        ({"UTSMode": "bad"}, 400, "invalid UTS mode: bad"),
        ({"UsernsMode": "bad"}, 400, "invalid USER mode: bad"),
        ({"PidMode": "bad"}, 400, "invalid PID mode: bad"),
        ({"Runtime": "nosuch"}, 400, "unknown or invalid runtime name: nosuch"),
        ({"DeviceCgroupRules": ["c bad rwm"]}, 400, "invalid device cgroup rule format: 'c bad rwm'"),
        ({"Ulimits": [{"Name": "bad", "Soft": 1, "Hard": 1}]}, 400, "invalid ulimit type: bad"),
        ({"LogConfig": {"Config": {"max-size": "bad"}}}, 400, "invalid size: 'bad'"),
        ({"LogConfig": {"Config": {"tag": "{{if .Name}}x"}}}, 400, "log opt tag: {{if .Name}} is not one of the fields that a tag can have"),
        ({"LogConfig": {"Config": {"env-regex": "("}}}, 400, "log opt env-regex: missing ), unterminated subpattern at position 0"),
        ({"LogConfig": {"Type": "syslog"}}, 400, "logger: no log driver named 'syslog' is registered"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_never_ignored(
    only_sampan: None, target: Engine, host: dict[str, Any], status: int, text: str
) -> None:
    answer = create(target, host)
    assert (answer.status, answer.message) == (status, text)


def test_windows_cpus_are_warned_of(only_sampan: None, target: Engine) -> None:
    answer = create(target, {"CpuCount": 2})
    assert answer.json["Warnings"] == ["linux does not support CPU count. Count discarded."]


@pytest.mark.cgroup1
def test_kernel_memory_for_tcp(only_sampan: None, target: Engine) -> None:
    """Of API 1.40 to 1.51; dockerd 20.10 notes it and does nothing."""
    file = "/sys/fs/cgroup/memory/memory.kmem.tcp.limit_in_bytes"
    identity = create(target, {"KernelMemoryTCP": 64 * MIB}, Cmd=["cat", file]).json["Id"]
    target.post(f"/containers/{identity}/start")
    target.post(f"/containers/{identity}/wait")
    shown = target.get(f"/containers/{identity}/logs", stdout=1).body
    assert shown.endswith(b"%d\n" % (64 * MIB))
