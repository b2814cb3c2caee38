"""An HTTP server that says what a test tells it to, byte for byte."""

from __future__ import annotations

import json
import os
import socket
import threading
from typing import Any

JSON_HEAD = b"HTTP/1.1 %s\r\nOstype: linux\r\nApi-Version: 1.50\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Request:
    """A request as it arrived."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body

    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """Listens on a unix socket; `answer(request)` gives the bytes to send back.

    Without `answer` it is an engine that creates containers and knows nothing else.
    """

    def __init__(self, path: str, answer: Any = None) -> None:
        self.path = path
        self.requests: list[Request] = []
        self._answer = answer or created
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(50)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)
        os.unlink(self.path)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as stream:
            while line := stream.readline():
                request = _read(line, stream)
                self.requests.append(request)
                answer = self._answer(request)
                try:
                    client.sendall(answer)
                except OSError:
                    return
                if b"Connection: close" in answer:
                    return


def _read(line: bytes, stream: Any) -> Request:
    method, path, _ = line.decode().split(" ", 2)
    headers = {}
    while header := stream.readline().strip().decode():
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(stream.readline(), 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    else:
        body = stream.read(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body)


def reply(value: Any, status: str = "200 OK") -> bytes:
    """An answer with a JSON body."""
    body = json.dumps(value).encode()
    return JSON_HEAD % (status.encode(), len(body)) + body


def created(request: Request) -> bytes:
    """An engine that creates whatever it is asked for."""
    if request.method == "HEAD":
        return JSON_HEAD % (b"200 OK", 0)
    return reply({"Id": "a" * 64, "Warnings": [], "OSType": "linux"}, "201 Created")
