"""Options of the json-file driver, in dockerd's words."""

from __future__ import annotations

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

UNITS = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
KNOWN = frozenset(
    ("max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag")
) | {"attrs", "mode", "max-buffer-size"}
TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


class JSONFileOptions:
    """`max_size_bytes` is 0 without a limit; `max_files` counts the current file; `attrs` is JSON."""

    __slots__ = ("attrs", "compress", "max_files", "max_size_bytes")

    def __init__(self, options: Mapping[str, str]) -> None:
        """Parse what `--log-opt` gave.

        Raises:
            InvalidArgument: with dockerd's text.
        """
        for name in options:
            if name not in KNOWN:
                raise InvalidArgument(f"unknown log opt '{name}' for json-file log driver")
        self.max_size_bytes = parse_size(options["max-size"]) if "max-size" in options else 0
        self.max_files = parse_count(options.get("max-file", "1"))
        self.compress = parse_bool(options.get("compress", "false"))
        self.attrs = options.get("attrs", "")
        if self.compress and (self.max_files < 2 or not self.max_size_bytes):
            raise InvalidArgument(
                "compress cannot be true when max-file is less than 2 or max-size is not set"
            )


def parse_size(text: str) -> int:
    """`10m` → 10,000,000: units of 1000, as docker's FromHumanSize; `10MB` and `10MiB` alike."""
    lowered = text.strip().lower().removesuffix("b").removesuffix("i")
    number = lowered.rstrip("kmgtp")
    unit = lowered[len(number) :]
    try:
        size = int(float(number) * UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise InvalidArgument(f"invalid size: '{text}'") from None
    if size <= 0:
        raise InvalidArgument(f"max-size must be a positive number: '{text}'")
    return size


def parse_count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        raise InvalidArgument(f"invalid max-file: '{text}'") from None
    if count < 1:
        raise InvalidArgument("max-file cannot be less than 1")
    return count


def parse_bool(text: str) -> bool:
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise InvalidArgument(f"invalid compress: '{text}'")
