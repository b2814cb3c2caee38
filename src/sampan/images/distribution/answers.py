"""An answer of a registry that is no success, read for its failure."""

from __future__ import annotations

import email.utils
import time

from aiohttp import ClientResponse

from sampan.errors import SampanError
from sampan.images.distribution.challenges import parse_challenges
from sampan.images.distribution.failures import ERROR_BODY_LIMIT, Answered
from sampan.images.distribution.transport import read_limited


async def answered(response: ClientResponse, shown: str) -> Answered:
    """Read the body (no more than is of use) and close the answer; `shown` is for logs."""
    try:
        body = await read_limited(response, ERROR_BODY_LIMIT, shown)
    except SampanError:
        body = b""  # cut or too long: the status is said all the same
    return Answered(
        status=response.status,
        reason=response.reason or "",
        challenges=parse_challenges(response.headers.getall("WWW-Authenticate", [])),
        body=body,
        retry_after=retry_after_s(response.headers.get("Retry-After", "")),
    )


def retry_after_s(text: str) -> float | None:
    """The seconds that a Retry-After header asks for (RFC 9110, section 10.2.3)."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    if not text:
        return None
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())
