"""Docker's multiplexed stream: frames of 8 bytes of header and a payload.

Header: stream number (1 stdout, 2 stderr), three zeros, the payload's length in 4 bytes big-endian.
Source: engine-api-v1.55.yaml, ContainerAttach, "Stream format".
"""

from __future__ import annotations

HEADER_BYTES = 8


def frame(number: int, payload: bytes) -> bytes:
    """One frame."""
    return bytes((number, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


class Unframer:
    """Takes the headers out of a stream that is cut anywhere."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """The payload bytes in the next piece."""
        parts, position = [], 0
        while position < len(data):
            if self._left:
                part = data[position : position + self._left]
                self._left -= len(part)
                parts.append(part)
                position += len(part)
            else:
                piece = data[position : position + HEADER_BYTES - len(self._header)]
                self._header += piece
                position += len(piece)
                if len(self._header) == HEADER_BYTES:
                    self._left = int.from_bytes(self._header[4:], "big")
                    self._header = b""
        return b"".join(parts)
