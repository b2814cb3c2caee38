"""How a registry's failures are told: kinds of `sampan.errors` with dockerd's texts.

Source: OCI distribution-spec, "Error Codes"; the texts are those of dockerd 20.10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from sampan.errors import NotFound, SampanError, Unavailable
from sampan.images.distribution.challenges import Challenge
from sampan.oci.reference import Reference

ERROR_BODY_LIMIT = 64 << 10
_SHOWN_BODY = 1024

# Codes that mean "there is none", for a pull: what dockerd says in front of them.
_ABSENT = {
    "DENIED": "pull access denied for {name}, repository does not exist or may require 'docker login'",
    "MANIFEST_UNKNOWN": "manifest for {reference} not found",
    "NAME_UNKNOWN": "repository {name} not found",
}
# Code → the message where the registry gives none. A code that is not here is UNKNOWN.
_MESSAGES = {
    "BLOB_UNKNOWN": "blob unknown to registry",
    "BLOB_UPLOAD_INVALID": "blob upload invalid",
    "BLOB_UPLOAD_UNKNOWN": "blob upload unknown to registry",
    "DENIED": "requested access to the resource is denied",
    "DIGEST_INVALID": "provided digest did not match uploaded content",
    "MANIFEST_BLOB_UNKNOWN": "blob unknown to registry",
    "MANIFEST_INVALID": "manifest invalid",
    "MANIFEST_UNKNOWN": "manifest unknown",
    "MANIFEST_UNVERIFIED": "manifest failed signature verification",
    "NAME_INVALID": "invalid repository name",
    "NAME_UNKNOWN": "repository name not known to registry",
    "SIZE_INVALID": "provided length did not match content length",
    "TAG_INVALID": "manifest tag did not match URI",
    "TOOMANYREQUESTS": "too many requests",
    "UNAUTHORIZED": "authentication required",
    "UNAVAILABLE": "service unavailable",
    "UNKNOWN": "unknown error",
    "UNSUPPORTED": "The operation is unsupported.",
}
# RFC 6750's errors of a Bearer challenge, as codes.
_BEARER_ERRORS = {"invalid_token": "UNAUTHORIZED", "insufficient_scope": "DENIED"}
_TEMPORARY = frozenset((408, 425, 429, 500, 502, 503, 504))


class RegistryFailure(SampanError):
    """The registry refused, or answered with what makes no sense; asking again changes nothing."""


class Temporary(Unavailable):
    """A cut or stalled connection, 5xx, 429: another try may succeed.

    `retry_after` is the registry's wish in seconds, if it had one.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class Unreachable(Temporary):
    """No connection could be made, or no TLS spoken on it."""


class LoginRefused(RegistryFailure):
    """The credentials are wrong."""


class Refused(NamedTuple):
    """One error of a registry's answer."""

    code: str
    message: str

    @property
    def text(self) -> str:
        return f"{self.code.lower().replace('_', ' ')}: {self.message}"


class Answered(NamedTuple):
    """An answer that is no success: what of it a failure is told from."""

    status: int
    reason: str
    challenges: Sequence[Challenge]
    body: bytes
    retry_after: float | None = None

    @property
    def shown_status(self) -> str:
        return f"{self.status} {self.reason}".strip()


def failure_of(answer: Answered, pulled: Reference | None = None) -> SampanError:
    """The failure that an answer means; `pulled` is what a pull was about, for its texts.

    NotFound: nothing of that name; Temporary: as said there; RegistryFailure: anything else.
    """
    errors = errors_of(answer)
    code = errors[0].code if errors else ""
    text = errors[0].text if errors and pulled is not None else _text(answer, errors)
    if (
        answer.status in _TEMPORARY
        or answer.status > 504
        or code in ("TOOMANYREQUESTS", "UNAVAILABLE")
    ):
        return Temporary(text, retry_after=answer.retry_after)
    if pulled is not None and code in _ABSENT:
        lead = _ABSENT[code].format(name=pulled.familiar_name, reference=pulled.familiar)
        return NotFound(f"{lead}: {errors[0].text}")
    return NotFound(text) if answer.status == 404 else RegistryFailure(text)


def token_failure(answer: Answered, shown: str) -> SampanError:
    """The failure of a request whose token was refused; `shown` is the request's `Get "url"`.

    LoginRefused: the credentials are wrong.
    """
    failure = failure_of(answer)
    text = f"{shown}: {failure.message}"
    errors = errors_of(answer)
    if answer.status == 401 and (not errors or errors[0].code == "UNAUTHORIZED"):
        return LoginRefused(text)
    if isinstance(failure, Temporary):
        return Temporary(text, retry_after=answer.retry_after)
    return RegistryFailure(text)


def errors_of(answer: Answered) -> list[Refused]:
    """The errors that an answer of 400 to 499 names, those of its challenge first."""
    if not 400 <= answer.status < 500:
        return []
    return [*_of_challenges(answer.challenges), *_of_body(answer.status, answer.body)]


def _text(answer: Answered, errors: Sequence[Refused]) -> str:
    if errors and (errors[0].code == "DENIED" or len(set(errors)) == 1):
        return errors[0].text
    if errors:
        return "errors:\n" + "".join(f"{error.text}\n" for error in errors)
    if not 400 <= answer.status < 500:
        return f"received unexpected HTTP status: {answer.shown_status}"
    if answer.status == HTTPStatus.UNAUTHORIZED:
        return Refused("UNAUTHORIZED", _MESSAGES["UNAUTHORIZED"]).text
    body = answer.body[:_SHOWN_BODY].decode(errors="replace")
    return (
        f"error parsing HTTP {answer.status} response body: {_why_unreadable(answer.body)}: "
        f"{msgspec.json.encode(body).decode()}"
    )


def _of_challenges(challenges: Sequence[Challenge]) -> list[Refused]:
    for challenge in challenges:
        code = _BEARER_ERRORS.get(challenge.parameters.get("error", ""))
        if challenge.scheme == "bearer" and code:
            message = challenge.parameters.get("error_description") or _MESSAGES[code]
            return [Refused(code, message)]
    return []


def _of_body(status: int, body: bytes) -> list[Refused]:
    document = _document(body)
    details = document.get("details")
    if isinstance(details, str) and details:  # older token servers
        code = {401: "UNAUTHORIZED", 429: "TOOMANYREQUESTS"}.get(status, "UNKNOWN")
        return [Refused(code, details[:_SHOWN_BODY])]
    errors = document.get("errors")
    if not isinstance(errors, list):
        return []
    return [_refused(item) for item in errors[:16] if isinstance(item, dict)]


def _refused(item: Mapping[str, Any]) -> Refused:
    code = str(item.get("code") or "UNKNOWN").upper()
    known = code if code in _MESSAGES else "UNKNOWN"
    return Refused(known, str(item.get("message") or _MESSAGES[known])[:_SHOWN_BODY])


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _why_unreadable(body: bytes) -> str:
    """Go's words for why the body names no error."""
    if not body.strip():
        return "unexpected end of JSON input"
    if _document(body):
        return "no error details found in HTTP response body"
    first = body.lstrip()[:1].decode(errors="replace")
    return f"invalid character '{first}' looking for beginning of value"
