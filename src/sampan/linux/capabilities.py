"""Capabilities: names, the five sets as bit masks, and putting them into force."""

from __future__ import annotations

from sampan.linux import syscalls as sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# linux/capability.h, in the order of their numbers
NAMES: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)

_BITS: dict[str, int] = {name: 1 << number for number, name in enumerate(NAMES)}
CAP_SYS_ADMIN = _BITS["CAP_SYS_ADMIN"]
CAP_SYS_PTRACE = _BITS["CAP_SYS_PTRACE"]


def mask(names: Iterable[str]) -> int:
    """Names as a bit mask; names that nobody knows are left out (see `unknown`)."""
    bits = 0
    for name in names:
        bits |= _BITS.get(name, 0)
    return bits


def unknown(names: Iterable[str]) -> list[str]:
    """The names that are no capability."""
    return [name for name in names if name not in _BITS]


def names_of(bits: int) -> list[str]:
    """A bit mask as names, in the kernel's order."""
    return [name for name, bit in _BITS.items() if bits & bit]


_last: int | None = None


def last() -> int:
    """The number of the newest capability that this kernel has."""
    global _last
    if _last is None:
        with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
            _last = int(file.read())
    return _last


def bounding() -> int:
    """This process's bounding set as a bit mask."""
    bits = 0
    for number in range(last() + 1):
        if sys.prctl(sys.PR_CAPBSET_READ, number):
            bits |= 1 << number
    return bits


class CapabilitySets:
    """The five sets of capabilities(7) as bit masks."""

    __slots__ = ("ambient", "bounding", "effective", "inheritable", "permitted")

    def __init__(
        self, *, bounding: int, effective: int, permitted: int, inheritable: int, ambient: int
    ) -> None:
        self.bounding = bounding
        self.effective = effective
        self.permitted = permitted
        self.inheritable = inheritable
        self.ambient = ambient

    def limited_to(self, available: int) -> CapabilitySets:
        """These sets without what is not available at all."""
        return CapabilitySets(
            bounding=self.bounding & available,
            effective=self.effective & available,
            permitted=self.permitted & available,
            inheritable=self.inheritable & available,
            ambient=self.ambient & available,
        )


def parse_sets(capabilities: dict[str, Collection[str] | None]) -> CapabilitySets:
    """`process.capabilities` of the OCI runtime-spec as sets; a missing set is empty."""

    def bits(name: str) -> int:
        return mask(capabilities.get(name) or ())

    return CapabilitySets(
        bounding=bits("bounding"),
        effective=bits("effective"),
        permitted=bits("permitted"),
        inheritable=bits("inheritable"),
        ambient=bits("ambient"),
    )


def drop_bounding(keep: int, have: int) -> None:
    """Drop from the bounding set what is in `have` and not in `keep`; needs CAP_SETPCAP."""
    for number in range(last() + 1):
        bit = 1 << number
        if have & bit and not keep & bit:
            sys.prctl(sys.PR_CAPBSET_DROP, number)


def set_ambient(bits: int) -> None:
    """Make the ambient set exactly `bits`, which must be permitted and inheritable."""
    sys.prctl(sys.PR_CAP_AMBIENT, sys.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(bits.bit_length()):
        if bits >> number & 1:
            sys.prctl(sys.PR_CAP_AMBIENT, sys.PR_CAP_AMBIENT_RAISE, number)
