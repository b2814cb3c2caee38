"""A registry that misbehaves on demand: an HTTP proxy in front of a real one, with faults to order.

    proxy = FaultyProxy(registry)                       # address: what references begin with
    proxy.fault(Cut(1_000_000), path="/blobs/")         # the next blob breaks off after 1 MB …
    proxy.fault(Answer(429, {"Retry-After": "1"}), times=3)
    proxy.fault(Redirect(other.url), path="/blobs/", times=None)       # … always
    …
    proxy.sent("/blobs/")  proxy.received("/blobs/")  [r.authorization for r in other.requests]
    proxy.close()

Every request is recorded with the bytes of its body that went each way. Faults are asked in the
order in which they were given; the first that fits and is not used up does what it is for.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

from support.certificates import Certificates
from support.registry_faults import (
    Answer,
    Corrupt,
    Cut,
    CutUpload,
    Fault,
    Header,
    IgnoreRange,
    Redirect,
    Stall,
    StallHead,
    StallUpload,
    WrongLength,
)
from support.waiting import wait_for

__all__ = [
    "Answer",
    "Corrupt",
    "Cut",
    "CutUpload",
    "FaultyProxy",
    "Header",
    "IgnoreRange",
    "Redirect",
    "Request",
    "Stall",
    "StallHead",
    "StallUpload",
    "Upstream",
    "WrongLength",
]

_PIECE = 64 << 10
_STALL_LIMIT_S = 60.0


@dataclass
class Request:
    """One request that came. `received` and `sent` count bytes of the bodies, as they go."""

    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    received: int = 0
    sent: int = 0

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


class Upstream(Protocol):
    """What stands behind the proxy: a `Registry`, another proxy."""

    @property
    def url(self) -> str: ...
    @property
    def certificates(self) -> Certificates | None: ...


@dataclass
class _Order:
    fault: Fault
    methods: list[str]
    path: re.Pattern[str]
    left: int | None


class FaultyProxy:
    """Serves what `upstream` serves, but for the faults. With `certificates`, over TLS.

    On 127.0.0.2 unless told otherwise: another host than the registry's, for whoever compares.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        certificates: Certificates | None = None,
        host: str = "127.0.0.2",
    ) -> None:
        self.certificates = certificates
        self.requests: list[Request] = []
        self._upstream = upstream
        self._orders: list[_Order] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._connections: set[socket.socket] = set()
        self._server = _Server((host, 0), _handler(self))
        if certificates:
            self._server.socket = certificates.server_context().wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.certificates else 'http'}://{self.address}"

    def fault(
        self, fault: Fault, *, method: str = "", path: str = "", times: int | None = 1
    ) -> None:
        """Misbehave so for the next `times` requests (None: all) of the method and path.

        `path` is a pattern searched in the path with its query; empty fits all. `method` may be
        several (`PATCH|PUT`); without it, faults of downloads are for GET, those of uploads for
        PATCH and PUT, others for all.
        """
        if not method and isinstance(fault, Cut | Stall | Corrupt | WrongLength | IgnoreRange):
            method = "GET"
        if not method and isinstance(fault, CutUpload | StallUpload):
            method = "PATCH|PUT"
        with self._lock:
            methods = method.split("|") if method else []
            self._orders.append(_Order(fault, methods, re.compile(path), times))

    def heal(self) -> None:
        """No more faults."""
        with self._lock:
            self._orders.clear()
        self.release()

    def release(self) -> None:
        """Let go on what stalls; later stalls stall again."""
        self._released.set()
        self._released = threading.Event()

    def sent(self, path: str = "", method: str = "GET") -> int:
        """Bytes of the bodies of all answers to this method whose path has `path` in it."""
        return sum(r.sent for r in self._of(path, method))

    def received(self, path: str = "") -> int:
        """Bytes of the bodies of all requests whose path has `path` in it."""
        return sum(r.received for r in self._of(path, ""))

    def count(self, path: str = "", method: str = "") -> int:
        """How many requests of this method had `path` in their path."""
        return len(self._of(path, method))

    def wait_sent(self, size: int, path: str = "", *, timeout_s: float = 60.0) -> None:
        """Wait until that many bytes of answers have gone out."""
        wait_for(lambda: self.sent(path) >= size, f"{size} bytes to be sent", timeout_s=timeout_s)

    def wait_received(self, size: int, path: str = "", *, timeout_s: float = 60.0) -> None:
        """Wait until that many bytes of requests have come in."""
        wait_for(lambda: self.received(path) >= size, f"{size} bytes to come", timeout_s=timeout_s)

    def reset(self) -> None:
        """Forget the requests so far."""
        with self._lock:
            self.requests.clear()

    def close(self) -> None:
        """End the server and every connection."""
        self.heal()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _of(self, path: str, method: str) -> list[Request]:
        with self._lock:
            requests = list(self.requests)
        return [r for r in requests if path in r.path and method in ("", r.method)]

    # -- for the handler's threads -----------------------------------------------------------------

    def came(self, request: Request) -> Fault | None:
        with self._lock:
            self.requests.append(request)
            for order in self._orders:
                if order.left == 0 or (order.methods and request.method not in order.methods):
                    continue
                if not order.path.search(request.path):
                    continue
                if order.left is not None:
                    order.left -= 1
                return order.fault
        return None

    def stall(self) -> None:
        self._released.wait(_STALL_LIMIT_S)

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)

    def connect(self) -> http.client.HTTPConnection:
        address = self._upstream.url.partition("://")[2]
        if self._upstream.certificates:
            context = self._upstream.certificates.client_context()
            return http.client.HTTPSConnection(address, timeout=_STALL_LIMIT_S, context=context)
        return http.client.HTTPConnection(address, timeout=_STALL_LIMIT_S)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave in the middle are what the tests are about."""

    def shutdown_request(self, request: object) -> None:
        """Close without a shutdown before, which would send an end where a reset was ordered."""
        assert isinstance(request, socket.socket)
        self.close_request(request)


class _Ended(Exception):
    """The connection is over, by order."""


def _reset_on_close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _handler(owner: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        request_record: Request
        body_left = True

        def setup(self) -> None:
            if isinstance(self.request, ssl.SSLSocket):
                self.request.do_handshake()
            super().setup()
            owner.opened(self.connection)

        def finish(self) -> None:
            owner.closed(self.connection)
            super().finish()

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (_Ended, ConnectionError, ssl.SSLError):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _serve(self) -> None:
            headers = {
                name.lower(): ", ".join(self.headers.get_all(name, [])) for name in self.headers
            }
            record = Request(self.command, self.path, headers)
            fault = owner.came(record)
            if isinstance(fault, StallHead):
                owner.stall()
            if isinstance(fault, Answer | Redirect):
                for _ in self._body(record):
                    pass
                self._answer(record, fault)
                return
            if isinstance(fault, IgnoreRange):
                headers.pop("range", None)
            upstream = owner.connect()
            try:
                answer = self._forwarded(upstream, record, headers, fault)
                self._pass_on(answer, record, fault)
            finally:
                upstream.close()

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        def _answer(self, record: Request, fault: Answer | Redirect) -> None:
            if isinstance(fault, Redirect):
                location = (fault.url or owner.url) + self.path
                fault = Answer(fault.status, {"Location": location})
            record.status = fault.status
            self.send_response(fault.status)
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(fault.body)))
            self.end_headers()
            if self.command != "HEAD":
                self._send(fault.body, record)

        def _send(self, piece: bytes, record: Request) -> None:
            """Counted first: whoever has the last byte finds all of them counted."""
            record.sent += len(piece)
            try:
                self.wfile.write(piece)
            except OSError:
                record.sent -= len(piece)
                raise

        def _forwarded(
            self,
            upstream: http.client.HTTPConnection,
            record: Request,
            headers: dict[str, str],
            fault: Fault | None,
        ) -> http.client.HTTPResponse:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name not in ("connection", "expect"):
                    upstream.putheader(name, value)
            if owner.certificates:
                upstream.putheader("X-Forwarded-Proto", "https")
            upstream.endheaders()
            chunked = "chunked" in headers.get("transfer-encoding", "")
            for piece in self._body(record):
                if (
                    isinstance(fault, CutUpload)
                    and not fault.end
                    and record.received >= fault.after
                ):
                    piece = piece[: len(piece) - (record.received - fault.after)]
                    upstream.send(_framed(piece, chunked))
                    raise _Ended
                upstream.send(_framed(piece, chunked))
                if isinstance(fault, StallUpload) and record.received >= fault.after:
                    owner.stall()
                    fault = None
            if chunked:
                upstream.send(b"0\r\n\r\n")
            answer = upstream.getresponse()
            if isinstance(fault, CutUpload):
                answer.read()
                raise _Ended
            return answer

        def _body(self, record: Request) -> Iterator[bytes]:
            """The request's body in pieces, counted."""
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    yield from self._exactly(size, record)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                yield from self._exactly(int(self.headers.get("Content-Length") or 0), record)

        def _exactly(self, left: int, record: Request) -> Iterator[bytes]:
            while left:
                piece = self.rfile.read1(min(left, _PIECE))
                if not piece:
                    raise _Ended
                left -= len(piece)
                record.received += len(piece)
                yield piece

        def _pass_on(
            self, answer: http.client.HTTPResponse, record: Request, fault: Fault | None
        ) -> None:
            record.status = answer.status
            self.send_response_only(answer.status, answer.reason)
            for name, value in _altered(answer.getheaders(), fault):
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD" or answer.status in (204, 304):
                return
            for piece in _pieces(answer, record, fault):
                self._send(piece, record)
            if isinstance(fault, Cut):
                if fault.reset:
                    _reset_on_close(self.connection)
                raise _Ended
            if isinstance(fault, Stall):
                owner.stall()
                raise _Ended
            if isinstance(fault, WrongLength) and fault.by > 0:
                raise _Ended

    return Handler


def _framed(piece: bytes, chunked: bool) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece) if chunked and piece else piece


def _altered(headers: list[tuple[str, str]], fault: Fault | None) -> Iterator[tuple[str, str]]:
    changes: dict[str, str | None] = {}
    if isinstance(fault, Header):
        changes = {name.lower(): value for name, value in fault.headers.items()}
    for name, value in headers:
        if name.lower() in changes or name.lower() in ("connection", "transfer-encoding"):
            continue
        if isinstance(fault, WrongLength) and name.lower() == "content-length":
            value = str(int(value) + fault.by)
        yield name, value
    for name, wanted in changes.items():
        if wanted is not None:
            yield name, wanted
    if not any(name.lower() == "content-length" for name, _ in headers):
        yield "Connection", "close"  # its end is the end of the body


def _pieces(
    answer: http.client.HTTPResponse, record: Request, fault: Fault | None
) -> Iterator[bytes]:
    limit = fault.after if isinstance(fault, Cut | Stall) else None
    position = 0
    while limit is None or position < limit:
        piece = answer.read(_PIECE if limit is None else min(_PIECE, limit - position))
        if not piece:
            return
        if isinstance(fault, Corrupt) and position <= fault.offset < position + len(piece):
            changed = bytearray(piece)
            changed[fault.offset - position] ^= 0xFF
            piece = bytes(changed)
        position += len(piece)
        yield piece
