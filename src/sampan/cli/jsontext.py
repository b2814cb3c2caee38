"""JSON as Go writes it, by the C half of the standard library's `json` alone.

Importing `json` brings in `re` and `enum`, 6 ms of a command that has 15. Its C scanner and encoder
need neither, so they are used directly; a Python without them falls back to the package.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WHITESPACE = " \t\n\r"


class _Settings:
    """What the C scanner reads from its decoder; the values of `json.JSONDecoder`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner's own cache of keys

    @staticmethod
    def parse_constant(name: str) -> float:
        raise ValueError(f"invalid JSON constant {name}")


_make_encoder: Any
_scan: Any
_quote: Any
try:
    import _json

    _make_encoder, _quote = _json.make_encoder, _json.encode_basestring
    _scan = _json.make_scanner(_Settings)  # type: ignore[arg-type]
except (ImportError, AttributeError):  # another Python than CPython
    import json.decoder
    import json.encoder

    _make_encoder, _quote = None, json.encoder.encode_basestring
    _scan = json.decoder.JSONDecoder().raw_decode


def decode(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: text is not JSON.
    """
    value, end = decode_from(text, 0)
    if text[end:].strip(_WHITESPACE):
        raise ValueError("extra data after a JSON value")
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
    except StopIteration:
        raise ValueError("not a JSON value") from None
    return value, end


def quote(text: str) -> str:
    """`text` as a JSON string; no more is escaped than JSON demands."""
    return str(_quote(text))


def quote_html(text: str) -> str:
    """`text` as a JSON string with the escapes of Go's json.Marshal, which is HTML-safe."""
    quoted = str(_quote(text))
    if "<" in quoted or ">" in quoted or "&" in quoted:
        quoted = quoted.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    if "\u2028" in quoted or "\u2029" in quoted:
        quoted = quoted.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return quoted


def _refuse(value: object) -> object:
    raise TypeError(f"cannot encode {type(value).__name__} as JSON")


def encode(value: Any, *, html: bool = False) -> str:
    """`value` as compact JSON, keys in their order; `html` escapes as json.Marshal does."""
    if _make_encoder is None:
        return pretty(value, step="", newline="", colon=":")
    encoder = _make_encoder(
        None, _refuse, quote_html if html else quote, None, ":", ",", False, False, True
    )
    return "".join(encoder(value, 0))


def pretty(value: Any, *, step: str = "    ", newline: str = "\n", colon: str = ": ") -> str:
    """`value` as JSON indented as Go's json.Indent does it."""
    parts: list[str] = []
    _pretty(value, newline, step, colon, parts)
    return "".join(parts)


def _pretty(value: Any, line: str, step: str, colon: str, parts: list[str]) -> None:
    if isinstance(value, dict) and value:
        inner = line + step
        lead = "{" + inner
        for key, item in value.items():
            parts.append(lead + quote(key) + colon)
            _pretty(item, inner, step, colon, parts)
            lead = "," + inner
        parts.append(line + "}")
    elif isinstance(value, list) and value:
        inner = line + step
        lead = "[" + inner
        for item in value:
            parts.append(lead)
            _pretty(item, inner, step, colon, parts)
            lead = "," + inner
        parts.append(line + "]")
    else:
        parts.append(_scalar(value))


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return quote(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list):
        return "[]"
    return repr(value)
