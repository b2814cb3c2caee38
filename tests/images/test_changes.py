"""`--change` edits run defaults as Dockerfile instructions do."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.errors import InvalidArgument
from sampan.images.flat import new_defaults


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
        (["# a comment", "", "USER a\nWORKDIR /b"], {"User": "a", "WorkingDir": "/b"}),
    ],
)
def test_changes(changes: list[str], config: dict[str, Any]) -> None:
    assert new_defaults(changes).to_dict() == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("RUN true", "run is not a valid change command"),
        ("NOPE x", "unknown instruction: NOPE"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=1 B", "can't find = in"),
        ("LABEL 'a=b", "dockerfile parse error"),
        ("EXPOSE x", "Invalid containerPort: x"),
        ("EXPOSE 70000", "Invalid containerPort"),
        ("ONBUILD FROM x", "isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK --nope=1 CMD x", "Unknown flag: nope"),
        ("HEALTHCHECK --interval=x CMD x", "invalid duration"),
        ("HEALTHCHECK --retries=1", "Missing command"),
    ],
)
def test_refused(change: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        new_defaults([change])
