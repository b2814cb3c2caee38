"""What the engine says of itself and of the machine: `docker info`, `docker version`.

Source: engine-api-v1.55.yaml, definitions SystemInfo and SystemVersion.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections.abc import Mapping
from typing import Any

import sampan
from sampan.engine.apparmor import AppArmor
from sampan.engine.defaults import SHM_BYTES
from sampan.engine.options import EngineOptions
from sampan.engine.resources import Machine
from sampan.engine.runtimes import OWN, Runtimes
from sampan.linux.sysinfo import CgroupSupport, SystemInfo, cgroup_support, system_info
from sampan.logs.drivers import DRIVERS

MINIMUM_API = "1.12"
NEWEST_API = "1.55"

# dockerd's texts, one per limit that this kernel cannot set.
LIMIT_WARNINGS = {
    "memory_limit": "WARNING: No memory limit support",
    "swap_limit": "WARNING: No swap limit support",
    "oom_kill_disable": "WARNING: No oom kill disable support",
    "cpu_cfs_quota": "WARNING: No cpu cfs quota support",
    "cpu_cfs_period": "WARNING: No cpu cfs period support",
    "cpu_shares": "WARNING: No cpu shares support",
    "cpuset": "WARNING: No cpuset support",
    "pids_limit": "WARNING: No pids limit support",
}
# Of these cgroup v2 has none at all, so dockerd does not complain there.
NOT_ON_V2 = frozenset({"oom_kill_disable"})


class System:
    """Facts about the machine, read once when the engine opens."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self.labels, self.debug = tuple(options.labels), options.debug
        self._support: CgroupSupport = cgroup_support()
        self._facts: SystemInfo = system_info()
        self.cgroup_version = self._support.version
        self.apparmor = AppArmor()
        self.machine = Machine(
            cpus=self._facts.cpus,
            cpuset_cpus=self._support.cpus,
            cpuset_mems=self._support.mems,
            memory_limit=self._support.memory_limit,
            swap_limit=self._support.swap_limit,
            pids_limit=self._support.pids_limit,
            oom_kill_disable=self._support.oom_kill_disable,
            memory_swappiness=self._support.memory_swappiness,
            cpu_realtime=self._support.cpu_realtime,
            kernel_memory_tcp=self._support.kernel_memory_tcp,
        )

    def version(self) -> dict[str, Any]:
        """Docker's SystemVersion."""
        return {
            "Platform": {"Name": f"Sampan {sampan.__version__}"},
            "Components": [
                {
                    "Name": "Engine",
                    "Version": sampan.__version__,
                    "Details": {
                        "ApiVersion": NEWEST_API,
                        "Arch": architecture(),
                        "Experimental": "false",
                        "KernelVersion": self._facts.kernel_version,
                        "MinAPIVersion": MINIMUM_API,
                        "Os": "linux",
                        "PythonVersion": platform.python_version(),
                    },
                }
            ],
            "Version": sampan.__version__,
            "ApiVersion": NEWEST_API,
            "MinAPIVersion": MINIMUM_API,
            "GitCommit": "",
            "GoVersion": f"none (Python {platform.python_version()})",
            "Os": "linux",
            "Arch": architecture(),
            "KernelVersion": self._facts.kernel_version,
            "BuildTime": "",
        }

    def info(
        self, *, identity: str, containers: Mapping[str, int], images: int, listeners: int
    ) -> dict[str, Any]:
        """Docker's SystemInfo, without what registries are about. `containers` counts them by `running`, `paused` and `stopped`."""
        facts, support, options = self._facts, self._support, self._options
        return {
            "ID": identity,
            "Containers": sum(containers.values()),
            "ContainersRunning": containers["running"],
            "ContainersPaused": containers["paused"],
            "ContainersStopped": containers["stopped"],
            "Images": images,
            "Driver": "overlay2",
            "DriverStatus": [["Backing Filesystem", _file_system(options.data_root)]],
            "Plugins": {
                "Volume": [],
                "Network": ["bridge", "host", "null"],
                "Authorization": None,
                "Log": sorted(DRIVERS),
            },
            "MemoryLimit": support.memory_limit,
            "SwapLimit": support.swap_limit,
            "CpuCfsPeriod": support.cpu_cfs_period,
            "CpuCfsQuota": support.cpu_cfs_quota,
            "CPUShares": support.cpu_shares,
            "CPUSet": support.cpuset,
            "PidsLimit": support.pids_limit,
            "IPv4Forwarding": facts.ipv4_forwarding,
            "Debug": self.debug,
            "NFd": len(os.listdir("/proc/self/fd")),
            "OomKillDisable": support.oom_kill_disable,
            "NGoroutines": 0,
            "SystemTime": datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z"),
            "LoggingDriver": options.preset.log_driver or "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": str(support.version),
            "NEventsListener": listeners,
            "KernelVersion": facts.kernel_version,
            "OperatingSystem": facts.operating_system,
            "OSVersion": "",
            "OSType": "linux",
            "Architecture": facts.architecture,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "NCPU": facts.cpus,
            "MemTotal": facts.memory_bytes,
            "GenericResources": None,
            "DockerRootDir": options.data_root,
            "Name": facts.name,
            "Labels": [*self.labels],
            "ExperimentalBuild": False,
            "ServerVersion": sampan.__version__,
            "Runtimes": self._runtimes(),
            "DefaultRuntime": options.preset.runtime or OWN,
            "Swarm": {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "inactive",
                "ControlAvailable": False,
                "Error": "",
                "RemoteManagers": None,
            },
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "sampan",
            "ContainerdCommit": {"ID": ""},
            "RuncCommit": {"ID": sampan.__version__},
            "InitCommit": {"ID": sampan.__version__},
            "SecurityOptions": self._security_options(),
            "ProductLicense": "Apache-2.0",
            "DefaultAddressPools": [],
            "Warnings": self._warnings(),
            "CDISpecDirs": [],
        }

    def _runtimes(self) -> dict[str, Any]:
        shown: dict[str, Any] = {OWN: {"path": _runtime_path()}}
        for name, (path, *arguments) in Runtimes(self._options.runtimes).shown().items():
            shown[name] = {"path": path, **({"runtimeArgs": arguments} if arguments else {})}
        return shown

    def reloaded(self, options: EngineOptions) -> dict[str, str]:
        """The attributes of the event `reload`, as dockerd's."""
        registries = options.registries
        return {
            "name": self._facts.name,
            "debug": str(options.debug).lower(),
            "default-ipc-mode": options.preset.ipc_mode or "private",
            "default-runtime": options.preset.runtime or "sampan",
            "default-shm-size": str(options.preset.shm_bytes or SHM_BYTES),
            "insecure-registries": json.dumps([*registries.insecure]),
            "labels": json.dumps([*options.labels]),
            "live-restore": "true",
            "max-concurrent-downloads": str(registries.max_concurrent_downloads),
            "max-concurrent-uploads": str(registries.max_concurrent_uploads),
            "max-download-attempts": str(registries.max_download_attempts),
            "registry-mirrors": json.dumps([*registries.mirrors]),
        }

    def _security_options(self) -> list[str]:
        options = []
        if self.apparmor.default:
            options.append("name=apparmor")
        if self._facts.seccomp:
            options.append("name=seccomp,profile=builtin")
        if self._support.version == 2:
            options.append("name=cgroupns")
        return options

    def _warnings(self) -> list[str]:
        warnings = [
            text
            for field, text in LIMIT_WARNINGS.items()
            if not getattr(self._support, field)
            and not (self._support.version == 2 and field in NOT_ON_V2)
        ]
        if self.apparmor.problem:
            warnings.append(
                f"WARNING: containers run without an AppArmor profile: {self.apparmor.problem}"
            )
        return warnings


def architecture() -> str:
    """This machine's architecture in Go's word."""
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _runtime_path() -> str:
    return os.path.join(
        os.path.dirname(os.path.abspath(sys.argv[0] or sys.executable)), "sampan-oci"
    )


def _file_system(directory: str) -> str:
    """The type of the file system that holds a directory; see /proc/self/mountinfo in proc(5)."""
    device = os.stat(directory).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.split()
            if fields[2] == wanted:
                return fields[fields.index("-") + 1]
    return "unknown"
