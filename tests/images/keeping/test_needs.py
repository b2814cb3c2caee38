"""Who needs which blob: counted as owners come, change and go."""

from __future__ import annotations

from sampan.images.keeping.needs import NOTHING, Freed, Needs, Parts
from sampan.oci.digest import ChainID, Digest


def digest(letter: str) -> Digest:
    return Digest("sha256:" + letter * 64)


A, B, C = (digest(letter) for letter in "abc")
ONE, TWO = ChainID(digest("1")), ChainID(digest("2"))


def test_what_the_last_owner_lets_go_is_told() -> None:
    needs = Needs()
    assert needs.put("x", Parts({A: 1, B: 10}, ONE)) == NOTHING
    needs.put("y", Parts({B: 10, C: 100}, ONE))
    assert needs.blob_bytes == 111
    assert needs.is_shared(B) and not needs.is_shared(A)
    assert needs.drop("x") == Freed({A: 1}, None)
    assert needs.drop("x") == NOTHING
    assert set(needs.owners_of_blob(B)) == {"y"}
    assert needs.drop("y") == Freed({B: 10, C: 100}, ONE)
    assert (needs.blob_bytes, needs.blob_sizes()) == (0, {})
    assert not needs.needs_blob(B) and not needs.needs_chain(ONE)


def test_an_owner_that_changes_lets_go_what_it_had() -> None:
    needs = Needs()
    needs.put("x", Parts({A: 1, B: 10}, ONE))
    assert needs.put("x", Parts({B: 10, C: 100}, TWO)) == Freed({A: 1}, ONE)
    assert needs.put("x", Parts({B: 10, C: 100}, TWO)) == NOTHING
    assert needs.blob_bytes == 110
    assert set(needs.owners_of_chain(TWO)) == {"x"}
    assert needs.put("x", Parts({}, None)) == Freed({B: 10, C: 100}, TWO)
