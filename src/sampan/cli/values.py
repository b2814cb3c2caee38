"""Values of flags that docker checks while it reads the command line: sizes, CPUs, durations.

Kept apart from `flags` because most commands have none of them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NANO = 1_000_000_000
_BINARY = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATIONS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": NANO,
    "m": 60 * NANO,
    "h": 3600 * NANO,
}
ULIMITS = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
]


_SYSCTLS = (
    *("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall"),
    *("kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"),
)


def convert(kind: str, text: str) -> Any:
    """The value of a checked kind.

    Raises:
        ValueError: with docker's text.
    """
    if kind == "bytes":
        return parse_bytes(text)
    if kind == "swapbytes":
        return -1 if text == "-1" else parse_bytes(text)
    if kind == "decimal":
        return parse_cpus(text)
    if kind == "duration":
        return parse_duration(text)
    if kind == "ulimit":
        return parse_ulimit(text)
    if kind == "envs":
        return parse_env(text)
    if kind == "streams":
        return parse_stream(text)
    if kind in ("mount", "gpu-request"):
        from sampan.cli import create_mounts

        return create_mounts.parse(text) if kind == "mount" else create_mounts.gpus(text)
    return _LISTS[kind](text)


def parse_bytes(text: str) -> int:
    """A size in bytes, binary units: `64m`, `1.5GiB`, `100` (go-units RAMInBytes)."""
    end = 0
    while end < len(text) and (text[end].isdecimal() or text[end] == "."):
        end += 1
    number, unit = text[:end], text[end:].removeprefix(" ").lower()
    unit = unit if unit == "b" else unit.removesuffix("ib").removesuffix("b")
    if not number or unit not in _BINARY or number.count(".") > 1 or number == ".":
        raise ValueError(f"invalid size: '{text}'")
    return int(float(number) * (1 << (10 * _BINARY[unit])))


def parse_cpus(text: str) -> int:
    """CPUs as a decimal or a fraction, in nano-CPUs."""
    numerator, mark, denominator = text.partition("/")
    try:
        whole, _, part = numerator.partition(".")
        if "e" in text.lower():
            return round(float(numerator) * NANO)
        scale = 10 ** len(part)
        units = int(f"{whole}{part}" or "x") * NANO
        divisor = scale * (int(denominator) if mark else 1)
        if divisor == 0:
            raise ValueError
    except ValueError:
        raise ValueError(f"failed to parse {text} as a rational number") from None
    nanos, rest = divmod(units, divisor)
    if rest:
        raise ValueError("value is too precise")
    return int(nanos)


def parse_duration(text: str) -> int:
    """A Go duration (`1m30s`, `1.5h`, `-2ms`) in nanoseconds."""
    rest = text.lstrip("+-") if text[:1] in ("+", "-") and text[1:2] not in ("+", "-") else text
    total = 0.0
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    while rest:
        end = 0
        while end < len(rest) and (rest[end].isdecimal() or rest[end] == "."):
            end += 1
        stop = end
        while stop < len(rest) and not (rest[stop].isdecimal() or rest[stop] == "."):
            stop += 1
        number, unit = rest[:end], rest[end:stop]
        if not number or number == "." or number.count(".") > 1:
            raise ValueError(f'time: invalid duration "{text}"')
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _DURATIONS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        total += float(number) * _DURATIONS[unit]
        rest = rest[stop:]
    return -int(total) if text[0] == "-" else int(total)


def parse_ulimit(text: str) -> dict[str, int | str]:
    """`type=soft[:hard]` as the API's Ulimit."""
    name, mark, limits = text.partition("=")
    if not mark:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    soft_text, mark, hard_text = limits.partition(":")
    numbers = []
    for part in (soft_text, hard_text)[: 2 if mark else 1]:
        try:
            numbers.append(int(part))
        except ValueError:
            raise ValueError(f'strconv.ParseInt: parsing "{part}": invalid syntax') from None
    soft, hard = numbers[0], numbers[-1]
    if hard != -1 and (soft == -1 or soft > hard):
        raise ValueError(
            f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )
    return {"Name": name, "Hard": hard, "Soft": soft}


def parse_address(text: str) -> str:
    """An IP address, as it stands."""
    import _socket

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, text.strip())
        except OSError:
            continue
        return text.strip()
    raise ValueError(f"IP address is not correctly formatted: {text}")


def parse_extra_host(text: str) -> str:
    """`host:ip` or `host=ip`, as host:ip."""
    mark = "=" if "=" in text else ":"
    host, found, address = text.partition(mark)
    if not found or not host:
        raise ValueError(f'bad format for add-host: "{text}"')
    if len(address) > 2 and address[0] == "[" and address[-1] == "]":
        address = address[1:-1]
    if address != "host-gateway":
        try:
            parse_address(address)
        except ValueError:
            raise ValueError(f'invalid IP address in add-host: "{address}"') from None
    return f"{host}:{address}"


def parse_sysctl(text: str) -> str:
    """`name=value` of a kernel setting that a namespace has for itself."""
    name = text.partition("=")[0]
    if "=" in text and (name in _SYSCTLS or name.startswith(("net.", "fs.mqueue."))):
        return text
    raise ValueError(f"sysctl '{text}' is not allowed")


def parse_device_rule(text: str) -> str:
    """`type major:minor rwm`, a device cgroup rule."""
    words = text.split(" ")
    numbers = words[1].split(":") if len(words) == 3 else []
    if (
        len(numbers) != 2
        or words[0] not in ("a", "b", "c")
        or not all(number == "*" or number.isdecimal() for number in numbers)
        or not words[2]
        or not set("rwm").issuperset(words[2])
    ):
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def _throttle(text: str, number: Any) -> dict[str, int | str]:
    path, mark, rate = text.partition(":")
    if not mark:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return {"Path": path, "Rate": number(text, rate)}


def _bytes_rate(text: str, rate: str) -> int:
    try:
        return parse_bytes(rate)
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]."
            " Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        ) from None


def _plain_rate(text: str, rate: str) -> int:
    if not rate.isdecimal():
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>."
            " Number must be a positive integer"
        )
    return int(rate)


def parse_weight(text: str) -> dict[str, int | str]:
    """`path:weight` of a block device."""
    path, mark, weight = text.partition(":")
    if not mark:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    if not weight.isdecimal() or (int(weight) > 0 and not 10 <= int(weight) <= 1000):
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": int(weight)}


def parse_env(text: str) -> str:
    """An environment assignment; a bare name takes this process's value when it is used."""
    if not text.partition("=")[0]:
        raise ValueError(f"invalid environment variable: {text}")
    return text


def parse_stream(text: str) -> str:
    """One of stdin, stdout and stderr, in any case."""
    stream = text.lower()
    if stream not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return stream


_LISTS: dict[str, Any] = {
    "addresses": parse_address,
    "extra-hosts": parse_extra_host,
    "sysctls": parse_sysctl,
    "device-rules": parse_device_rule,
    "byte-rates": lambda text: _throttle(text, _bytes_rate),
    "rates": lambda text: _throttle(text, _plain_rate),
    "weights": parse_weight,
}
