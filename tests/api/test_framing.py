"""Where requests end: in any pieces, behind others, with a body of any kind."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api.framing import Framing

START = b"POST /v1.41/exec/x/start HTTP/1.1\r\nHost: d\r\n"
PLAIN = {
    "get": b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n",
    "sized": b"POST /containers/create HTTP/1.1\r\ncontent-length: 4\r\n\r\n{}\r\n",
    "chunked": b"POST /images/load HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "a hijack as a body": b"POST /build HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(START) + 2, START),
}  # fmt: skip
HIJACKING = {
    "bare": START + b"\r\n",
    "attach": b"POST http://d/containers/x/attach?stream=1 HTTP/1.1\r\nHost: d\r\n\r\n",
    "empty lines before": b"\r\n\r\n\n" + START + b"\r\n",
    "sized": START + b"Content-Length: 2\r\n\r\n{}",
    "chunked": START + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks": START + b"transfer-encoding:chunked\r\n\r\n1\r\n{\r\n0001;a=b\r\n}\r\n000\r\n\r\n",
    "a big chunk": START + b"transfer-encoding: chunked\r\n\r\n1Aa\r\n" + b"\r\n" * 213 + b"\r\n0\r\n\r\n",
    "trailers": START + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\nZ:\r\n\r\n",
}  # fmt: skip


def taken(pieces: list[bytes]) -> tuple[bytes, Framing]:
    """What of the pieces went to the parser."""
    framing, result = Framing(), b""
    for piece in pieces:
        result += piece[: framing.take(piece)]
    return result, framing


@given(
    before=st.lists(st.sampled_from(sorted(PLAIN)), max_size=3),
    last=st.sampled_from(sorted(HIJACKING)),
    session=st.sampled_from([b"", b"\r\n", b"0\r\n\r\n", PLAIN["get"], b"\x00\xff" * 40]),
    cuts=st.lists(st.integers(0, 900)),
)
def test_the_session_begins_where_the_request_ends(
    before: list[str], last: str, session: bytes, cuts: list[int]
) -> None:
    http = b"".join(PLAIN[name] for name in before) + HIJACKING[last]
    data = http + session
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]
    result, framing = taken(pieces)
    assert result == http
    assert framing.hijacked and not framing.lost
    assert framing.requests == len(before) + 1
    framing.go_on()
    assert framing.take(PLAIN["get"] + HIJACKING["sized"] + b"x") == len(
        PLAIN["get"] + HIJACKING["sized"]
    )


@pytest.mark.parametrize("name", PLAIN)
def test_ordinary_requests_are_passed_on(name: str) -> None:
    result, framing = taken([PLAIN[name] * 3])
    assert (result, framing.hijacked, framing.requests) == (PLAIN[name] * 3, False, 3)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"x" * (300 << 10),
        START + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        START + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        START + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 16 + b"\r\n",
        START + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 20_000,
        START + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"x" * 20_000,
        b"CONNECT d:80 HTTP/1.1\r\n\r\n",
        b"GET /containers/x/attach/ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
    ],
)
def test_what_is_no_request_is_passed_on(nonsense: bytes) -> None:
    """For the parser to refuse, or for the protocol that follows; nothing is kept of it."""
    result, framing = taken([nonsense, HIJACKING["bare"], b"more"])
    assert result == nonsense + HIJACKING["bare"] + b"more"
    assert framing.lost and not framing.hijacked and not framing._text


@given(st.binary(max_size=300), st.lists(st.integers(1, 50)))
def test_any_bytes(data: bytes, sizes: list[int]) -> None:
    """Nothing is lost or taken twice, whatever comes."""
    framing, at = Framing(), 0
    for size in [*sizes, 300]:
        piece = data[at : at + size]
        end = framing.take(piece)
        assert end == len(piece) or framing.hijacked
        at += len(piece)
