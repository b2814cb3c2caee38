"""DNS messages taken apart and put together; malformed ones of all kinds."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.network.names import messages
from sampan.network.names.messages import AAAA, IN, A, Malformed

ADDRESS = bytes((10, 0, 0, 1))


def query(
    name: bytes, qtype: int = A, *, flags: int = 0x0100, counts: tuple[int, ...] = (1, 0, 0, 0)
) -> bytes:
    """A query for a name given as its labels on the wire."""
    return (
        struct.pack(">H", 0x1234)
        + struct.pack(">HHHHH", flags, *counts)
        + name
        + struct.pack(">HH", qtype, IN)
    )


def test_question() -> None:
    asked = messages.question(query(messages.wire_name("WWW.Example.org."), AAAA))
    assert (asked.name, asked.qtype, asked.qclass) == ("www.example.org", AAAA, IN)
    assert (asked.limit, asked.edns) == (512, False)


def test_the_size_that_a_client_takes() -> None:
    plain = query(messages.wire_name("a"), counts=(1, 0, 0, 1))
    for size, limit in ((1232, 1232), (0, 512), (65535, 4096)):
        asked = messages.question(plain + b"\0" + struct.pack(">HHIH", 41, size, 0, 0))
        assert (asked.edns, asked.limit) == (True, limit)


def test_names_with_dots_inside_labels_read_like_no_other() -> None:
    """A policy that allows `*.pypi.org` does not allow the domain `org` to be asked for `x.pypi`."""
    asked = messages.question(query(b"\x06x.pypi\x03org\x00"))
    assert asked.name == "x\\046pypi.org"
    assert not asked.name.endswith(".pypi.org")
    assert messages.question(query(b"\x05\\046x\x00")).name == "\\092046x"


@pytest.mark.parametrize(
    ("message", "rcode"),
    [
        (b"", -1),
        (b"\0" * 11, -1),
        (query(b"\x01a\0", flags=0x8100), -1),  # an answer
        (query(b"\x01a\0", flags=0x2800), messages.NOTIMP),  # UPDATE
        (query(b"\x01a\0", counts=(0, 0, 0, 0)), messages.FORMERR),
        (query(b"\x01a\0", counts=(2, 0, 0, 0)), messages.FORMERR),
        (query(b"\x01a\0", counts=(1, 1, 0, 0)), messages.FORMERR),
        (query(b"\xc0\x0c"), messages.FORMERR),  # a pointer to itself
        (query(b"\x3fa"), messages.FORMERR),
        (query((b"\x3f" + b"a" * 63) * 5 + b"\0"), messages.FORMERR),
        (query(b"\x01a\0")[:-3], messages.FORMERR),
    ],
)
def test_malformed_queries(message: bytes, rcode: int) -> None:
    with pytest.raises(Malformed) as caught:
        messages.question(message)
    assert caught.value.rcode == rcode
    if rcode >= 0:
        assert messages.failure(message, rcode)[3] & 0x0F == rcode


def test_answers_that_do_not_fit_are_cut_and_say_so() -> None:
    sent = query(messages.wire_name("many"))
    asked = messages.question(sent)
    values = [bytes((10, 0, n >> 8, n & 255)) for n in range(100)]
    cut = messages.answer(sent, asked, A, values, 512)
    assert len(cut) <= 512 and cut[2] & 0x02
    assert 0 < len(messages.addresses(cut)) < 100
    whole = messages.answer(sent, asked, A, values)
    assert [value for value, _ in messages.addresses(whole)] == values
    assert not whole[2] & 0x02
    assert {ttl for _, ttl in messages.addresses(whole)} == {600}


def test_addresses_behind_an_alias_with_compressed_names() -> None:
    sent = query(messages.wire_name("www.example.org"))
    records = (
        b"\xc0\x0c" + struct.pack(">HHIH", 5, IN, 60, 6) + b"\x03cdn\xc0\x10"
        + b"\xc0\x2d" + struct.pack(">HHIH", A, IN, 30, 4) + ADDRESS
    )  # fmt: skip
    message = sent[:2] + struct.pack(">HHHHH", 0x8180, 1, 2, 0, 0) + sent[12:] + records
    assert messages.addresses(message) == [(ADDRESS, 30)]
    with pytest.raises(Malformed):
        messages.addresses(message[:-1])


def test_reversed_addresses() -> None:
    assert messages.reversed_address("1.2.3.10.in-addr.arpa") == bytes((10, 3, 2, 1))
    v6 = ".".join(reversed("fd000000000000000000000000000002")) + ".ip6.arpa"
    assert messages.reversed_address(v6) == bytes.fromhex("fd000000000000000000000000000002")
    for name in ("a.in-addr.arpa", "1.2.3.in-addr.arpa", "999.1.1.1.in-addr.arpa", "1.ip6.arpa",
                 "²" * 32 + ".ip6.arpa", ".".join("zz" * 16) + ".ip6.arpa", "plain"):  # fmt: skip
        assert messages.reversed_address(name) is None, name


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 2**32))
def test_no_bytes_break_it(tail: bytes, seed: int) -> None:
    """Whatever comes, it is a question or is told apart; whatever is answered can be read."""
    head = struct.pack(">HHHHHH", 1, 0x0100, 1, 0, 0, seed % 3)
    broken = bytearray(query(messages.wire_name("some.name"), counts=(1, 0, 0, 1)) + tail)
    generator = random.Random(seed)
    for _ in range(3):
        broken[generator.randrange(len(broken))] = generator.randrange(256)
    for message in (tail, head + tail, bytes(broken)):
        try:
            asked = messages.question(message)
        except Malformed as error:
            if error.rcode >= 0:
                messages.failure(message, error.rcode)
        else:
            made = messages.answer(message, asked, A, [ADDRESS], asked.limit)
            assert messages.addresses(made)[:1] in ([(ADDRESS, 600)], [])
            assert messages.answers(message, asked, made)
        if len(message) >= 12:
            try:
                messages.addresses(message)
            except Malformed:
                pass
