"""A peer that closes with our message unread: what it said before is still received."""

from __future__ import annotations

from sampan.linux import seqpacket


def test_last_words_come_before_the_end() -> None:
    ours, theirs = seqpacket.pair()
    try:
        seqpacket.send(ours, b"never read", ())
        seqpacket.send(theirs, b"last words", ())
        theirs.close()
        assert seqpacket.receive(ours) == (b"last words", [])
        assert seqpacket.receive(ours) == (b"", [])
    finally:
        ours.close()


def test_the_end_without_words() -> None:
    ours, theirs = seqpacket.pair()
    try:
        seqpacket.send(ours, b"never read", ())
        theirs.close()
        assert seqpacket.receive(ours) == (b"", [])
    finally:
        ours.close()
