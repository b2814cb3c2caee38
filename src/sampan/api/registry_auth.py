"""The header `X-Registry-Auth`: a client's credentials for the registry that a request is about.

It is JSON in the URL-safe base64 of RFC 4648, section 5. As with dockerd, what cannot be read counts
as no credentials: old clients send all kinds of things for "none".
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from sampan.api.call import Call
from sampan.images.distribution.credentials import Credentials

HEADER = "X-Registry-Auth"


def credentials_of(call: Call) -> Credentials | None:
    """The credentials that came with a request, None where there are none."""
    credentials = credentials_from(decoded(call.header(HEADER)))
    return credentials or None


def decoded(header: str) -> dict[str, Any]:
    """The header's JSON object; {} for anything else."""
    text = header.strip().rstrip("=").replace("+", "-").replace("/", "_")
    try:
        value = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def credentials_from(document: dict[str, Any]) -> Credentials:
    """Docker's AuthConfig as credentials; names in any case, as Go reads them."""
    fields = {key.lower(): value for key, value in document.items() if isinstance(value, str)}
    username, password = fields.get("username", ""), fields.get("password", "")
    if not username and (pair := _pair(fields.get("auth", ""))):
        username, password = pair
    return Credentials(
        username=username,
        password=password,
        identity_token=fields.get("identitytoken", ""),
        registry_token=fields.get("registrytoken", ""),
        server_address=fields.get("serveraddress", ""),
    )


def _pair(auth: str) -> tuple[str, str] | None:
    """The user and password of `auth`, base64 of `user:password`."""
    try:
        text = base64.b64decode(auth + "=" * (-len(auth) % 4)).decode()
    except (binascii.Error, ValueError):
        return None
    username, colon, password = text.partition(":")
    return (username, password) if colon else None
