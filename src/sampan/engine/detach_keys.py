"""The key sequence that detaches a terminal, as Docker spells it: `ctrl-p,ctrl-q`."""

from __future__ import annotations

from sampan.errors import InvalidArgument

CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_detach_keys(text: str) -> bytes:
    """The bytes of a sequence of single characters and `ctrl-X` (a-z, @, [, \\, ], ^, _).

    Raises:
        InvalidArgument: it is no such sequence.
    """
    keys = bytearray()
    for key in text.split(",") if text else ():
        if len(key) == 1 and key.isascii():
            keys.append(ord(key))
        elif key.startswith("ctrl-") and len(key) == 6 and key[5] in CONTROL:
            keys.append(CONTROL[key[5]])
        elif key.startswith("ctrl-") and len(key) == 6 and "a" <= key[5].lower() <= "z":
            keys.append(ord(key[5].lower()) - ord("a") + 1)
        else:
            raise InvalidArgument(
                f"Invalid detach keys ({text}) provided: Unknown character: '{key}'"
            )
    return bytes(keys)
