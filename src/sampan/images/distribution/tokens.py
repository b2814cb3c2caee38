"""Bearer tokens: fetched for a scope from where a registry's challenge points, and kept while valid.

Source: distribution's docs/spec/auth/{token,oauth,scope}.md, which Docker Hub and Quay follow; a token
may come as `token` or `access_token`.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
from yarl import URL

from sampan.images.distribution.answers import answered
from sampan.images.distribution.challenges import Challenge
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import RegistryFailure, token_failure
from sampan.images.distribution.single_flight import SingleFlight
from sampan.images.distribution.transport import (
    Request,
    Security,
    Transport,
    read_limited,
    refuse_downgrade,
)

CLIENT_ID = "docker"
ANSWER_LIMIT = 1 << 20
CACHE_LIMIT = 1000
LIFETIME_MIN_S, LIFETIME_MAX_S = 60.0, 86_400.0
# A token is not used any more this long before it expires; the request has to get there.
MARGIN_S = 5.0


class Asked(NamedTuple):
    """What a token is wanted for; `request` is the one that it is to be sent with."""

    request: Request
    challenge: Challenge
    scopes: tuple[str, ...]
    credentials: Credentials | None
    offline: bool = False


class Token(NamedTuple):
    """A bearer token, good until `expires` of the monotonic clock; `refresh` is an identity token."""

    value: str
    expires: float
    refresh: str = ""


class Tokens:
    """The tokens of one engine, by realm, service, scopes and who asks."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._kept: dict[tuple[str, ...], Token] = {}
        self._flights: SingleFlight[tuple[str, ...], Token] = SingleFlight()

    async def get(self, asked: Asked) -> Token:
        """A valid token.

        Raises:
            SampanError: the token server refused, cannot be reached or is not to be trusted.
        """
        key = _key(asked)
        kept = self._kept.get(key)
        if kept is not None and kept.expires > time.monotonic():
            return kept
        token = await self._flights.run(key, lambda: self._fetch(asked))
        self._keep(key, token)
        return token

    def forget(self, asked: Asked) -> None:
        """The registry does not take this token any more."""
        self._kept.pop(_key(asked), None)

    def forget_all(self) -> None:
        self._kept.clear()

    def _keep(self, key: tuple[str, ...], token: Token) -> None:
        now = time.monotonic()
        if len(self._kept) >= CACHE_LIMIT:
            self._kept = {key: kept for key, kept in self._kept.items() if kept.expires > now}
        if len(self._kept) < CACHE_LIMIT:
            self._kept[key] = token

    async def _fetch(self, asked: Asked) -> Token:
        request = _token_request(asked)
        started = time.monotonic()
        response = await self._transport.open(request)
        shown = asked.request.shown
        if not 200 <= response.status < 300:
            raise token_failure(await answered(response, request.shown), shown)
        body = await read_limited(response, ANSWER_LIMIT, request.shown)
        return _token(body, started, shown)


def _key(asked: Asked) -> tuple[str, ...]:
    parameters = asked.challenge.parameters
    who = asked.credentials or Credentials()
    secret = "\0".join((who.username, who.password, who.identity_token))
    return (
        parameters.get("realm", ""),
        parameters.get("service", ""),
        hashlib.sha256(secret.encode()).hexdigest(),
        "offline" if asked.offline else "",
        *sorted(asked.scopes),
    )


def _token_request(asked: Asked) -> Request:
    """GET with the password, or without any; POST where there is an identity token (OAuth 2)."""
    realm = _realm(asked)
    service = asked.challenge.parameters.get("service", "")
    who = asked.credentials
    if who is not None and who.identity_token:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": who.identity_token,
            "service": service,
            "client_id": CLIENT_ID,
            "scope": " ".join(asked.scopes),
        }
        body = urlencode({name: value for name, value in form.items() if value}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return Request("POST", realm, _security(asked), headers, lambda: body, follow=False)
    query = [("service", service)] if service else []
    query += [("scope", scope) for scope in asked.scopes]
    headers = {}
    if who is not None and who.username:
        query.insert(0, ("account", who.username))
        headers["Authorization"] = who.basic
    if asked.offline:
        query += [("offline_token", "true"), ("client_id", CLIENT_ID)]
    url = URL(f"{realm.with_query(None)}?{urlencode([*realm.query.items(), *query])}", encoded=True)
    return Request("GET", url, _security(asked), headers)


def _realm(asked: Asked) -> URL:
    text = asked.challenge.parameters["realm"]
    try:
        realm = URL(text).with_user(None).with_fragment(None)
        valid = realm.scheme in ("http", "https") and bool(realm.host) and bool(realm.port)
    except ValueError:
        valid = False
    if not valid:
        raise RegistryFailure(
            f"{asked.request.shown}: invalid token auth challenge realm: {text[:200]!r}"
        )
    refuse_downgrade(asked.request, realm)
    return realm


def _security(asked: Asked) -> Security:
    return asked.request.security


def _token(body: bytes, started: float, shown: str) -> Token:
    document = _document(body)
    if document is None:
        raise RegistryFailure(f"{shown}: unable to decode token response: it is no JSON object")
    value = document.get("token") or document.get("access_token")
    if not isinstance(value, str) or not _is_header_text(value):
        raise RegistryFailure(
            f"{shown}: authorization server did not include a token in the response"
        )
    lifetime = document.get("expires_in")
    seconds = lifetime if isinstance(lifetime, int | float) else 0
    seconds = float(min(max(seconds, LIFETIME_MIN_S), LIFETIME_MAX_S))
    refresh = document.get("refresh_token")
    return Token(value, started + seconds - MARGIN_S, refresh if isinstance(refresh, str) else "")


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_header_text(value: str) -> bool:
    return value.isascii() and value.isprintable() and " " not in value
