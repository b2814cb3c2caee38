"""What happens to each field of a create request: the one table behind docs/options.md.

`python tests/support/option_table.py > docs/options.md` writes the page; tests/api/test_option_table.py
compares the fields with Docker's yaml and with the engine's model, and the tests named with those there are.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

HONOURED, KEPT, WARNED, REFUSED = "honoured", "kept", "warned of", "refused"

CONFORMANCE = "tests/api/conformance"
OPTIONS = f"{CONFORMANCE}/test_options.py"
RUN = f"{CONFORMANCE}/test_run.py"
LIFE = f"{CONFORMANCE}/test_lifecycle.py"
LOGS = f"{CONFORMANCE}/test_logs_attach.py"
NETWORK = f"{CONFORMANCE}/test_network.py"
PORTS = f"{CONFORMANCE}/test_ports.py"
VOLUMES = f"{CONFORMANCE}/test_volumes.py"
HEALTH = f"{CONFORMANCE}/test_health.py"
RESTARTS = f"{CONFORMANCE}/test_restart_policies.py"
API = f"{CONFORMANCE}/test_api.py"
UPDATE = f"{CONFORMANCE}/test_update.py"
VALIDATION = "tests/engine/test_validation.py"
SPEC = "tests/engine/test_spec.py"
RESOURCES = "tests/engine/test_resources.py"


class Row(NamedTuple):
    """A field of the request: what becomes of it, in which words, and the test that shows it."""

    field: str
    verdict: str
    what: str
    test: str


CONTAINER_CONFIG = (
    Row("Hostname", HONOURED, "`--hostname`; the first 12 characters of the ID otherwise; at most 64 bytes", f"{RUN}::test_option"),
    Row("Domainname", HONOURED, "`--domainname`: the NIS domain of the UTS namespace, and in `/etc/hosts`", f"{OPTIONS}::test_option"),
    Row("User", HONOURED, "`--user`; names are looked up in the container's files", f"{RUN}::test_option"),
    Row("AttachStdin", KEPT, "what the client says of itself; the attach request counts", f"{OPTIONS}::test_what_is_only_kept"),
    Row("AttachStdout", KEPT, "as AttachStdin", f"{OPTIONS}::test_what_is_only_kept"),
    Row("AttachStderr", KEPT, "as AttachStdin", f"{OPTIONS}::test_what_is_only_kept"),
    Row("ExposedPorts", KEPT, "`--expose`: shown, and part of an image made of the container", f"{OPTIONS}::test_what_is_only_kept"),
    Row("Tty", HONOURED, "`--tty`", f"{RUN}::test_terminal"),
    Row("OpenStdin", HONOURED, "`--interactive`", f"{RUN}::test_reads_standard_input"),
    Row("StdinOnce", HONOURED, "the end of the first client's input is the process's", f"{LOGS}::test_half_closed_stdin_ends_the_input"),
    Row("Env", HONOURED, "`--env`, `--env-file`", f"{RUN}::test_environment"),
    Row("Cmd", HONOURED, "the image's, unless given; old clients may send one text", f"{API}::test_cmd_may_be_a_string"),
    Row("Healthcheck", HONOURED, "`--health-*`, see [restarts and health](restarts-and-health.md)", f"{HEALTH}::test_healthy_unhealthy_and_back"),
    Row("ArgsEscaped", KEPT, "means something on Windows only", f"{OPTIONS}::test_what_is_only_kept"),
    Row("Image", HONOURED, "", f"{RUN}::test_missing_image_is_125"),
    Row("Volumes", HONOURED, "`--volume PATH`: anonymous volumes", f"{VOLUMES}::test_anonymous_ones_go_with_their_container"),
    Row("WorkingDir", HONOURED, "`--workdir`; made if it is not there", f"{RUN}::test_option"),
    Row("Entrypoint", HONOURED, "`--entrypoint`; drops the image's command", f"{RUN}::test_option"),
    Row("NetworkDisabled", HONOURED, "only a loopback interface", f"{OPTIONS}::test_network_disabled"),
    Row("OnBuild", KEPT, "part of an image made of the container", f"{OPTIONS}::test_what_is_only_kept"),
    Row("Labels", HONOURED, "`--label`, `--label-file`: filters, events", f"{RUN}::test_cidfile_and_label"),
    Row("StopSignal", HONOURED, "`--stop-signal`", f"{LIFE}::test_stop_signal_of_the_container"),
    Row("StopTimeout", HONOURED, "`--stop-timeout`; -1 waits for ever", f"{OPTIONS}::test_stop_timeout"),
    Row("Shell", HONOURED, "for health checks of the form `CMD-SHELL`, and part of an image made of the container", "tests/engine/test_health.py::test_command"),
)  # fmt: skip

LIVE = "; `update` changes it at once"
LIVE_LIST = (
    LIVE
    + ": the list takes the place of the one before, 0 lifts a device's limit (dockerd 20.10 ignores it)"
)
V1 = "; cgroup v1 only, warned of and discarded on v2"

HOST_CONFIG = (
    Row("CpuShares", HONOURED, "`--cpu-shares`" + LIVE, f"{UPDATE}::test_limits_of_a_running_container"),
    Row("Memory", HONOURED, "`--memory`, 6 MB at least" + LIVE, f"{UPDATE}::test_limits_of_a_running_container"),
    Row("CgroupParent", HONOURED, "`--cgroup-parent`", f"{OPTIONS}::test_cgroup_parent"),
    Row("BlkioWeight", HONOURED, "`--blkio-weight`, where the kernel has BFQ or CFQ's file (dockerd 20.10 knows the latter only)" + LIVE, f"{RESOURCES}::test_oci"),
    Row("BlkioWeightDevice", HONOURED, "`--blkio-weight-device`; the start fails for a device without BFQ" + LIVE_LIST, f"{RESOURCES}::test_update_of_block_devices"),
    Row("BlkioDeviceReadBps", HONOURED, "`--device-read-bps`" + LIVE_LIST, f"{UPDATE}::test_device_rates_of_a_running_container"),
    Row("BlkioDeviceWriteBps", HONOURED, "`--device-write-bps`" + LIVE_LIST, f"{UPDATE}::test_device_rates_of_a_running_container"),
    Row("BlkioDeviceReadIOps", HONOURED, "`--device-read-iops`" + LIVE_LIST, f"{UPDATE}::test_device_rates_of_a_running_container"),
    Row("BlkioDeviceWriteIOps", HONOURED, "`--device-write-iops`" + LIVE_LIST, f"{UPDATE}::test_device_rates_of_a_running_container"),
    Row("CpuPeriod", HONOURED, "`--cpu-period`" + LIVE, f"{OPTIONS}::test_limit"),
    Row("CpuQuota", HONOURED, "`--cpu-quota`" + LIVE, f"{OPTIONS}::test_limit"),
    Row("CpuRealtimePeriod", HONOURED, "`--cpu-rt-period`, where the kernel has it and the parent cgroup time to give; refused otherwise" + LIVE, f"{OPTIONS}::test_refused_with_another_status"),
    Row("CpuRealtimeRuntime", HONOURED, "`--cpu-rt-runtime`, as CpuRealtimePeriod" + LIVE, f"{UPDATE}::test_what_the_kernel_refuses_changes_nothing"),
    Row("CpusetCpus", HONOURED, "`--cpuset-cpus`" + LIVE, f"{UPDATE}::test_limits_of_a_running_container"),
    Row("CpusetMems", HONOURED, "`--cpuset-mems`" + LIVE, f"{OPTIONS}::test_limit"),
    Row("Devices", HONOURED, "`--device`, also directories of devices", f"{OPTIONS}::test_device_rules"),
    Row("DeviceCgroupRules", HONOURED, "`--device-cgroup-rule`", f"{OPTIONS}::test_device_rules"),
    Row("DeviceRequests", REFUSED, "`--gpus`: 501, there is no driver of such devices", f"{OPTIONS}::test_never_ignored"),
    Row("MemoryReservation", HONOURED, "`--memory-reservation`: soft limit on v1, `memory.low` on v2" + LIVE, f"{UPDATE}::test_limits_of_a_running_container"),
    Row("MemorySwap", HONOURED, "`--memory-swap`; twice the memory unless given, -1 for no limit" + LIVE, f"{OPTIONS}::test_limit"),
    Row("MemorySwappiness", HONOURED, "`--memory-swappiness`" + V1, f"{OPTIONS}::test_limit"),
    Row("NanoCpus", HONOURED, "`--cpus`" + LIVE, f"{UPDATE}::test_limits_of_a_running_container"),
    Row("OomKillDisable", HONOURED, "`--oom-kill-disable`; warned of without a memory limit" + V1, f"{OPTIONS}::test_limit"),
    Row("Init", HONOURED, "`--init`: a reaper as PID 1, made for the occasion; no file is mounted", f"{RUN}::test_option"),
    Row("PidsLimit", HONOURED, "`--pids-limit`" + LIVE, f"{UPDATE}::test_limits_of_a_running_container"),
    Row("Ulimits", HONOURED, "`--ulimit`; names and order are checked at create", f"{RUN}::test_option"),
    Row("CpuCount", WARNED, "Windows only", f"{OPTIONS}::test_windows_cpus_are_warned_of"),
    Row("CpuPercent", WARNED, "Windows only; dockerd's text", f"{OPTIONS}::test_warned"),
    Row("IOMaximumIOps", REFUSED, "Windows only; dockerd's text", f"{OPTIONS}::test_refused_with_another_status"),
    Row("IOMaximumBandwidth", REFUSED, "Windows only; dockerd's text", f"{OPTIONS}::test_refused_with_another_status"),
    Row("Binds", HONOURED, "`--volume`, see [volumes](volumes.md); `:ro` is recursive", f"{RUN}::test_bind_mounts"),
    Row("ContainerIDFile", KEPT, "`--cidfile` is the client's work", f"{OPTIONS}::test_what_is_only_kept"),
    Row("LogConfig", HONOURED, "`--log-driver json-file\\|none`, `--log-opt`: max-size, max-file, compress, labels, env and their -regex, tag (its fields, not Go's templates), mode (output never waits for who reads it, so both are the same); other drivers are refused", f"{OPTIONS}::test_log_attributes"),
    Row("NetworkMode", HONOURED, "`--network bridge\\|host\\|none\\|container:X`; names and IDs of [networks](networks.md); one that is not there is not found at the start", f"{NETWORK}::test_host"),
    Row("PortBindings", HONOURED, "`--publish`, see [published ports](networks.md#published-ports)" + LIVE, f"{PORTS}::test_shown"),
    Row("RestartPolicy", HONOURED, "`--restart`, see [restarts and health](restarts-and-health.md)" + LIVE, f"{RESTARTS}::test_on_failure_gives_up"),
    Row("AutoRemove", HONOURED, "`--rm`", f"{RUN}::test_rm_removes"),
    Row("VolumeDriver", HONOURED, "`--volume-driver`; `local` is the one there is", f"{VOLUMES}::test_refusals"),
    Row("VolumesFrom", HONOURED, "`--volumes-from`", f"{VOLUMES}::test_volumes_from"),
    Row("Mounts", HONOURED, "`--mount` of types bind, volume, tmpfs and image (read-only); npipe and cluster: 501", f"{OPTIONS}::test_read_only_binds_are_so_below"),
    Row("ConsoleSize", HONOURED, "of a terminal at its start (dockerd since 23)", f"{OPTIONS}::test_terminal_size"),
    Row("Annotations", HONOURED, "`--annotation`: in the OCI configuration", f"{OPTIONS}::test_annotations"),
    Row("CapAdd", HONOURED, "`--cap-add`", f"{RUN}::test_capabilities"),
    Row("CapDrop", HONOURED, "`--cap-drop`", f"{RUN}::test_capabilities"),
    Row("CgroupnsMode", HONOURED, "`--cgroupns host\\|private`", f"{OPTIONS}::test_cgroup_namespace"),
    Row("Dns", HONOURED, "`--dns`", f"{RUN}::test_hosts_and_resolv_conf"),
    Row("DnsOptions", HONOURED, "`--dns-option`", f"{OPTIONS}::test_option"),
    Row("DnsSearch", HONOURED, "`--dns-search`; `.` for none", f"{OPTIONS}::test_option"),
    Row("ExtraHosts", HONOURED, "`--add-host`, with `host-gateway`; checked at create", f"{OPTIONS}::test_host_gateway"),
    Row("GroupAdd", HONOURED, "`--group-add`; names are looked up in the container's file", f"{OPTIONS}::test_option"),
    Row("IpcMode", HONOURED, "`--ipc private\\|shareable\\|none\\|host\\|container:X`; X has to be shareable and running", f"{OPTIONS}::test_ipc_of_another_container"),
    Row("Cgroup", REFUSED, "501; no client has a flag for it, dockerd does nothing with it", f"{OPTIONS}::test_never_ignored"),
    Row("Links", HONOURED, "`--link`: hosts, variables and, without ICC, a way to exposed ports", "tests/api/conformance/test_links.py::test_hosts_and_variables"),
    Row("OomScoreAdj", HONOURED, "`--oom-score-adj`", f"{OPTIONS}::test_option"),
    Row("PidMode", HONOURED, "`--pid host\\|container:X`; X has to run", f"{OPTIONS}::test_pid_of_another_container"),
    Row("Privileged", HONOURED, "`--privileged`", f"{SPEC}::test_privileged_has_everything"),
    Row("PublishAllPorts", HONOURED, "`--publish-all`", f"{PORTS}::test_all_exposed"),
    Row("ReadonlyRootfs", HONOURED, "`--read-only`", f"{RUN}::test_option"),
    Row("SecurityOpt", HONOURED, "`--security-opt` no-new-privileges, seccomp, apparmor; SELinux labels: 501", f"{RUN}::test_seccomp_filter_is_on_unless_unconfined"),
    Row("StorageOpt", HONOURED, "`--storage-opt size=10G`: by project quotas of the data root's file system (xfs with `pquota`, ext4 with `prjquota`); refused where there are none", "tests/snapshots/test_size_limits.py::test_a_container_gets_no_more"),
    Row("Tmpfs", HONOURED, "`--tmpfs`", f"{RUN}::test_option"),
    Row("UTSMode", HONOURED, "`--uts host`", f"{OPTIONS}::test_uts_of_the_host"),
    Row("UsernsMode", HONOURED, "`--userns host`, which is what all have: user namespaces have an issue of their own", f"{OPTIONS}::test_option"),
    Row("ShmSize", HONOURED, "`--shm-size`; 64 MB unless given", f"{OPTIONS}::test_option"),
    Row("Sysctls", HONOURED, "`--sysctl` of the container's namespaces; others are refused at create", f"{RUN}::test_option"),
    Row("Runtime", HONOURED, "`--runtime`: `sampan` (also called `io.containerd.runc.v2`), `runc` and `crun` where they are in PATH, and those of `add-runtime`; others are refused", "tests/api/conformance/test_other_runtimes.py::test_options"),
    Row("Isolation", REFUSED, "other than `default`: dockerd's text", f"{OPTIONS}::test_refused_with_another_status"),
    Row("MaskedPaths", HONOURED, "`--security-opt systempaths=unconfined` empties it", f"{SPEC}::test_masks_can_be_emptied"),
    Row("ReadonlyPaths", HONOURED, "as MaskedPaths", f"{SPEC}::test_masks_can_be_emptied"),
)  # fmt: skip

# Fields that older versions had.
OLD = (
    Row("Config.MacAddress", HONOURED, "before 1.44 `--mac-address`; now a field of the network's endpoint", f"{NETWORK}::test_mac_address"),
    Row("HostConfig.KernelMemory", WARNED, "before 1.42; no kernel has it any longer", f"{OPTIONS}::test_warned"),
    Row("HostConfig.KernelMemoryTCP", HONOURED, "1.40 to 1.51" + V1, f"{OPTIONS}::test_kernel_memory_for_tcp"),
    Row("HostConfig.Capabilities", REFUSED, "of drafts of 1.40 only: 501", f"{OPTIONS}::test_never_ignored"),
)  # fmt: skip

HEAD = """# What becomes of each field of a create request

<!-- Written by tests/support/option_table.py: change the table there. -->

`POST /containers/create` takes the fields of API 1.55 and those that older versions had. None is silently
ignored: it is honoured; or kept, because it is meant for somebody else; or warned of in the answer; or
refused with a reason. A field that is none, with a value that asks for something, is refused by name (400).
Beside each stands the test that shows it; those below `tests/api/conformance` pass on dockerd 20.10, too,
except where they say what it lacks.

What a machine's kernel cannot do is dropped with a warning in dockerd's words, or refused by the kernel with
the file and its reason.

`docker update` changes what is marked so: in the cgroup of a running container at once, and in its record for
all further starts; all of it or nothing. It refuses, where dockerd is silent: a field that it does not change,
and values with which no start would succeed.
"""


def page() -> str:
    """docs/options.md."""
    sections = (
        ("ContainerConfig", CONTAINER_CONFIG),
        ("HostConfig", HOST_CONFIG),
        ("Of older versions", OLD),
    )
    parts = [HEAD]
    for title, rows in sections:
        lines = [f"\n## {title}\n", "| field | | what happens | test |", "|---|---|---|---|"]
        lines += [
            f"| `{row.field}` | {row.verdict} | {row.what} | {_shown(row.test)} |" for row in rows
        ]
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def _shown(test: str) -> str:
    path, _, name = test.partition("::")
    return f"`{path}` {name}"


if __name__ == "__main__":
    sys.stdout.write(page())
