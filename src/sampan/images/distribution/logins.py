"""Logging in: credentials are tried at a registry's `/v2/`, as dockerd does.

Where the registry has a token server, that is asked for an identity token too, to be kept instead of
the password; most give none.
"""

from __future__ import annotations

from yarl import URL

from sampan.errors import InvalidArgument, Unauthorized
from sampan.images.distribution.answers import answered
from sampan.images.distribution.challenges import Challenge, of_scheme
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import LoginRefused, RegistryFailure
from sampan.images.distribution.host import HUB, Host
from sampan.images.distribution.interface import LoginResult
from sampan.images.distribution.tokens import Asked, Tokens
from sampan.images.distribution.transport import Request
from sampan.oci.reference import DEFAULT_DOMAIN, LEGACY_DOMAIN

SUCCEEDED = "Login Succeeded"


def domain_of(server_address: str) -> str:
    """The registry that a client's server address means: `https://index.docker.io/v1/` is docker.io.

    Raises:
        InvalidArgument: it names no host.
    """
    if not server_address:
        return DEFAULT_DOMAIN
    text = server_address if "://" in server_address else f"https://{server_address}"
    try:
        url = URL(text)
        domain = url.raw_authority.rpartition("@")[2]
        _ = url.port
    except ValueError as error:
        raise InvalidArgument(f"unable to parse server address: {error}") from None
    if not domain or url.scheme not in ("http", "https"):
        raise InvalidArgument(f"unable to parse server address: {server_address!r} names no host")
    return DEFAULT_DOMAIN if domain in (LEGACY_DOMAIN, HUB, DEFAULT_DOMAIN) else domain


async def login(host: Host, tokens: Tokens, credentials: Credentials) -> LoginResult:
    """See `client.Registries.login`."""
    host.forget()
    site = await host.site()
    base = str(site.base).rstrip("/")
    request = Request("GET", URL(f"{base}/v2/"), site.security)
    identity_token = credentials.identity_token
    headers = {}
    bearer = of_scheme(site.challenges, "bearer")
    if bearer is not None:
        value, identity_token = await _token(tokens, request, bearer, credentials)
        headers["Authorization"] = f"Bearer {value}"
    elif of_scheme(site.challenges, "basic") is not None:
        if not credentials.username:
            raise RegistryFailure(f"{request.shown}: no basic auth credentials")
        headers["Authorization"] = credentials.basic
    request = Request("GET", request.url, site.security, headers)
    answer = await answered(await host.transport.open(request), request.shown)
    if answer.status != 200:
        raise RegistryFailure(
            f"login attempt to {request.url} failed with status: {answer.shown_status}"
        )
    return LoginResult(SUCCEEDED, identity_token)


async def _token(
    tokens: Tokens, request: Request, bearer: Challenge, credentials: Credentials
) -> tuple[str, str]:
    """A token that was not kept from before, and the identity token that came with it."""
    asked = Asked(request, bearer, (), credentials, offline=True)
    tokens.forget(asked)
    try:
        token = await tokens.get(asked)
    except LoginRefused as failure:
        raise Unauthorized(failure.message) from failure
    return token.value, token.refresh or credentials.identity_token
