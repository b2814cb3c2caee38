"""`docker update`: what changes at once, what stays for the next start, what is refused; on dockerd too."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine

MIB = 1 << 20


@pytest.fixture
def name(unused_name: str, target: Engine, docker: DockerCLI) -> str:
    """A container that runs, without limits."""
    docker("run", "-d", "--name", unused_name, "--network", "none", IMAGE, "sleep", "600")
    return unused_name


def host_config(target: Engine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = target.get(f"/containers/{name}/json").json["HostConfig"]
    return found


def update(target: Engine, name: str, **change: object) -> tuple[int, Any]:
    answer = target.request("POST", f"/containers/{name}/update", body=change)
    return answer.status, answer.json


def limits(docker: DockerCLI, name: str, *files: str) -> list[str]:
    """The container's own cgroup files, as it sees them."""
    return docker("exec", name, "sh", "-c", f"cd /sys/fs/cgroup; cat {' '.join(files)}").out.split()


@pytest.mark.cgroup1
def test_limits_of_a_running_container(docker: DockerCLI, target: Engine, name: str) -> None:
    """Limits are the kernel's at once: memory, CPU, CPUs, processes; up and down again."""
    files = (
        "memory/memory.limit_in_bytes",
        "memory/memory.memsw.limit_in_bytes",
        "memory/memory.soft_limit_in_bytes",
        "cpu/cpu.shares",
        "cpu/cpu.cfs_quota_us",
        "cpuset/cpuset.cpus",
        "pids/pids.max",
    )
    options = "-m 64m --memory-swap 96m --memory-reservation 32m -c 512 --cpus 0.5 --cpuset-cpus 0 --pids-limit 20"
    done = docker("update", *options.split(), name)
    assert done.out == f"{name}\n"
    expected = [64 * MIB, 96 * MIB, 32 * MIB, 512, 50_000, 0, 20]
    assert limits(docker, name, *files) == [str(value) for value in expected]
    docker("update", "-m", "128m", "--memory-swap", "256m", "--pids-limit", "-1", name)
    assert limits(docker, name, *files[:2], files[6]) == [str(128 * MIB), str(256 * MIB), "max"]
    docker("update", "-m", "16m", "--memory-swap", "32m", name)
    assert limits(docker, name, *files[:2]) == [str(16 * MIB), str(32 * MIB)]
    host = host_config(target, name)
    assert (host["Memory"], host["MemorySwap"], host["CpuShares"]) == (16 * MIB, 32 * MIB, 512)
    assert (host["NanoCpus"], host["CpusetCpus"], host["PidsLimit"]) == (500_000_000, "0", 0)


@pytest.mark.cgroup2
@pytest.mark.vm
def test_limits_of_a_running_container_on_v2(docker: DockerCLI, name: str) -> None:
    files = ("memory.max", "memory.low", "cpu.max", "pids.max")
    options = "-m 64m --memory-swap 96m --memory-reservation 32m --cpus 0.5 --pids-limit 20"
    docker("update", *options.split(), name)
    found = [str(64 * MIB), str(32 * MIB), "50000", "100000", "20"]
    assert limits(docker, name, *files) == found
    docker("update", "--pids-limit", "-1", name)
    assert limits(docker, name, "pids.max") == ["max"]


@pytest.mark.cgroup1
@pytest.mark.usefixtures("only_sampan")
def test_device_rates_of_a_running_container(docker: DockerCLI, target: Engine, name: str) -> None:
    """dockerd 20.10 takes them and does nothing."""

    def rates(file: str) -> set[str]:
        text = docker("exec", name, "cat", f"/sys/fs/cgroup/blkio/blkio.throttle.{file}_device").out
        return set(text.splitlines())

    loops = [{"Path": f"/dev/loop{number}", "Rate": 1000 + number} for number in range(2)]
    assert update(target, name, BlkioDeviceReadBps=loops, BlkioDeviceWriteIOps=loops[:1])[0] == 200
    assert (rates("read_bps"), rates("write_iops")) == ({"7:0 1000", "7:1 1001"}, {"7:0 1000"})
    assert update(target, name, BlkioDeviceReadBps=loops[1:])[0] == 200
    assert (rates("read_bps"), rates("write_iops")) == ({"7:1 1001"}, {"7:0 1000"})
    docker("restart", "-t", "0", name)
    assert (rates("read_bps"), rates("write_iops")) == ({"7:1 1001"}, {"7:0 1000"})
    none = [{"Path": "/dev/nosuch", "Rate": 1}]
    assert update(target, name, BlkioDeviceReadBps=none)[0] == 404
    nothing = [{"Path": "/dev/loop0", "Rate": 0}]
    assert update(target, name, BlkioDeviceWriteIOps=nothing, CpuShares=100)[0] == 200
    assert (rates("read_bps"), rates("write_iops")) == ({"7:1 1001"}, set())
    host = host_config(target, name)
    assert (host["BlkioDeviceReadBps"], host["BlkioDeviceWriteIOps"]) == (loops[1:], [])


@pytest.mark.cgroup2
@pytest.mark.vm
@pytest.mark.usefixtures("only_sampan")
def test_device_rates_of_a_running_container_on_v2(
    docker: DockerCLI, target: Engine, name: str
) -> None:
    subprocess.run(["modprobe", "--quiet", "loop"], check=False)
    if not os.path.exists("/dev/loop0"):
        pytest.skip("needs a block device: loop0")
    rates = [{"Path": "/dev/loop0", "Rate": 100000}]
    assert update(target, name, BlkioDeviceReadBps=rates)[0] == 200
    assert "rbps=100000" in limits(docker, name, "io.max")
    assert update(target, name, BlkioDeviceReadBps=[{**rates[0], "Rate": 0}])[0] == 200
    assert limits(docker, name, "io.max") == []


@pytest.mark.cgroup1
def test_the_next_start_has_them(docker: DockerCLI, name: str) -> None:
    docker("update", "-m", "64m", "--memory-swap", "64m", "--cpu-quota", "30000", name)
    docker("restart", "-t", "0", name)
    files = ("memory/memory.limit_in_bytes", "cpu/cpu.cfs_quota_us")
    assert limits(docker, name, *files) == [str(64 * MIB), "30000"]


@pytest.mark.cgroup1
def test_a_container_that_does_not_run(docker: DockerCLI, unused_name: str) -> None:
    """Only what is written changes; the start does the rest."""
    docker("create", "--name", unused_name, "--network", "none", IMAGE, "cat", "/sys/fs/cgroup/pids/pids.max")  # fmt: skip
    docker("update", "--pids-limit", "33", unused_name)
    assert docker("start", "-a", unused_name).line == "33"


def test_a_paused_container(docker: DockerCLI, target: Engine, name: str) -> None:
    docker("pause", name)
    docker("update", "--cpu-shares", "300", name)
    docker("unpause", name)
    assert host_config(target, name)["CpuShares"] == 300


def test_several_at_once(docker: DockerCLI, name: str) -> None:
    """Those that there are change; the others are told at the end."""
    done = docker("update", "--cpu-shares", "300", "nosuch", name, check=False)
    assert (done.code, done.out) == (1, f"{name}\n")
    assert "No such container: nosuch" in done.err


def test_restart_policy(docker: DockerCLI, target: Engine, name: str) -> None:
    docker("update", "--restart", "on-failure:3", name)
    policy = {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host_config(target, name)["RestartPolicy"] == policy
    docker("update", "--cpu-shares", "300", name)
    assert host_config(target, name)["RestartPolicy"] == policy


def test_restart_policy_counts_at_the_end(docker: DockerCLI, target: Engine, name: str) -> None:
    """Of the moment of the end, not of the start."""
    docker("update", "--restart", "on-failure:1", name)
    docker("exec", name, "kill", "-9", "1", check=False)
    docker("update", "--restart", "no", name)
    assert host_config(target, name)["RestartPolicy"]["Name"] == "no"


def test_event(docker: DockerCLI, target: Engine, name: str) -> None:
    docker("update", "--cpu-shares", "300", name)
    now = target.get("/info").json["SystemTime"]
    line = docker(
        "events", "--since", "10m", "--until", now, "--filter", f"container={name}",
        "--filter", "event=update", "--format", "{{json .}}",
    ).line  # fmt: skip
    event = json.loads(line)
    assert (event["Type"], event["Action"]) == ("container", "update")
    assert event["Actor"]["Attributes"] == {"image": IMAGE, "name": name}


@pytest.mark.parametrize(
    ("before", "change", "status", "text"),
    [
        ({}, {"Memory": MIB}, 400, "Minimum memory limit allowed is 6MB"),
        ({}, {"Memory": -1}, 400, "Minimum memory limit allowed is 6MB"),
        ({}, {"MemoryReservation": MIB}, 400, "Minimum memory reservation allowed is 6MB"),
        ({}, {"Memory": 64 * MIB}, 409, "Cannot update container ID: Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"),
        ({"Memory": 64 * MIB}, {"Memory": 300 * MIB}, 409, "Cannot update container ID: Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"),
        ({"NanoCpus": 500_000_000}, {"CpuQuota": 50_000}, 409, "Cannot update container ID: Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"),
        ({"NanoCpus": 500_000_000}, {"CpuPeriod": 50_000}, 409, "Cannot update container ID: Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set"),
        ({"CpuQuota": 50_000}, {"NanoCpus": 500_000_000}, 409, "Cannot update container ID: Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set"),
        ({"CpuPeriod": 50_000}, {"NanoCpus": 500_000_000}, 409, "Cannot update container ID: Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set"),
        ({}, {"CpuQuota": 100}, 400, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        ({}, {"CpusetCpus": "777"}, 400, "Requested CPUs are not available - requested 777, available: "),
        ({}, {"RestartPolicy": {"Name": "bad"}}, 400, "invalid restart policy 'bad'"),
        ({}, {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}, 400, "maximum retry count cannot be used with restart policy 'always'"),
        ({"AutoRemove": True}, {"RestartPolicy": {"Name": "always"}}, 409, "Cannot update container ID: Restart policy cannot be updated because AutoRemove is enabled for the container"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_refused(
    target: Engine, before: dict[str, Any], change: dict[str, Any], status: int, text: str
) -> None:
    """Nothing changes then."""
    made = target.request(
        "POST", "/containers/create", body={"Image": IMAGE, "Cmd": ["true"], "HostConfig": before}
    )
    identity = made.json["Id"]
    was = host_config(target, identity)
    code, answer = update(target, identity, **change)
    assert code == status
    assert answer["message"].replace(identity, "ID").startswith(text)
    assert host_config(target, identity) == was


def test_kernel_memory_is_warned_of(target: Engine, name: str) -> None:
    code, answer = update(target, name, KernelMemory=64 * MIB)
    assert code == 200
    assert (
        "Specifying a kernel memory limit is deprecated and will be removed in a future release."
        in answer["Warnings"]
    )


def test_nothing_to_say_is_null(target: Engine, name: str) -> None:
    assert update(target, name, CpuShares=300) == (200, {"Warnings": None})


def test_old_clients_do_not_limit_processes(target: Engine, name: str) -> None:
    """Before 1.40 their zero was no wish."""
    update(target, name, PidsLimit=20)
    answer = target.request(
        "POST", f"/v1.39/containers/{name}/update", body={"CpuShares": 300, "PidsLimit": 0}
    )
    assert answer.status == 200
    assert host_config(target, name)["PidsLimit"] == 20


# Where dockerd is silent, or breaks the container's next start


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"MemorySwappiness": 30}, "MemorySwappiness cannot be updated: it is set when a container is created"),
        ({"Ulimits": [{"Name": "nofile", "Soft": 9, "Hard": 9}]}, "Ulimits cannot be updated: it is set when a container is created"),
        ({"MemorySwap": 32 * MIB}, "You should always set the Memory limit when using Memoryswap limit, see usage"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_never_ignored(
    only_sampan: None, target: Engine, name: str, change: dict[str, Any], text: str
) -> None:
    """dockerd takes the first two and does nothing; after the third no start succeeds."""
    assert update(target, name, **change) == (400, {"message": text})


@pytest.mark.cgroup1
def test_what_the_kernel_refuses_changes_nothing(
    only_sampan: None, docker: DockerCLI, target: Engine, name: str
) -> None:
    """A limit that was set before the one that is refused is taken back."""
    was = host_config(target, name)
    code, answer = update(
        target,
        name,
        Memory=64 * MIB,
        MemorySwap=64 * MIB,
        CpuShares=300,
        CpuRealtimeRuntime=900_000,
    )
    assert code == 500
    assert "cpu.rt_runtime_us: Invalid argument" in answer["message"]
    assert host_config(target, name) == was
    assert limits(docker, name, "cpu/cpu.shares") == ["1024"]
    assert int(limits(docker, name, "memory/memory.limit_in_bytes")[0]) > 1 << 60


@pytest.mark.cgroup1
def test_swap_without_a_limit(
    only_sampan: None, docker: DockerCLI, target: Engine, name: str
) -> None:
    """dockerd notes -1 and leaves the kernel's limit as it is."""
    update(target, name, Memory=64 * MIB, MemorySwap=64 * MIB)
    assert update(target, name, MemorySwap=-1)[0] == 200
    assert int(limits(docker, name, "memory/memory.memsw.limit_in_bytes")[0]) > 1 << 60
