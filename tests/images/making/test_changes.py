"""`--change` edits run defaults as Dockerfile instructions do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.images.making.flat import new_defaults


@pytest.mark.parametrize(
    ("changes", "config"),
    [
        (["CMD echo hi"], {"Cmd": ["/bin/sh", "-c", "echo hi"]}),
        (['CMD ["echo", "hi"]'], {"Cmd": ["echo", "hi"]}),
        (["cmd [not json"], {"Cmd": ["/bin/sh", "-c", "[not json"]}),
        (['ENTRYPOINT ["/init"]', "USER 5:6"], {"Entrypoint": ["/init"], "User": "5:6"}),
        (["ENV A=1 B='x y'", "ENV A=2", "ENV C a b"], {"Env": ["A=2", "B=x y", "C=a b"]}),
        (
            ["EXPOSE 80 53/udp 8000-8001"],
            {"ExposedPorts": {p: {} for p in ("80/tcp", "53/udp", "8000/tcp", "8001/tcp")}},
        ),
        (['LABEL a=b c="d e"'], {"Labels": {"a": "b", "c": "d e"}}),
        (["VOLUME /a /b", 'VOLUME ["/c d"]'], {"Volumes": {"/a": {}, "/b": {}, "/c d": {}}}),
        (["WORKDIR /a", "WORKDIR b"], {"WorkingDir": "/a/b"}),
        (["STOPSIGNAL SIGINT"], {"StopSignal": "SIGINT"}),
        (["ONBUILD RUN x"], {"OnBuild": ["RUN x"]}),
        (
            ["HEALTHCHECK --interval=1m30s --retries=3 CMD true"],
            {"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 90 * 10**9, "Retries": 3}},
        ),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (["CMD a", 'ENTRYPOINT ["e"]'], {"Cmd": ["/bin/sh", "-c", "a"], "Entrypoint": ["e"]}),
        (["ENV A=1", "ENV A=2 B=$A", "ENV C=$A"], {"Env": ["A=2", "B=1", "C=2"]}),
        (
            ["ENV A=1", "ENV P=$A:${A}:${C:-d}:${A:+yes}:${C:+no}:\\$A:$UNSET:$"],
            {"Env": ["A=1", "P=1:1:d:yes::$A::$"]},
        ),
        (
            ["ENV A=1", """ENV P='$A' Q="$A \\$A" R=\\$A S="a\\b" """],
            {"Env": ["A=1", "P=$A", "Q=1 $A", "R=$A", "S=a\\b"]},
        ),
        (["ENV A=1 \\", "B=2"], {"Env": ["A=1", "B=2"]}),
        (["ENV A x y $B"], {"Env": ["A=x y "]}),
        (["ENV A=1", "WORKDIR $A/sub"], {"Env": ["A=1"], "WorkingDir": "/1/sub"}),
        (["WORKDIR /abs/../x/"], {"WorkingDir": "/abs/../x/"}),
        (["# a comment", "", "USER a\nWORKDIR /b"], {"User": "a", "WorkingDir": "/b"}),
    ],
)
def test_changes(changes: list[str], config: dict[str, Any]) -> None:
    assert new_defaults(changes).to_dict() == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("RUN true", "run is not a valid change command"),
        ("NOPE x", "nope is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=1 B", "can't find = in"),
        ("LABEL 'a=b", "looking for matching single-quote"),
        ('LABEL "a=b', "looking for matching double-quote"),
        ("# nothing", "file with no instructions"),
        ("ENV X=${A", "missing ':' in substitution"),
        ("ENV X=${A:?unset}", 'failed to process "\\${A:\\?unset}": A: unset'),
        ("ENV X=${A:x}", "unsupported modifier"),
        ("ENV X=${}", "bad substitution"),
        ("ENV X=${A:-b", "missing '}'"),
        ("ENV =x", "ENV names can not be blank"),
        ("USER", "USER requires exactly one argument"),
        ("EXPOSE x", "Invalid containerPort: x"),
        ("EXPOSE 70000", "Invalid containerPort"),
        ("EXPOSE 1-", "Invalid containerPort: 1-"),
        ("EXPOSE 1/x", "Invalid proto: x"),
        ("HEALTHCHECK --retries=0 CMD x", "must be at least 1"),
        ("HEALTHCHECK --timeout=1ns CMD x", "cannot be less than 1ms"),
        ("ONBUILD FROM x", "isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK --nope=1 CMD x", "Unknown flag: nope"),
        ("HEALTHCHECK --interval=x CMD x", "invalid duration"),
        ("HEALTHCHECK --retries=1", "Missing command"),
    ],
)
def test_refused(change: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        new_defaults([change])


def test_nesting_has_an_end() -> None:
    deep = "${A:-" * 40 + "x" + "}" * 40
    assert new_defaults([f"ENV B={deep}"]).env == ["B=x"]
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        new_defaults(["ENV B=" + "${A:-" * 100_000])


WORDS = st.sampled_from(
    ["ENV", "LABEL", "EXPOSE", "VOLUME", "USER", "WORKDIR", "CMD", "ENTRYPOINT", "ONBUILD",
     "HEALTHCHECK", "STOPSIGNAL", " ", " ", "\n", "\\", "\\\n", "\"", "'", "$", "${", "}", ":", "-", "+", "?",
     "=", "A", "A=1", "/", "[", "]", ",", "#", "80", "tcp", "--interval=", "--retries=", "1s", "CMD ",
     "\0", "\ud800", "é", "\u2028", "\r", "\t"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(WORDS, max_size=12).map("".join), min_size=1, max_size=3))
def test_anything_is_applied_or_refused(changes: list[str]) -> None:
    try:
        new_defaults(changes).to_dict()
    except InvalidArgument as error:
        assert error.message
