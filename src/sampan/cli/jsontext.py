"""JSON as Go writes it: what `sampan` prints and sends is byte for byte what docker would."""

from __future__ import annotations

from sampan.jsontext import decode, decode_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["decode", "decode_from", "encode", "pretty", "quote", "quote_html"]

_make_encoder: Any
_quote: Any
try:
    import _json

    _make_encoder, _quote = _json.make_encoder, _json.encode_basestring
except (ImportError, AttributeError):  # another Python than CPython
    import json.encoder

    _make_encoder, _quote = None, json.encoder.encode_basestring


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
