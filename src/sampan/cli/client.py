"""HTTP/1.1 to the engine over a unix or TCP socket: no more of it than the Engine API needs.

`http.client` costs 18 ms to import and `socket` 6; the C module `_socket` is there already. Paths
are sent without a version prefix, which means the newest that the engine speaks, so no `_ping` has
to go ahead of a command.

A walk through one use:

    client = Client(parse_address("unix:///run/sampan/sampan.sock"))
    containers = client.call("GET", "/containers/json?all=1")
    stream = client.hijack("/containers/x/attach?stream=1&stdout=1")
"""

from __future__ import annotations

import _socket
from codecs import utf_8_decode

from sampan.cli import jsontext
from sampan.cli.address import connect
from sampan.cli.failures import ApiError, CommandError, ConnectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from sampan.cli.address import Address

CHUNK_BYTES = 1 << 18
HEAD_LIMIT_BYTES = 1 << 20
_UNRESERVED = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~")


def quote(text: str) -> str:
    """`text` percent-encoded for a path segment or a query value (RFC 3986)."""
    data = text.encode("utf-8", "surrogateescape")
    if _UNRESERVED.issuperset(data):
        return text
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in data)


def query(**values: str | int | bool | None) -> str:
    """`?a=b&c=1` of the values that are set: None, False and "" are left out, True is 1.

    An underscore in front of a name is dropped, so that `_from=…` can be written.
    """
    pairs = [
        f"{name.lstrip('_')}={'1' if value is True else quote(str(value))}"
        for name, value in values.items()
        if value not in (None, False, "")
    ]
    return "?" + "&".join(pairs) if pairs else ""


class Connection:
    """One connected socket and the bytes read ahead of need."""

    __slots__ = ("buffer", "eof", "sock")

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.eof = False

    def fill(self) -> bool:
        """Read more; False at the end of the stream."""
        data = self.sock.recv(CHUNK_BYTES)
        if not data:
            self.eof = True
            return False
        self.buffer += data
        return True

    def line(self) -> bytes:
        """The next line without its CRLF."""
        while b"\n" not in self.buffer:
            if len(self.buffer) > HEAD_LIMIT_BYTES or not self.fill():
                raise ConnectionResetError("the engine closed the connection")
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def take(self, size: int) -> bytes:
        """Up to `size` bytes, at least one; b"" at the end of the stream."""
        if not self.buffer and not self.fill():
            return b""
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def close(self) -> None:
        self.sock.close()


class Response:
    """A response whose head is read; the body is taken by one of `read`, `chunks` or `text`."""

    __slots__ = ("_owner", "connection", "headers", "method", "status")

    def __init__(self, connection: Connection, method: str, owner: Client | None) -> None:
        self.connection = connection
        self.method = method
        self._owner = owner
        self.headers: dict[str, str] = {}
        self.status = self._head()
        while 100 <= self.status < 200 and self.status != 101:
            self.status = self._head()

    def _head(self) -> int:
        words = self.connection.line().decode("latin-1").split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdecimal():
            raise CommandError("error during connect: the answer is not HTTP")
        while line := self.connection.line().decode("latin-1"):
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()
        return int(words[1])

    def chunks(self) -> Iterator[bytes]:
        """The body piece by piece as it arrives; read to its end, the connection is kept for later.

        Raises:
            ConnectError: the engine went away.
        """
        try:
            yield from self._body()
        except OSError as error:
            self.connection.close()
            raise broken(error) from error
        except BaseException:
            self.connection.close()
            raise
        self._done()

    def _body(self) -> Iterator[bytes]:
        if self.method == "HEAD" or self.status in (204, 304):
            pass
        elif "chunked" in self.headers.get("transfer-encoding", ""):
            yield from self._chunked()
        elif "content-length" in self.headers:
            yield from self._counted(_number(self.headers["content-length"].encode(), 10))
        else:
            while data := self.connection.take(CHUNK_BYTES):
                yield data

    def _counted(self, left: int) -> Iterator[bytes]:
        while left > 0:
            data = self.connection.take(left)
            if not data:
                raise ConnectionResetError("unexpected EOF")
            left -= len(data)
            yield data

    def _chunked(self) -> Iterator[bytes]:
        connection = self.connection
        while size := _number(connection.line().partition(b";")[0], 16):
            yield from self._counted(size)
            connection.line()
        while connection.line():
            pass

    def _done(self) -> None:
        closes = self.headers.get("connection", "").lower() == "close" or self.connection.eof
        if self._owner is None or closes:
            self.connection.close()
        else:
            self._owner.idle = self.connection

    def read(self) -> bytes:
        """The whole body.

        Raises:
            ConnectError: the engine went away in the middle of it.
        """
        return b"".join(self.chunks())

    def values(self) -> Iterator[Any]:
        """The JSON values of a body that is a sequence of them, each as soon as it is complete."""
        pending = ""
        partial = b""
        for chunk in self.chunks():
            partial += chunk
            text, taken = utf_8_decode(partial, "replace", False)  # a cut letter waits for its rest
            pending += text
            partial = partial[taken:]
            start = 0
            while pending[start:].strip():
                try:
                    value, start = jsontext.decode_from(pending, start)
                except ValueError:
                    break
                yield value
            pending = pending[start:]

    def close(self) -> None:
        """Give the rest of the body up."""
        self.connection.close()


class Client:
    """Requests to one engine. `idle` is a connection that the next request may use.

    `version` asks for the shapes of one API version (`1.41`); "" for the engine's newest. What requests
    make belongs to `lease`, if that is not "".
    """

    def __init__(self, address: Address, version: str = "", lease: str = "") -> None:
        self.address = address
        self.version = version
        self.lease = lease
        self._prefix = f"/v{version}" if version else ""
        self.idle: Connection | None = None

    def close(self) -> None:
        """Close the idle connection, if there is one."""
        connection = self._take_idle()
        if connection is not None:
            connection.close()

    def connect(self) -> Connection:
        """A new connection.

        Raises:
            ConnectError: nothing listens there, or access is denied.
        """
        return Connection(connect(self.address))

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        *,
        content_type: str = "application/json",
        extra: str = "",
        fresh: bool = False,
    ) -> Connection:
        """Write a request; an iterable of bytes as body is sent in chunks as it comes."""
        connection = self._take_idle() if not fresh else None
        connection = connection or self.connect()
        if self.lease:
            extra = f"{extra}X-Sampan-Lease: {self.lease}\r\n"
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\nHost: api.moby.localhost\r\nUser-Agent: Sampan-Client\r\n{extra}"
        if isinstance(body, bytes):
            head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sock.sendall(head.encode() + body)
        elif body is not None:
            head += f"Content-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.sock.sendall(head.encode())
            _send_chunks(connection.sock, body)
        else:
            length = "Content-Length: 0\r\n" if method in ("POST", "PUT") else ""
            connection.sock.sendall(f"{head}{length}\r\n".encode())
        return connection

    def _take_idle(self) -> Connection | None:
        """The idle connection, unless the engine has closed it in the meantime."""
        connection, self.idle = self.idle, None
        if connection is None:
            return None
        try:
            connection.sock.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return connection
        except OSError:
            pass
        connection.close()
        return None

    def open(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        *,
        content_type: str = "application/json",
        extra: str = "",
        fresh: bool = False,
    ) -> Response:
        """Send a request and read the head of its answer; `extra`: header lines, each with its end.

        Raises:
            ApiError: the status is 400 or more; the engine's message is in it.
            ConnectError: the engine went away.
        """
        try:
            connection = self.send(
                method, path, body, content_type=content_type, extra=extra, fresh=fresh
            )
            return checked(_answer(connection, method, self))
        except OSError as error:
            raise broken(error) from error

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request with a JSON body, if any; the decoded JSON of the answer, None if empty."""
        data = (
            jsontext.encode(body).encode("utf-8", "surrogateescape") if body is not None else None
        )
        text = self.open(method, path, data).read()
        if not text.strip():
            return None
        try:
            return jsontext.decode(text.decode("utf-8", "replace"))
        except (ValueError, RecursionError) as error:
            raise CommandError(f"the engine's answer to {method} {path} is not JSON") from error

    def hijack(self, path: str, body: Any = None) -> Connection:
        """POST, asking for the connection to become a raw stream; the connection, once it is one.

        Raises:
            ApiError: the engine refused.
        """
        data = (
            jsontext.encode(body).encode("utf-8", "surrogateescape") if body is not None else None
        )
        upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
        try:
            connection = self.send("POST", path, data, extra=upgrade, fresh=True)
            response = checked(_answer(connection, "POST", None))
        except OSError as error:
            raise broken(error) from error
        return response.connection


def _number(text: bytes, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0:
        raise CommandError("error during connect: malformed HTTP answer")
    return number


def _answer(connection: Connection, method: str, owner: Client | None) -> Response:
    """The head of the answer; the connection is closed if there is none."""
    try:
        return Response(connection, method, owner)
    except BaseException:
        connection.close()
        raise


def checked(response: Response) -> Response:
    """The response, if it is no error.

    Raises:
        ApiError: with the `message` of the engine's answer.
    """
    if response.status < 400:
        return response
    text = response.read().decode("utf-8", "replace")
    try:
        reason = str(jsontext.decode(text)["message"])
    except (ValueError, KeyError, TypeError):
        reason = text.strip() or f"status {response.status}"
    raise ApiError(response.status, reason)


def _send_chunks(sock: _socket.socket, body: Iterable[bytes]) -> None:
    """The body in chunks; an engine that stops reading has said why, and the answer is read next."""
    try:
        for chunk in body:
            if chunk:
                sock.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        sock.sendall(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        return


def broken(error: OSError) -> ConnectError:
    """What to tell of a connection that failed in the middle."""
    return ConnectError(f"error during connect: {error.strerror or error}")
