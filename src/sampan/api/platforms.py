"""The platform that a request asks for."""

from __future__ import annotations

from sampan.api import codec
from sampan.errors import InvalidArgument


def platform_text(given: str) -> str | None:
    """`linux/arm64/v8`, from that or from the JSON that load and save are sent since 1.48.

    Raises:
        InvalidArgument: it is JSON of something else.
    """
    if not given.startswith("{"):
        return given or None
    platform = codec.parse(given.encode())
    parts = [platform.get(name, "") for name in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) for part in parts):
        raise InvalidArgument(f"invalid platform: {given[:200]}")
    return "/".join(part for part in parts if part)
