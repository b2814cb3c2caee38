"""systemd's manager, called over its private socket: D-Bus, as much of it as that takes.

The socket connects root straight to PID 1, without a bus daemon. One connection does one change and
waits for its end. Source: the D-Bus specification; org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import os
import socket
import struct

from sampan.errors import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Property = tuple[str, str, Any]
    """Name, D-Bus type, value."""

PRIVATE_SOCKET = "/run/systemd/private"
_TIMEOUT_S = 30.0
_DESTINATION = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
UNIT_EXISTS = "org.freedesktop.systemd1.UnitExists"

_METHOD_CALL, _METHOD_RETURN, _ERROR, _SIGNAL = 1, 2, 3, 4
_FIELD_PATH, _FIELD_INTERFACE, _FIELD_MEMBER, _FIELD_ERROR, _FIELD_REPLY = 1, 2, 3, 4, 5
_FIELD_DESTINATION, _FIELD_SIGNATURE = 6, 8
_MAXIMUM = 1 << 20
_FIXED = {"y": ("B", 1), "b": ("I", 4), "u": ("I", 4), "i": ("i", 4), "t": ("Q", 8), "x": ("q", 8)}
_ALIGNMENT = {"s": 4, "o": 4, "g": 1, "a": 4, "v": 1, "(": 8, "{": 8}


class BusError(RuntimeFailure):
    """systemd's refusal; `name` is the D-Bus error name."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__("cgroup", f"systemd: {message or name}")
        self.name = name


# -- the wire format -----------------------------------------------------------------------------


def _first(signature: str) -> str:
    """The first complete type of a signature."""
    if signature[0] == "a":
        return "a" + _first(signature[1:])
    if signature[0] not in "({":
        return signature[0]
    depth = 0
    for index, character in enumerate(signature):
        depth += (character in "({") - (character in ")}")
        if not depth:
            return signature[: index + 1]
    raise ValueError(signature)


def _types(signature: str) -> list[str]:
    out = []
    while signature:
        out.append(_first(signature))
        signature = signature[len(out[-1]) :]
    return out


def _align(data: bytearray, alignment: int) -> None:
    data += bytes(-len(data) % alignment)


def _alignment(kind: str) -> int:
    return _FIXED[kind][1] if kind in _FIXED else _ALIGNMENT[kind[0]]


def marshal(data: bytearray, kind: str, value: Any) -> None:
    """Append `value` as the D-Bus type `kind`, little-endian, aligned from the start of `data`."""
    _align(data, _alignment(kind))
    if kind in _FIXED:
        data += struct.pack("<" + _FIXED[kind][0], value)
    elif kind in ("s", "o"):
        text = value.encode()
        data += struct.pack("<I", len(text)) + text + b"\0"
    elif kind == "g":
        data += bytes([len(value)]) + value.encode() + b"\0"
    elif kind == "v":
        marshal(data, "g", value[0])
        marshal(data, value[0], value[1])
    elif kind[0] == "a":
        at = len(data)
        data += bytes(4)
        _align(data, _alignment(kind[1:]))
        start = len(data)
        for item in value:
            marshal(data, kind[1:], item)
        struct.pack_into("<I", data, at, len(data) - start)
    else:
        for each, item in zip(_types(kind[1:-1]), value, strict=True):
            marshal(data, each, item)


def unmarshal(data: bytes, at: int, kind: str) -> tuple[Any, int]:
    """The value of type `kind` at `at`, and where it ends; struct.error if it is cut off."""
    at += -at % _alignment(kind)
    if kind in _FIXED:
        code, size = _FIXED[kind]
        return struct.unpack_from("<" + code, data, at)[0], at + size
    if kind in ("s", "o"):
        (length,) = struct.unpack_from("<I", data, at)
        return data[at + 4 : at + 4 + length].decode(), at + 5 + length
    if kind == "g":
        return data[at + 1 : at + 1 + data[at]].decode(), at + 2 + data[at]
    if kind == "v":
        signature, at = unmarshal(data, at, "g")
        return unmarshal(data, at, signature)
    items = []
    if kind[0] == "a":
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        at += -at % _alignment(kind[1:])
        end = at + length
        while at < end:
            item, at = unmarshal(data, at, kind[1:])
            items.append(item)
        return items, at
    for each in _types(kind[1:-1]):
        item, at = unmarshal(data, at, each)
        items.append(item)
    return tuple(items), at


def call_message(serial: int, member: str, signature: str, arguments: Sequence[Any]) -> bytes:
    """A method call to systemd's manager."""
    body = bytearray()
    for kind, value in zip(_types(signature), arguments, strict=True):
        marshal(body, kind, value)
    fields = [
        (_FIELD_PATH, ("o", _PATH)),
        (_FIELD_DESTINATION, ("s", _DESTINATION)),
        (_FIELD_INTERFACE, ("s", _MANAGER)),
        (_FIELD_MEMBER, ("s", member)),
        (_FIELD_SIGNATURE, ("g", signature)),
    ]
    data = bytearray(struct.pack("<cBBBII", b"l", _METHOD_CALL, 0, 1, len(body), serial))
    marshal(data, "a(yv)", fields)
    _align(data, 8)
    return bytes(data + body)


# -- the connection ------------------------------------------------------------------------------


class Manager:
    """A connection to a systemd manager. Use it in a `with`.

    Raises (everywhere): RuntimeFailure if systemd cannot be reached, BusError if it refuses.
    """

    __slots__ = ("_serial", "_sock")

    def __init__(self, path: str = PRIVATE_SOCKET) -> None:
        self._serial = 0
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(_TIMEOUT_S)
        try:
            self._sock.connect(path)
            self._authenticate()
        except OSError as error:
            self._sock.close()
            raise RuntimeFailure(
                "cgroup", f"cannot reach systemd: {error}", path=path, errno=error.errno
            ) from error

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def _authenticate(self) -> None:
        """EXTERNAL: the kernel tells systemd who we are."""
        user = str(os.geteuid()).encode().hex().encode()
        self._sock.sendall(b"\0AUTH EXTERNAL " + user + b"\r\n")
        answer = b""
        while not answer.endswith(b"\r\n"):
            chunk = self._sock.recv(1)
            if not chunk or len(answer) > 1024:
                raise ConnectionError("it ended the authentication")
            answer += chunk
        if not answer.startswith(b"OK "):
            raise ConnectionError(f"it answered {answer!r}")
        self._sock.sendall(b"BEGIN\r\n")

    def start_transient_unit(self, name: str, properties: Sequence[Property]) -> None:
        """Make the unit and wait until its job is done."""
        signature, arguments = "ssa(sv)a(sa(sv))", [name, "fail", _variants(properties), []]
        try:
            job = self._call("StartTransientUnit", signature, arguments)
        except BusError as error:
            if error.name != UNIT_EXISTS:
                raise
            # One that failed before keeps its name until it is forgotten.
            self._call("ResetFailedUnit", "s", [name])
            job = self._call("StartTransientUnit", signature, arguments)
        self._wait(job[0], name)

    def set_unit_properties(self, name: str, properties: Sequence[Property]) -> None:
        """Change a unit until the next boot."""
        self._call("SetUnitProperties", "sba(sv)", [name, True, _variants(properties)])

    def _call(self, member: str, signature: str, arguments: Sequence[Any]) -> list[Any]:
        self._serial += 1
        try:
            self._sock.sendall(call_message(self._serial, member, signature, arguments))
            while True:
                kind, fields, body = self._receive()
                if fields.get(_FIELD_REPLY) != self._serial:
                    continue
                if kind == _ERROR:
                    text = str(body[0]) if body else ""
                    raise BusError(str(fields.get(_FIELD_ERROR, "")), text)
                return body
        except (OSError, struct.error, UnicodeDecodeError) as error:
            raise RuntimeFailure("cgroup", f"systemd: {member}: {error}") from error

    def _wait(self, job: str, name: str) -> None:
        """JobRemoved comes for every job, ours among them; nothing comes before the answer."""
        try:
            while True:
                kind, fields, body = self._receive()
                if kind != _SIGNAL or fields.get(_FIELD_MEMBER) != "JobRemoved":
                    continue
                if body[1] == job:
                    break
        except (OSError, struct.error, UnicodeDecodeError) as error:
            raise RuntimeFailure("cgroup", f"systemd: start {name}: {error}") from error
        if body[3] != "done":
            raise RuntimeFailure("cgroup", f"systemd: start {name}: the job's end is {body[3]}")

    def _receive(self) -> tuple[int, dict[int, Any], list[Any]]:
        """The next message: its type, header fields and body."""
        head = self._read(16)
        order, kind, _, _, length, _, fields_length = struct.unpack("<cBBBIII", head)
        if order != b"l" or length + fields_length > _MAXIMUM:
            raise ConnectionError("a malformed message")
        padded = fields_length + -fields_length % 8
        rest = self._read(padded + length)
        fields = dict(unmarshal(head + rest, 12, "a(yv)")[0])
        body, at = [], 0
        for each in _types(fields.get(_FIELD_SIGNATURE, "")):
            value, at = unmarshal(rest[padded:], at, each)
            body.append(value)
        return kind, fields, body

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            chunk = self._sock.recv(length - len(data))
            if not chunk:
                raise ConnectionError("it closed the connection")
            data += chunk
        return data


def _variants(properties: Sequence[Property]) -> list[tuple[str, tuple[str, Any]]]:
    return [(name, (kind, value)) for name, kind, value in properties]
