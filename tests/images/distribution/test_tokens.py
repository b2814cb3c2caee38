"""Token servers: what they are asked, what is kept, and what they may not do to us."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from images.distribution.conftest import Open
from images.distribution.test_repository import put_blob, put_manifest
from sampan.errors import NotFound, SampanError, Unauthorized
from sampan.images.distribution import tokens as kept_tokens
from sampan.images.distribution.client import Registries
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import LoginRefused, RegistryFailure, Temporary
from support.faulty_proxy import FaultyProxy
from support.registries import PASSWORD, USER, Registry
from support.token_server import TokenRequest, TokenServer

ME = Credentials(USER, PASSWORD)


@pytest.fixture
def tokens(token_registry: Registry) -> TokenServer:
    assert token_registry.tokens is not None
    return token_registry.tokens


@pytest.fixture
def address(token_registry: Registry, tokens: TokenServer) -> str:
    """A registry with two images."""
    put_manifest(token_registry, "team/a", "v1")
    put_manifest(token_registry, "team/b", "v1")
    tokens.requests.clear()
    return token_registry.address


@pytest.fixture
def strange(tokens: TokenServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Answers (status, document) that the token server gives instead, the last one for ever."""
    answers: list[Any] = []

    def answer(request: TokenRequest) -> Any:
        tokens.requests.append(request)
        return answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr(tokens, "answer", answer)
    yield answers


def asked(tokens: TokenServer) -> list[tuple[str, list[str], str | None]]:
    return [(item.method, item.scopes, item.account) for item in tokens.requests]


# -- what is asked ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [("token",), ("access_token",), ("token", "access_token")])
async def test_a_pull(
    address: str, tokens: TokenServer, open_repository: Open, fields: tuple[str, ...]
) -> None:
    tokens.fields = fields
    repository = open_repository(f"{address}/team/a", ME)
    await repository.resolve("v1")
    await repository.manifest("v1")
    await repository.tags()
    assert asked(tokens) == [("GET", ["repository:team/a:pull"], USER)]
    (request,) = tokens.requests
    assert request.parameters["service"] == ["registry.test"]
    assert request.parameters["account"] == [USER]


async def test_another_repository_or_user_needs_another_token(
    address: str, tokens: TokenServer, open_repository: Open
) -> None:
    tokens.anonymous = ("pull",)
    for name in ("team/a", "team/b", "team/a"):
        await open_repository(f"{address}/{name}", ME).manifest("v1")
    await open_repository(f"{address}/team/a").manifest("v1")
    await open_repository(f"{address}/team/a", ME, push=True).manifest("v1")
    assert asked(tokens) == [
        ("GET", ["repository:team/a:pull"], USER),
        ("GET", ["repository:team/b:pull"], USER),
        ("GET", ["repository:team/a:pull"], ""),
        ("GET", ["repository:team/a:pull,push"], USER),
    ]


async def test_many_at_once_ask_once(
    address: str, tokens: TokenServer, open_repository: Open
) -> None:
    repository = open_repository(f"{address}/team/a", ME)
    await asyncio.gather(*(repository.manifest("v1") for _ in range(8)))
    assert len(tokens.requests) == 1


async def test_one_of_several_who_wait_leaves(
    address: str, tokens: TokenServer, open_repository: Open
) -> None:
    repository = open_repository(f"{address}/team/a", ME)
    first = asyncio.create_task(repository.manifest("v1"))
    second = asyncio.create_task(repository.manifest("v1"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).data
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_an_identity_token(address: str, tokens: TokenServer, open_repository: Open) -> None:
    me = Credentials(identity_token=tokens.identity_token)
    await open_repository(f"{address}/team/a", me).manifest("v1")
    (request,) = tokens.requests
    assert request.method == "POST" and request.account == USER
    assert request.parameters["grant_type"] == ["refresh_token"]
    assert request.parameters["client_id"] == ["docker"]
    assert request.scopes == ["repository:team/a:pull"]


async def test_a_registry_token_is_sent_as_it_is(
    address: str, tokens: TokenServer, open_repository: Open
) -> None:
    me = Credentials(registry_token=tokens.issue(["repository:team/a:pull"]))
    await open_repository(f"{address}/team/a", me).manifest("v1")
    assert not tokens.requests


async def test_mounting_asks_for_both_repositories(
    token_registry: Registry, address: str, tokens: TokenServer, open_repository: Open
) -> None:
    blob = put_blob(token_registry, "team/a", b"blob")
    tokens.requests.clear()
    repository = open_repository(f"{address}/team/c", ME, push=True)
    assert await repository.mount(blob.digest, "team/a")
    ((_, scopes, _),) = asked(tokens)
    assert set(scopes) == {"repository:team/c:pull,push", "repository:team/a:pull"}
    assert token_registry.has_blob("team/c", blob.digest)


# -- what is kept ----------------------------------------------------------------------------------


async def test_a_token_that_expired_early_is_renewed(
    address: str, tokens: TokenServer, open_repository: Open
) -> None:
    tokens.lifetime_s = -1000
    repository = open_repository(f"{address}/team/a", ME)
    with pytest.raises(RegistryFailure, match=r"^unauthorized: "):
        await repository.manifest("v1")
    assert len(tokens.requests) == 2, "it was tried once more"
    tokens.lifetime_s = 300
    assert (await repository.manifest("v1")).data


async def test_a_token_is_not_used_to_its_last_second(
    address: str, tokens: TokenServer, open_repository: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens.lifetime_s = 60
    monkeypatch.setattr(kept_tokens, "MARGIN_S", 60.0)
    repository = open_repository(f"{address}/team/a", ME)
    await repository.manifest("v1")
    await repository.manifest("v1")
    assert len(tokens.requests) == 2


async def test_the_cache_has_an_end(
    address: str, tokens: TokenServer, open_repository: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_tokens, "CACHE_LIMIT", 1)
    for name in ("team/a", "team/b", "team/a", "team/b"):
        await open_repository(f"{address}/{name}", ME).manifest("v1")
    assert [scopes for _, scopes, _ in asked(tokens)].count(["repository:team/a:pull"]) == 1


# -- refusals --------------------------------------------------------------------------------------


async def test_without_the_right(address: str, open_repository: Open) -> None:
    with pytest.raises(NotFound) as caught:
        await open_repository(f"{address}/team/a").manifest("v1")
    assert caught.value.message == (
        f"pull access denied for {address}/team/a, repository does not exist or may require "
        "'docker login': denied: requested access to the resource is denied"
    )
    with pytest.raises(RegistryFailure) as refused:
        await open_repository(f"{address}/team/a", push=True).put_manifest("v1", "x/y", b"{}")
    assert refused.value.message == "denied: requested access to the resource is denied"


async def test_a_wrong_password(address: str, open_repository: Open) -> None:
    with pytest.raises(LoginRefused) as caught:
        await open_repository(f"{address}/team/a", Credentials(USER, "wrong")).resolve("v1")
    assert caught.value.message == (
        f'Head "http://{address}/v2/team/a/manifests/v1": '
        "unauthorized: incorrect username or password"
    )


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((200, {}), "authorization server did not include a token in the response"),
        ((200, {"token": 7}), "did not include a token"),
        ((200, {"token": "a\r\nX-Evil: 1"}), "did not include a token"),
        ((200, {"token": "\u00e9"}), "did not include a token"),
        ((200, ["token"]), "unable to decode token response"),
        ((200, {"token": "x" * (2 << 20)}), "longer than"),
        ((403, {"details": "no such account"}), "unknown: no such account"),
        ((404, {}), "error parsing HTTP 404 response body"),
    ],
)
async def test_a_strange_answer(
    address: str, strange: list[Any], open_repository: Open, answer: Any, text: str
) -> None:
    strange.append(answer)
    with pytest.raises(SampanError, match=text) as caught:
        await open_repository(f"{address}/team/a", ME).manifest("v1")
    assert not isinstance(caught.value, Temporary)


async def test_a_token_server_in_trouble(
    address: str, strange: list[Any], tokens: TokenServer, open_repository: Open
) -> None:
    good = {"token": tokens.issue(["repository:team/a:pull"]), "expires_in": 1e300}
    strange += [(503, {}), (429, {}), (200, good)]
    assert (await open_repository(f"{address}/team/a", ME).manifest("v1")).data
    assert len(tokens.requests) == 3


# -- the challenge ---------------------------------------------------------------------------------


@pytest.mark.parametrize("realm", ["ftp://a/b", "http://[::1", "/relative", "file:///etc/passwd"])
async def test_a_realm_that_is_none(registry: Registry, open_repository: Open, realm: str) -> None:
    from support.faulty_proxy import Answer

    with closing(FaultyProxy(registry)) as proxy:
        challenge = {"WWW-Authenticate": f'Bearer realm="{realm}"'}
        proxy.fault(Answer(401, challenge), times=None)
        with pytest.raises(RegistryFailure, match="invalid token auth challenge realm"):
            await open_repository(f"{proxy.address}/a", ME).manifest("v1")


async def test_several_challenges(
    token_registry: Registry, tokens: TokenServer, address: str, open_repository: Open
) -> None:
    """Bearer goes before Basic, in whatever order they come, in one header or two."""
    from support.faulty_proxy import Answer

    bearer = f'Bearer realm="{tokens.realm}",service="registry.test"'
    with closing(FaultyProxy(token_registry)) as proxy:
        proxy.fault(Answer(401, {"WWW-Authenticate": f'Basic realm="x", {bearer}'}), path="^/v2/$")
        await open_repository(f"{proxy.address}/team/a", ME).manifest("v1")
        sent = [r.authorization for r in proxy.requests]
        assert sent[0] == "" and all(value.startswith("Bearer ") for value in sent[1:])


async def test_a_challenge_that_comes_later(
    token_registry: Registry, address: str, tokens: TokenServer, open_repository: Open
) -> None:
    """A registry that lets everybody ask `/v2/`, and some who pull."""
    from support.faulty_proxy import Answer

    with closing(FaultyProxy(token_registry)) as proxy:
        proxy.fault(Answer(200), path="^/v2/$", times=None)
        assert (await open_repository(f"{proxy.address}/team/a", ME).manifest("v1")).data
        proxy.reset()
        assert (await open_repository(f"{proxy.address}/team/b", ME).manifest("v1")).data
        assert [r.status for r in proxy.requests] == [200], "it is remembered"


# -- login -----------------------------------------------------------------------------------------


async def test_login(address: str, tokens: TokenServer, registries: Registries) -> None:
    result = await registries.login(Credentials(USER, PASSWORD, server_address=address))
    assert (result.status, result.identity_token) == ("Login Succeeded", tokens.identity_token)
    kept = Credentials(identity_token=result.identity_token, server_address=address)
    again = await registries.login(kept)
    assert again.identity_token == tokens.identity_token
    with pytest.raises(Unauthorized) as caught:
        await registries.login(Credentials(USER, "wrong", server_address=address))
    assert caught.value.message == (
        f'Get "http://{address}/v2/": unauthorized: incorrect username or password'
    )


async def test_login_asks_each_time(
    address: str, tokens: TokenServer, registries: Registries
) -> None:
    for _ in range(2):
        await registries.login(Credentials(USER, PASSWORD, server_address=address))
    assert len(tokens.requests) == 2


async def test_login_with_a_password(
    password_registry: Registry, registries: Registries, registry: Registry
) -> None:
    address = password_registry.address
    me = Credentials(USER, PASSWORD, server_address=f"http://{address}/v1/")
    assert (await registries.login(me)).status == "Login Succeeded"
    with pytest.raises(RegistryFailure) as caught:
        await registries.login(Credentials(USER, "wrong", server_address=address))
    assert caught.value.message == (
        f"login attempt to http://{address}/v2/ failed with status: 401 Unauthorized"
    )
    everybody = Credentials(server_address=registry.address)
    assert (await registries.login(everybody)).status == "Login Succeeded"
