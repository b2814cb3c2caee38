"""Whatever a registry sends: an answer that makes sense, or a failure with a text; nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import SampanError
from sampan.images.distribution import manifests, repository, searching, tokens
from sampan.images.distribution.failures import Answered, failure_of, token_failure
from sampan.oci.media_types import INDEXES, MANIFESTS
from sampan.oci.reference import parse_reference

_KEYS = st.sampled_from(
    ["mediaType", "schemaVersion", "config", "layers", "manifests", "tags", "token", "access_token",
     "expires_in", "refresh_token", "results", "errors", "code", "message", "details", "name",
     "star_count"]
)  # fmt: skip
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from([*INDEXES, *MANIFESTS, "DENIED", "latest"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=8,
)
BODIES = (
    st.binary(max_size=60)
    | st.dictionaries(_KEYS, _VALUES, max_size=6).map(lambda value: json.dumps(value).encode())
    | _VALUES.map(lambda value: json.dumps(value).encode())
)
REFERENCE = parse_reference("localhost:5000/a:v1")


def expected_or_failure(work: Any, *arguments: Any) -> Any:
    try:
        return work(*arguments)
    except SampanError as failure:
        assert failure.message
        return None


@given(BODIES, st.sampled_from(["", "text/html", "application/json; x=y", *INDEXES, *MANIFESTS]))
def test_manifests(body: bytes, content_type: str) -> None:
    expected_or_failure(manifests.refuse_schema_1, content_type, body, "a:v1")
    found = expected_or_failure(manifests.media_type_of, content_type, body, "a:v1")
    assert found is None or found in INDEXES | MANIFESTS


@given(BODIES)
def test_tags(body: bytes) -> None:
    found = expected_or_failure(repository._tags_of, body, "tags of a")
    assert found is None or all(isinstance(tag, str) for tag in found)


@given(BODIES)
def test_tokens(body: bytes) -> None:
    found = expected_or_failure(tokens._token, body, 0.0, 'Get "u"')
    if found is not None:
        assert found.value.isascii() and "\n" not in found.value
        assert found.expires <= tokens.LIFETIME_MAX_S


@given(BODIES)
def test_search_results(body: bytes) -> None:
    for item in expected_or_failure(searching._results, body, 'Get "u"') or ():
        assert isinstance(item["name"], str) and isinstance(item["star_count"], int)


@given(BODIES, st.integers(min_value=300, max_value=599))
def test_failures(body: bytes, status: int) -> None:
    answer = Answered(status, "Reason", (), body)
    assert failure_of(answer, REFERENCE).message
    assert failure_of(answer).message
    assert token_failure(answer, 'Get "u"').message


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b"\xff\xfe{}"])
def test_deep_and_strange(body: bytes) -> None:
    test_of = [
        lambda: manifests.media_type_of("", body, "a"),
        lambda: repository._tags_of(body, "a"),
        lambda: tokens._token(body, 0.0, "a"),
        lambda: searching._results(body, "a"),
    ]
    for work in test_of:
        with pytest.raises(SampanError):
            work()
    assert failure_of(Answered(400, "", (), body)).message
