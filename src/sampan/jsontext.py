"""JSON by the C half of the standard library's `json` alone.

The package `json` brings in `re` and `enum`: a third of the start of `sampan` and `sampan-oci`, and
pages that every shim would carry. Its C scanner and encoder need neither; a Python without them
falls back to the package.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WHITESPACE = " \t\n\r"


class _Settings:
    """What the C scanner reads from its decoder: the values of `json.JSONDecoder`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def parse_constant(name: str) -> float:
        raise ValueError(f"{name} is no JSON value")


def _no_default(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no JSON form")


_scan: Any
_encode: Any
try:
    import _json

    _scan = _json.make_scanner(_Settings)  # type: ignore[arg-type]
    _encode = _json.make_encoder(
        None,
        _no_default,
        _json.encode_basestring_ascii,
        None,
        ":",
        ",",
        False,
        False,
        False,
    )
except (ImportError, AttributeError):  # pragma: no cover - another Python than CPython
    import json

    _scan = json.JSONDecoder().raw_decode

    def _encode(value: object, level: int) -> tuple[str]:
        del level
        return (json.dumps(value),)


def decode(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: the text is not JSON, with where it stops to be, in characters.
    """
    if isinstance(text, bytes):
        text = text.decode()
    value, end = decode_from(text, 0)
    if text[end:].strip(_WHITESPACE):
        raise ValueError(f"extra data after the JSON value at character {end}")
    return value


def decode_from(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at `start` (white space skipped) and the index behind it.

    Raises:
        ValueError: no JSON value begins there.
    """
    size = len(text)
    while start < size and text[start] in _WHITESPACE:
        start += 1
    try:
        value, end = _scan(text, start)
    except StopIteration as stop:
        raise ValueError(f"invalid JSON at character {stop.value}") from None
    except RecursionError:
        raise ValueError("JSON nested too deep") from None
    return value, end


def encode(value: object) -> str:
    """A value as JSON text in ASCII without spaces.

    Raises:
        TypeError, ValueError: it has no JSON form.
    """
    return "".join(_encode(value, 0))
