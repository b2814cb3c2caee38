"""What this runtime can, as the verb `features` prints it; see features.md of the runtime-spec.

"Recognised" as the spec means it: the runtime knows the word, whatever this kernel has.
"""

from __future__ import annotations

import os

from sampan import __version__
from sampan.linux import capabilities, mounts, namespaces, seccomp
from sampan.runtime import plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ACTIONS = (
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
)
_OPERATORS = tuple(f"SCMP_CMP_{name}" for name in ("EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE"))
_ARCHITECTURES = tuple(f"SCMP_ARCH_{name}" for name in ("AARCH64", "ARM", "X32", "X86", "X86_64"))
_SUPPORTED_FLAGS = (
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
)


def features() -> dict[str, Any]:
    """The document of features-schema.json."""
    systemd = os.path.isdir("/run/systemd/system")
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": list(plan.HOOK_KINDS),
        "mountOptions": list(mounts.OPTION_WORDS),
        "linux": {
            "namespaces": sorted(namespaces.FLAGS),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": systemd,
                "systemdUser": False,
                "rdma": True,
            },
            "seccomp": {
                "enabled": True,
                "actions": list(_ACTIONS),
                "operators": list(_OPERATORS),
                "archs": list(_ARCHITECTURES),
                "knownFlags": sorted(
                    name for name in seccomp.FLAGS if name != seccomp.NEW_LISTENER
                ),
                "supportedFlags": list(_SUPPORTED_FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {"io.sampan.version": __version__},
    }
