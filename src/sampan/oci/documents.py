"""Decoding the specs' JSON documents, which come from anybody."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from sampan.errors import InvalidArgument

Document = TypeVar("Document")

DAMAGED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises: also for strings that are no UTF-8, and for nesting without an end."""


def decoded(decoder: msgspec.json.Decoder[Document], data: bytes, what: str) -> Document:
    """The document that `data` is.

    Raises:
        InvalidArgument: it is none; `what` says which it should be.
    """
    try:
        return decoder.decode(data)
    except RecursionError as error:
        raise InvalidArgument(f"invalid {what}: nested too deeply") from error
    except DAMAGED as error:
        raise InvalidArgument(f"invalid {what}: {error}") from error
