"""The HTTP client against a server that answers in every way that HTTP allows."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from cli.fakes import Server, reply
from sampan.cli.address import parse_address
from sampan.cli.client import Client, query, quote
from sampan.cli.failures import ApiError, CommandError, ConnectError

Serve = Callable[[bytes], Client]


@pytest.fixture
def serve(tmp_path: object) -> Iterator[Serve]:
    servers: list[Server] = []

    clients: list[Client] = []

    def start(answer: bytes) -> Client:
        servers.append(Server(f"{tmp_path}/s{len(servers)}.sock", lambda request: answer))
        clients.append(Client(parse_address(servers[-1].url)))
        return clients[-1]

    yield start
    for client in clients:
        client.close()
    for server in servers:
        server.close()


def chunked(*chunks: bytes) -> bytes:
    body = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\nTrailer: x\r\n\r\n"
    )


def test_counted_and_chunked_bodies_share_a_connection(tmp_path: object) -> None:
    answers = [reply({"a": 1}), chunked(b'{"b":', b"2}"), b"HTTP/1.1 204 No Content\r\n\r\n"]
    server = Server(f"{tmp_path}/s.sock", lambda request: answers.pop(0))
    client = Client(parse_address(server.url))
    assert client.call("GET", "/a") == {"a": 1}
    first = client.idle
    assert client.call("POST", "/b", {"x": "é"}) == {"b": 2}
    assert client.call("DELETE", "/c") is None
    assert client.idle is first
    assert [request.path for request in server.requests] == ["/a", "/b", "/c"]
    assert server.requests[1].json() == {"x": "é"}
    client.close()
    server.close()


def test_a_body_without_a_length_ends_with_the_connection(serve: Serve) -> None:
    client = serve(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello")
    assert client.open("GET", "/").read() == b"hello"
    assert client.idle is None


@pytest.mark.parametrize(
    "parts",
    [
        [b'{"a":1}\n{"a":2}\n'],
        [b'{"a":', b"1}", b'{"a"', b":2}"],
        [b'{"a":1}{"a":2}'],
        [b"\n", b'{"a":1}\r\n', b'\n{"a":2}'],
    ],
)
def test_sequences_of_json(serve: Serve, parts: list[bytes]) -> None:
    assert list(serve(chunked(*parts)).open("GET", "/").values()) == [{"a": 1}, {"a": 2}]


def test_text_cut_in_the_middle_of_a_letter(serve: Serve) -> None:
    data = '{"a":"é舢"}\n'.encode()
    client = serve(chunked(*(data[i : i + 1] for i in range(len(data)))))
    assert list(client.open("GET", "/").values()) == [{"a": "é舢"}]


def test_errors_are_the_engines_words(serve: Serve) -> None:
    with pytest.raises(ApiError) as caught:
        serve(reply({"message": "No such container: x"}, "404 Not Found")).call("GET", "/")
    assert (caught.value.code, caught.value.status) == (404, 1)
    assert caught.value.message == "Error response from daemon: No such container: x"
    with pytest.raises(ApiError, match="Bad Gateway"):
        body = b"Bad Gateway"
        head = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: %d\r\n\r\n" % len(body)
        serve(head + body).call("GET", "/")


def test_an_engine_that_goes_away(serve: Serve) -> None:
    with pytest.raises(ConnectError, match="closed the connection"):
        serve(b"HTTP/1.1 200 OK\r\nConnection: close").call("GET", "/")
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nabc"
    with pytest.raises(ConnectError, match="unexpected EOF"):
        serve(cut).call("GET", "/")


def test_what_is_not_http(serve: Serve) -> None:
    with pytest.raises(CommandError, match="not HTTP"):
        serve(b"SSH-2.0-OpenSSH Connection: close\r\n").call("GET", "/")


def test_nobody_there(tmp_path: object) -> None:
    with pytest.raises(
        ConnectError, match=f"Cannot connect to the Docker daemon at unix://{tmp_path}/no.sock"
    ):
        Client(parse_address(f"unix://{tmp_path}/no.sock")).call("GET", "/")


def test_uploads_are_chunked(tmp_path: object) -> None:
    server = Server(f"{tmp_path}/s.sock", lambda request: reply({}))
    client = Client(parse_address(server.url))
    client.open("POST", "/images/load", iter([b"abc", b"", b"def"])).read()
    assert server.requests[0].body == b"abcdef"
    client.close()
    server.close()


def test_an_answer_before_the_end_of_the_upload_is_heard(tmp_path: object) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{tmp_path}/s.sock")
    listener.listen()

    def answer() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(reply({"message": "no"}, "400 Bad Request"))

    thread = threading.Thread(target=answer)
    thread.start()
    client = Client(parse_address(f"unix://{tmp_path}/s.sock"))
    with pytest.raises(ApiError, match="no"):
        client.open("POST", "/images/load", (b"x" * 65536 for _ in range(1000)))
    thread.join()
    client.close()
    listener.close()


@pytest.mark.parametrize(
    ("url", "path", "host", "port"),
    [
        ("unix:///x.sock", "/x.sock", "", 0),
        ("unix://", "/run/sampan/sampan.sock", "", 0),
        ("tcp://1.2.3.4:5", "", "1.2.3.4", 5),
        ("tcp://[::1]:5", "", "::1", 5),
        ("tcp://host", "", "host", 2375),
        ("host:99", "", "host", 99),
        ("tcp://:5", "", "127.0.0.1", 5),
    ],
)
def test_addresses(url: str, path: str, host: str, port: int) -> None:
    address = parse_address(url)
    assert (address.path, address.host, address.port) == (path, host, port)


@pytest.mark.parametrize("url", ["ssh://x", "fd://", "tcp://x:port", "tcp://x:99999"])
def test_no_addresses(url: str) -> None:
    with pytest.raises(CommandError, match="unable to parse docker host"):
        parse_address(url)


def test_quoting() -> None:
    assert quote("a/b c:é") == "a%2Fb%20c%3A%C3%A9"
    assert query(a=True, b=False, c=None, d="", e="x y", _from="z") == "?a=1&e=x%20y&from=z"
