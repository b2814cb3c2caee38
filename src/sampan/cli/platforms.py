"""`--platform`, where the API takes it as JSON (since 1.48)."""

from __future__ import annotations

_NAMES = ("os", "architecture", "variant")


def as_json(text: str) -> str:
    """`os[/arch[/variant]]` as a query's value; "" for none."""
    if not text:
        return ""
    from sampan.cli import jsontext

    return jsontext.encode(dict(zip(_NAMES, text.split("/"), strict=False)))
