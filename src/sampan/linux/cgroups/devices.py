"""Device rules of OCI `linux.resources.devices`, and what each version makes of them; no I/O.

Rules are ordered, the last that matches an access decides, and before the first all is denied. The
devices every container has (runtime-spec, "Default Devices") are allowed behind the caller's rules.
"""

from __future__ import annotations

from sampan.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

ANY = -1
MKNOD, READ, WRITE = 1, 2, 4  # linux/bpf.h: BPF_DEVCG_ACC_*
ALL_ACCESS = MKNOD | READ | WRITE

_LETTERS = (("r", READ), ("w", WRITE), ("m", MKNOD))
_MAXIMUM = 0xFFFFFFFF


class Rule:
    """One rule for one kind: `kind` is `a`, `b` or `c`, `major`/`minor` a number or ANY."""

    __slots__ = ("access", "allow", "kind", "major", "minor")

    def __init__(self, allow: bool, kind: str, major: int, minor: int, access: int) -> None:
        self.allow = allow
        self.kind = kind
        self.major = major
        self.minor = minor
        self.access = access

    def __repr__(self) -> str:
        word = "allow" if self.allow else "deny"
        return f"<{word} {format_entry((self.kind, self.major, self.minor), self.access)}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rule) and all(
            getattr(self, name) == getattr(other, name) for name in Rule.__slots__
        )

    __hash__ = None  # type: ignore[assignment]


DEFAULT_RULES = (
    Rule(True, "c", ANY, ANY, MKNOD),
    Rule(True, "b", ANY, ANY, MKNOD),
    Rule(True, "c", 1, 3, ALL_ACCESS),  # null
    Rule(True, "c", 1, 5, ALL_ACCESS),  # zero
    Rule(True, "c", 1, 7, ALL_ACCESS),  # full
    Rule(True, "c", 1, 8, ALL_ACCESS),  # random
    Rule(True, "c", 1, 9, ALL_ACCESS),  # urandom
    Rule(True, "c", 5, 0, ALL_ACCESS),  # tty
    Rule(True, "c", 5, 2, ALL_ACCESS),  # ptmx
    Rule(True, "c", 136, ANY, ALL_ACCESS),  # pts/*
)


def parse_rules(entries: Iterable[Mapping[str, Any]]) -> list[Rule]:
    """OCI device rules as values, in order, the default ones appended.

    What says nothing of type, major, minor or access means all of them. A rule for all types that
    covers only some numbers or accesses becomes two, for no kernel has it otherwise.

    Raises:
        RuntimeFailure: an unknown type or access, or a number out of range.
    """
    rules: list[Rule] = []
    for entry in entries:
        kind = entry.get("type") or "a"
        if kind == "u":  # mknod's unbuffered character device
            kind = "c"
        major, minor = _number(entry, "major"), _number(entry, "minor")
        access = _access(entry.get("access") or "rwm")
        allow = bool(entry.get("allow"))
        if kind not in ("a", "b", "c"):
            raise RuntimeFailure("cgroup", f"invalid device type {kind!r} in a device rule")
        if kind == "a" and not (major == minor == ANY and access == ALL_ACCESS):
            rules += [Rule(allow, each, major, minor, access) for each in "bc"]
        else:
            rules.append(Rule(allow, kind, major, minor, access))
    rules += DEFAULT_RULES
    return rules


def _number(entry: Mapping[str, Any], name: str) -> int:
    value = entry.get(name)
    if value is None or value == ANY:
        return ANY
    if not isinstance(value, int) or not 0 <= value <= _MAXIMUM:
        raise RuntimeFailure("cgroup", f"invalid {name} {value!r} in a device rule")
    return value


def _access(letters: str) -> int:
    mask = 0
    for letter, bit in _LETTERS:
        if letter in letters:
            mask |= bit
    if not mask or letters.strip("rwm"):
        raise RuntimeFailure("cgroup", f"invalid access {letters!r} in a device rule")
    return mask


Key = tuple[str, int, int]


class Exceptions:
    """The form that v1 keeps: everything allowed (or denied) except for some devices' accesses."""

    __slots__ = ("allow_default", "entries")

    def __init__(self, allow_default: bool, entries: dict[Key, int]) -> None:
        self.allow_default = allow_default
        self.entries = entries


def to_exceptions(rules: Iterable[Rule]) -> Exceptions:
    """What `rules` come to in v1's form; see the kernel's admin-guide/cgroup-v1/devices.rst.

    Raises:
        RuntimeFailure: a rule takes a part out of a wider one before it, which v1 cannot express.
    """
    state = Exceptions(False, {})
    entries = state.entries
    for rule in rules:
        key = (rule.kind, rule.major, rule.minor)
        if rule.kind == "a":
            state.allow_default = rule.allow
            entries.clear()
        elif rule.allow != state.allow_default:
            entries[key] = entries.get(key, 0) | rule.access
        elif entries:
            _take_out(entries, key, rule)
    return state


def _take_out(entries: dict[Key, int], key: Key, rule: Rule) -> None:
    for other, access in list(entries.items()):
        if not access & rule.access or not _overlap(other, key):
            continue
        if not _covers(key, other):
            raise RuntimeFailure(
                "cgroup", f"cgroup v1 cannot express the device rule {rule!r} behind a wider one"
            )
        entries[other] = access & ~rule.access
        if not entries[other]:
            del entries[other]


def _covers(wide: Key, narrow: Key) -> bool:
    return wide[0] == narrow[0] and all(
        w in (ANY, n) for w, n in zip(wide[1:], narrow[1:], strict=True)
    )


def _overlap(one: Key, other: Key) -> bool:
    return one[0] == other[0] and all(
        a == b or ANY in (a, b) for a, b in zip(one[1:], other[1:], strict=True)
    )


def format_entry(key: Key, access: int) -> str:
    """A line as devices.allow takes it: `c 1:3 rwm`."""
    kind, major, minor = key
    letters = "".join(letter for letter, bit in _LETTERS if access & bit)
    return f"{kind} {'*' if major == ANY else major}:{'*' if minor == ANY else minor} {letters}"


def parse_list(text: str) -> Exceptions:
    """The state in the text of devices.list.

    With everything allowed the kernel does not tell the exceptions; then `entries` is empty.
    """
    entries: dict[Key, int] = {}
    for line in text.splitlines():
        kind, numbers, letters = line.split(" ")
        if kind == "a":
            return Exceptions(True, {})
        major, minor = (ANY if part == "*" else int(part) for part in numbers.split(":"))
        entries[kind, major, minor] = _access(letters)
    return Exceptions(False, entries)


def changes(current: Exceptions, target: Exceptions) -> list[tuple[str, str]]:
    """(control file, line) that lead from `current` to `target`.

    A running container loses nothing for a moment that it has before and after.
    """
    if target.allow_default:
        lines = [] if current.allow_default and not target.entries else [("devices.allow", "a")]
        return lines + [("devices.deny", format_entry(*item)) for item in target.entries.items()]
    lines, have = [], current.entries
    if current.allow_default:
        lines.append(("devices.deny", "a"))
        have = {}
    for key, access in target.entries.items():
        if missing := access & ~have.get(key, 0):
            lines.append(("devices.allow", format_entry(key, missing)))
    for key, access in have.items():
        if excess := access & ~target.entries.get(key, 0):
            lines.append(("devices.deny", format_entry(key, excess)))
    return lines
