"""Every reference of the table is read, named and refused as dockerd does it."""

from __future__ import annotations

import os

import pytest

from support import references
from support.engines import Engine

pytestmark = pytest.mark.root


def newer(text: str) -> bool:
    """What dockerd 20.10 refuses and docker 28 takes: registries in capitals, IPv6, long paths."""
    domain, slash, _ = text.partition("/")
    capitals = bool(slash) and domain != domain.lower()
    return capitals or domain.startswith("[") or (len(text) > 240 and "/" in text)


def message(told: str) -> str:
    """Without the status: dockerd 20.10 answers 500 where it means 400."""
    return told if told.startswith("=") else told.partition(" ")[2]


def test_the_table(target: Engine) -> None:
    found = [references.asked(target, text) for text in references.texts()]
    if os.environ.get("SAMPAN_WRITE_REFERENCES") and target.name == "dockerd":
        references.store(found)
    wanted = references.stored()
    assert [row["text"] for row in found] == [row["text"] for row in wanted]
    differing = []
    for ours, theirs in zip(found, wanted, strict=True):
        text = ours["text"]
        if target.name == "sampan" and (newer(text) or "@sha512:" in text or "@sha384:" in text):
            continue
        if message(ours["tag"]) != message(theirs["tag"]) or ours.get("create") != theirs.get(
            "create"
        ):
            differing.append(f"{ours}\n  {theirs}")
    assert not differing, "\n".join(differing)
