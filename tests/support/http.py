"""A raw client of the Engine API on a unix socket: exact requests, exact answers, hijacked streams.

Below docker-py on purpose: tests send what no library would, and see the bytes that come back.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import urlencode


class Answer:
    """An HTTP answer: status, headers (names in lower case) and the whole body."""

    def __init__(self, status: int, reason: str, headers: dict[str, str], body: bytes) -> None:
        self.status, self.reason, self.headers, self.body = status, reason, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The text of an API error."""
        return str(self.json["message"])

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:300]!r}>"


class Connection:
    """One connection to an engine; `with` closes it."""

    def __init__(self, path: str, *, timeout_s: float = 60.0) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout_s)
        try:
            self.sock.connect(path)
        except OSError:
            self.sock.close()
            raise
        self.buffer = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    # -- sending -------------------------------------------------------------------------------

    def send_head(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: docker",
            *(f"{k}: {v}" for k, v in headers.items()),
        ]
        self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        raw: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and read its whole answer.

        `body` is sent as JSON; `raw` as it is: bytes with a length, an iterable in chunks.
        """
        self.start(method, path, query=query, body=body, raw=raw, headers=headers)
        head = self.read_head()
        return Answer(*head, b"") if method == "HEAD" else self.finish(*head)

    def start(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        raw: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a request; the answer is left unread."""
        if query:
            path += "?" + urlencode({k: _text(v) for k, v in query.items()}, doseq=True)
        head = dict(headers or {})
        if body is not None:
            raw = json.dumps(body).encode()
            head.setdefault("Content-Type", "application/json")
        if isinstance(raw, bytes):
            head["Content-Length"] = str(len(raw))
        elif raw is not None:
            head["Transfer-Encoding"] = "chunked"
        elif method in ("POST", "PUT"):
            head["Content-Length"] = "0"
        self.send_head(method, path, head)
        if isinstance(raw, bytes):
            self.sock.sendall(raw)
        elif raw is not None:
            for chunk in raw:
                self.sock.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            self.sock.sendall(b"0\r\n\r\n")

    # -- reading -------------------------------------------------------------------------------

    def fill(self) -> bool:
        """Read more into the buffer; False at the end of the stream."""
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def poll(self) -> bytes:
        """All that has come so far, without waiting."""
        while select.select([self.sock], [], [], 0)[0] and self.fill():
            pass
        return self.buffer

    def read_head(self) -> tuple[int, str, dict[str, str]]:
        while b"\r\n\r\n" not in self.buffer:
            if not self.fill():
                raise ConnectionError(f"connection closed before an answer; got {self.buffer!r}")
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        _, status, reason = (first + "  ").split(" ", 2)
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(status), reason.strip(), headers

    def finish(self, status: int, reason: str, headers: dict[str, str]) -> Answer:
        return Answer(status, reason, headers, b"".join(self.body(status, headers)))

    def body(self, status: int, headers: Mapping[str, str]) -> Iterator[bytes]:
        """The body's chunks, as they come."""
        if status in (101, 204, 304):
            return
        if headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
        elif "content-length" in headers:
            left = int(headers["content-length"])
            yield from self._exactly(left)
        else:
            yield from self.rest()

    def _exactly(self, left: int) -> Iterator[bytes]:
        while left:
            if not self.buffer and not self.fill():
                raise ConnectionError(f"connection closed {left} bytes early")
            data, self.buffer = self.buffer[:left], self.buffer[left:]
            left -= len(data)
            yield data

    def _chunks(self) -> Iterator[bytes]:
        while True:
            while b"\r\n" not in self.buffer:
                if not self.fill():
                    raise ConnectionError("connection closed within a chunk's head")
            line, _, self.buffer = self.buffer.partition(b"\r\n")
            size = int(line.split(b";")[0], 16)
            yield from self._exactly(size)
            for _ in self._exactly(2):
                pass
            if size == 0:
                return

    def rest(self) -> Iterator[bytes]:
        """All bytes until the other side ends the stream."""
        while self.buffer or self.fill():
            data, self.buffer = self.buffer, b""
            yield data

    # -- hijacking -----------------------------------------------------------------------------

    def hijack(
        self, path: str, *, query: Mapping[str, object] | None = None, body: object = None
    ) -> tuple[int, dict[str, str]]:
        """POST with `Upgrade: tcp`; afterwards the connection is the stream (`buffer` may hold its head)."""
        self.start(
            "POST",
            path,
            query=query,
            body=body,
            headers={"Upgrade": "tcp", "Connection": "Upgrade"},
        )
        status, _, headers = self.read_head()
        return status, headers


def demultiplex(data: bytes) -> tuple[bytes, bytes]:
    """Split Docker's stream of 8-byte-headed frames into (stdout, stderr).

    Raises:
        AssertionError: the framing is broken or torn.
    """
    out: dict[int, list[bytes]] = {1: [], 2: []}
    position = 0
    while position < len(data):
        kind, length = struct.unpack_from(">BxxxI", data, position)
        assert kind in out, f"stream {kind} at byte {position}: {data[position : position + 32]!r}"
        frame = data[position + 8 : position + 8 + length]
        assert len(frame) == length, f"torn frame at byte {position}"
        out[kind].append(frame)
        position += 8 + length
    return b"".join(out[1]), b"".join(out[2])


def _text(value: object) -> object:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, dict):
        return json.dumps(value)
    return value
