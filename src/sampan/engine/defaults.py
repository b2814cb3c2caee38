"""What a container gets when nobody says otherwise: Docker's defaults as data."""

from __future__ import annotations

from typing import Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHM_BYTES = 64 << 20
STOP_TIMEOUT_S = 10

CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def _rule(allow: bool, kind: str, major: int | None, minor: int | None, access: str) -> Any:
    rule: dict[str, Any] = {"allow": allow, "type": kind, "access": access}
    if major is not None:
        rule["major"] = major
    if minor is not None:
        rule["minor"] = minor
    return rule


# Everything is refused but making nodes and using the harmless ones; see Linux'
# Documentation/admin-guide/devices.txt for the numbers.
DEVICE_RULES: tuple[dict[str, Any], ...] = (
    {"allow": False, "access": "rwm"},
    _rule(True, "c", None, None, "m"),
    _rule(True, "b", None, None, "m"),
    _rule(True, "c", 1, 3, "rwm"),  # null
    _rule(True, "c", 1, 5, "rwm"),  # zero
    _rule(True, "c", 1, 7, "rwm"),  # full
    _rule(True, "c", 1, 8, "rwm"),  # random
    _rule(True, "c", 1, 9, "rwm"),  # urandom
    _rule(True, "c", 5, 0, "rwm"),  # tty
    _rule(True, "c", 5, 2, "rwm"),  # ptmx
    _rule(True, "c", 136, None, "rwm"),  # pts/*
)
ALL_DEVICES: tuple[dict[str, Any], ...] = ({"allow": True, "access": "rwm"},)


def mounts(
    *, privileged: bool, shm_bytes: int, ipc_host: bool, shm_source: str = ""
) -> list[dict[str, Any]]:
    """The mounts every container has, in order; `shm_source` is another container's /dev/shm."""
    readonly = [] if privileged else ["ro"]

    def entry(destination: str, kind: str, *options: str) -> dict[str, Any]:
        return {"destination": destination, "type": kind, "source": kind, "options": [*options]}

    shared = [
        entry("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        entry("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", f"size={shm_bytes}"),
    ]
    shared[1]["source"] = "shm"
    if shm_source:
        options = ["bind", "nosuid", "noexec", "nodev"]
        shared[1] = {
            "destination": "/dev/shm",
            "type": "bind",
            "source": shm_source,
            "options": options,
        }
    if ipc_host:
        shared = [
            {
                "destination": path,
                "type": "bind",
                "source": path,
                "options": ["rbind", "nosuid", "noexec", "nodev"],
            }
            for path in ("/dev/mqueue", "/dev/shm")
        ]
    return [
        entry("/proc", "proc", "nosuid", "noexec", "nodev"),
        entry("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        entry(
            "/dev/pts",
            "devpts",
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            "gid=5",
        ),
        entry("/sys", "sysfs", "nosuid", "noexec", "nodev", *readonly),
        entry("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", *readonly),
        *shared,
    ]
