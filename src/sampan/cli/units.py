"""Sizes, ages and quoted text as docker words them (go-units and strconv.Quote)."""

from __future__ import annotations

import time

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
_ESCAPES = {
    '"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f",
    "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip


def human_size(size: float, digits: int = 4) -> str:
    """Decimal units, `1.984MB`."""
    return _scaled(size, 1000.0, _DECIMAL, digits)


def binary_size(size: float) -> str:
    """Binary units, `23.54GiB`."""
    return _scaled(size, 1024.0, _BINARY, 4)


def _scaled(size: float, base: float, units: tuple[str, ...], digits: int) -> str:
    step = 0
    while size >= base and step < len(units) - 1:
        size /= base
        step += 1
    return f"{size:.{digits}g}{units[step]}"


def human_duration(seconds: float) -> str:
    """An age in one unit, `About a minute`, `3 weeks`."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"


def ago(created: float) -> str:
    """How long ago the Unix time was, `3 weeks ago`."""
    return human_duration(time.time() - created) + " ago"


def timestamp(created: float) -> str:
    """A Unix time in the local zone as Go prints it, `2026-11-23 15:17:04 +0000 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created))


def ellipsis(text: str, width: int) -> str:
    """`text` in at most `width` columns, an ellipsis for what is cut off."""
    if text.isascii():
        return text if len(text) <= width else text[: width - 1] + "…"
    if display_width(text) <= width:
        return text
    kept = ""
    for letter in text:
        if display_width(kept + letter) > width - 1:
            break
        kept += letter
    return kept + "…"


def display_width(text: str) -> int:
    """Terminal columns that `text` takes: wide East Asian letters take two."""
    if text.isascii():
        return len(text)
    from unicodedata import east_asian_width

    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def quote(text: str) -> str:
    """`text` as a Go string literal (strconv.Quote)."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(_ESCAPES.get(letter) or _escape(letter) for letter in text) + '"'


def _escape(letter: str) -> str:
    if letter.isprintable():
        return letter
    code = ord(letter)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def parse_rfc3339(text: str) -> float:
    """The Unix time of an RFC 3339 stamp; Go's zero time is negative.

    Raises:
        ValueError: text is no such stamp.
    """
    from calendar import timegm

    zone = 0
    body = text
    if body.endswith(("Z", "z")):
        body = body[:-1]
    elif len(body) > 6 and body[-6] in "+-":
        sign = -1 if body[-6] == "-" else 1
        zone = sign * (int(body[-5:-3]) * 3600 + int(body[-2:]) * 60)
        body = body[:-6]
    else:
        raise ValueError(f"no time zone in {text!r}")
    main, _, fraction = body.partition(".")
    seconds = timegm(time.strptime(main, "%Y-%m-%dT%H:%M:%S"))
    return seconds - zone + (float("0." + fraction) if fraction else 0.0)


def short_id(identifier: str) -> str:
    """The first 12 digits, without the algorithm's name."""
    return identifier.partition(":")[2][:12] if ":" in identifier else identifier[:12]
