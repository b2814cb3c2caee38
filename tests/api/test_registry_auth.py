"""X-Registry-Auth: what clients send for somebody, and for nobody."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api.registry_auth import credentials_from, decoded
from sampan.images.distribution.credentials import Credentials


def encoded(document: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


ME = {"username": "me", "password": "s?>é~", "serveraddress": "a.b"}


@pytest.mark.parametrize(
    "header",
    [
        encoded(ME),
        encoded(ME).rstrip("="),
        f" {encoded(ME)} ",
        base64.b64encode(json.dumps(ME).encode()).decode(),
        encoded({**ME, "email": "x", "unknown": {"a": 1}}),
        encoded({key.capitalize(): value for key, value in ME.items()}),
        encoded({"auth": base64.b64encode("me:s?>é~".encode()).decode(), "serveraddress": "a.b"}),
    ],
)
def test_somebody(header: str) -> None:
    expected = Credentials("me", "s?>é~", server_address="a.b")
    assert credentials_from(decoded(header)) == expected


def test_tokens() -> None:
    document = {"identitytoken": "i", "registrytoken": "r"}
    assert credentials_from(document) == Credentials(identity_token="i", registry_token="r")


@pytest.mark.parametrize(
    "header",
    ["", "e30=", "null", "%%%", "abc", encoded([]), encoded(None), encoded("x"), encoded({"auth": "%"}),
     encoded({"username": 7}), encoded({"auth": base64.b64encode(b"no colon").decode()}), "\u00e9"],
)  # fmt: skip
def test_nobody(header: str) -> None:
    assert not credentials_from(decoded(header))


@given(st.text(max_size=100))
def test_anything_is_taken(header: str) -> None:
    credentials_from(decoded(header))
