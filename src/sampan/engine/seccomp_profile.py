"""Docker's seccomp profiles: conditions on capabilities, architecture and kernel → OCI's form.

The default list is Docker's (`seccomp-default.json` beside this file, from github.com/moby/profiles,
Apache-2.0). Documented in Docker's manual, "Seccomp security profiles for Docker".
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from sampan.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

# uname's machine → Go's word, which the profile's conditions use, and libseccomp's
_MACHINES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "i686": ("386", "SCMP_ARCH_X86"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
}
_DEFAULT = os.path.join(os.path.dirname(__file__), "seccomp-default.json")

_default: dict[str, Any] | None = None


class Machine:
    """What a profile's conditions are about, besides capabilities."""

    __slots__ = ("architecture", "goarch", "kernel")

    def __init__(self, machine: str, release: str) -> None:
        """From the machine and release of uname(2)."""
        self.goarch, self.architecture = _MACHINES.get(machine, (machine, ""))
        self.kernel = kernel_version(release)


def this_machine() -> Machine:
    """The machine this runs on."""
    name = os.uname()
    return Machine(name.machine, name.release)


def kernel_version(text: str) -> tuple[int, int]:
    """Version and patch level at the beginning of `text`: `6.1.0-40-amd64` → (6, 1).

    Raises:
        InvalidArgument: there are none.
    """
    found = re.match(r"(\d+)\.(\d+)", text)
    if found is None:
        raise InvalidArgument(f"invalid kernel version {text!r}")
    return int(found[1]), int(found[2])


def default_profile(
    capabilities: Collection[str], machine: Machine | None = None
) -> dict[str, Any]:
    """OCI `linux.seccomp` of Docker's default list, for a container with these capabilities.

    `capabilities` are `CAP_…` names, its bounding set.
    """
    global _default
    if _default is None:
        with open(_DEFAULT, encoding="utf-8") as file:
            _default = json.load(file)
    return resolve(_default, capabilities, machine or this_machine())


def parse_profile(
    text: str, capabilities: Collection[str], machine: Machine | None = None
) -> dict[str, Any]:
    """OCI `linux.seccomp` from the content of `--security-opt seccomp=FILE`.

    The file is in Docker's form, with conditions, or in OCI's, which is a part of that.

    Raises:
        InvalidArgument: it is not JSON or not a profile; the text is dockerd's where it has one.
    """
    try:
        profile = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from error
    if not isinstance(profile, dict):
        raise InvalidArgument("Decoding seccomp profile failed: it is not a JSON object")
    try:
        return resolve(profile, capabilities, machine or this_machine())
    except (TypeError, AttributeError, KeyError) as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: malformed: {error}") from error


def resolve(
    profile: Mapping[str, Any], capabilities: Collection[str], machine: Machine
) -> dict[str, Any]:
    """Decide the conditions of a profile in Docker's form.

    Raises:
        InvalidArgument: it contradicts itself.
    """
    if not isinstance(profile.get("defaultAction"), str):
        raise InvalidArgument("invalid seccomp profile: defaultAction is missing")
    out: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    if profile.get("defaultErrnoRet") is not None:
        out["defaultErrnoRet"] = profile["defaultErrnoRet"]
    out["architectures"] = _architectures(profile, machine)
    for name in ("flags", "listenerPath", "listenerMetadata"):
        if profile.get(name):
            out[name] = profile[name]
    out["syscalls"] = [
        _rule(entry)
        for entry in profile.get("syscalls") or ()
        if _applies(entry, frozenset(capabilities), machine)
    ]
    return {name: value for name, value in out.items() if value != [] or name == "syscalls"}


def _architectures(profile: Mapping[str, Any], machine: Machine) -> list[str]:
    listed, mapped = profile.get("architectures") or [], profile.get("archMap") or []
    if listed and mapped:
        raise InvalidArgument(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, "
            "use either 'architectures' or 'archMap'"
        )
    for entry in mapped:
        if entry["architecture"] == machine.architecture:
            return [machine.architecture, *(entry.get("subArchitectures") or ())]
    return list(listed)


def _applies(entry: Mapping[str, Any], capabilities: frozenset[str], machine: Machine) -> bool:
    """Whether a rule's `includes` all hold and none of its `excludes` does."""
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    if (arches := includes.get("arches")) and machine.goarch not in arches:
        return False
    if machine.goarch in (excludes.get("arches") or ()):
        return False
    if not capabilities.issuperset(includes.get("caps") or ()):
        return False
    if capabilities.intersection(excludes.get("caps") or ()):
        return False
    if (least := includes.get("minKernel")) and machine.kernel < kernel_version(least):
        return False
    least = excludes.get("minKernel")
    return not (least and machine.kernel >= kernel_version(least))


def _rule(entry: Mapping[str, Any]) -> dict[str, Any]:
    names = entry.get("names") or []
    if (name := entry.get("name")) is not None:
        if names:
            raise InvalidArgument(
                "both 'name' and 'names' are specified in the seccomp profile, "
                "use either 'name' or 'names'"
            )
        names = [name]
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names) or not names:
        raise InvalidArgument("invalid seccomp profile: a rule without names")
    out: dict[str, Any] = {"names": names, "action": entry["action"]}
    if entry.get("errnoRet") is not None:
        out["errnoRet"] = entry["errnoRet"]
    if entry.get("args"):
        out["args"] = entry["args"]
    return out
