"""The pure parts: settings, proxies, credentials, what failures say, Retry-After."""

from __future__ import annotations

import base64
import email.utils
import ipaddress
import time

import pytest

from sampan.errors import InvalidArgument, NotFound, SampanError
from sampan.images.distribution.answers import retry_after_s
from sampan.images.distribution.challenges import parse_challenges
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import (
    Answered,
    LoginRefused,
    RegistryFailure,
    Temporary,
    failure_of,
    token_failure,
)
from sampan.images.distribution.logins import domain_of
from sampan.images.distribution.proxies import proxy_for, shown_proxies
from sampan.images.distribution.searching import check_limit, split_term
from sampan.images.distribution.settings import RegistrySettings, check_insecure, check_mirror
from sampan.oci.reference import parse_reference

# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "insecure", "expected"),
    [
        ("127.0.0.1:5000", (), True),
        ("127.9.9.9", (), True),
        ("[::1]:5000", (), True),
        ("localhost", (), True),
        ("localhost:5000", (), True),
        ("10.0.0.1:5000", (), False),
        ("10.0.0.1:5000", ("10.0.0.0/8",), True),
        ("11.0.0.1:5000", ("10.0.0.0/8",), False),
        ("registry.example:5000", ("registry.example:5000",), True),
        ("registry.example:5001", ("registry.example:5000",), False),
        ("REGISTRY.example", ("registry.example",), True),
        ("registry.example:443", ("registry.example",), False),
        ("other.example", ("registry.example",), False),
    ],
)
def test_insecure(domain: str, insecure: tuple[str, ...], expected: bool) -> None:
    assert RegistrySettings(insecure=insecure).names_insecure(domain) is expected


def test_all_addresses_of_an_insecure_name_are_in_its_network() -> None:
    settings = RegistrySettings(insecure=("10.0.0.0/8",))
    inside, outside = ipaddress.ip_address("10.1.1.1"), ipaddress.ip_address("8.8.8.8")
    assert settings.holds_insecure([inside])
    assert not settings.holds_insecure([inside, outside])
    assert not settings.holds_insecure([])


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://mirror.example", "https://mirror.example"),
        ("https://mirror.example/", "https://mirror.example"),
        ("http://mirror.example:5000", "http://mirror.example:5000"),
        ("https://mirror.example/hub/", "https://mirror.example/hub"),
    ],
)
def test_a_mirror(given: str, kept: str) -> None:
    assert check_mirror(given) == kept


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mirror.example", 'invalid mirror: unsupported scheme "" in "mirror.example"'),
        ("ftp://m", 'invalid mirror: unsupported scheme "ftp" in "ftp://m"'),
        ("https://m/?q", "invalid mirror: path, query, or fragment at end of the URI"),
        ("https://m/#f", "invalid mirror: path, query, or fragment at end of the URI"),
        ("https://u:secret@m", "invalid mirror: username/password not allowed in URI"),
        ("https://m:port", 'invalid mirror: "https://m:port" is not a valid URI'),
        ("https://", "names no host"),
    ],
)
def test_a_bad_mirror(given: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_mirror(given)
    assert message in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("registry.example:5000", "registry.example:5000"),
        ("http://registry.example", "registry.example"),
        ("HTTPS://registry.example", "registry.example"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_an_insecure_registry(given: str, kept: str) -> None:
    assert check_insecure(given) == kept


@pytest.mark.parametrize("given", ["", "-a", "a-", "10.0.0.0/99", "host/path", "a:b", "a:99999"])
def test_a_bad_insecure_registry(given: str) -> None:
    with pytest.raises(InvalidArgument):
        check_insecure(given)


# -- proxies ---------------------------------------------------------------------------------------

PROXIES = {"HTTPS_PROXY": "http://proxy:3128", "http_proxy": "plain:8080"}


@pytest.mark.parametrize(
    ("scheme", "host", "no_proxy", "expected"),
    [
        ("https", "registry.example", "", "http://proxy:3128"),
        ("http", "registry.example", "", "http://plain:8080"),
        ("https", "localhost", "", None),
        ("https", "127.0.0.1", "", None),
        ("https", "::1", "", None),
        ("https", "registry.example", "*", None),
        ("https", "registry.example", "registry.example", None),
        ("https", "REGISTRY.example", "registry.EXAMPLE", None),
        ("https", "sub.registry.example", "registry.example", None),
        ("https", "notregistry.example", "registry.example", "http://proxy:3128"),
        ("https", "registry.example", ".registry.example", "http://proxy:3128"),
        ("https", "sub.registry.example", ".registry.example", None),
        ("https", "sub.registry.example", "*.registry.example", None),
        ("https", "registry.example", "a, registry.example:443 ,b", None),
        ("https", "registry.example", "registry.example:5000", "http://proxy:3128"),
        ("https", "10.2.3.4", "10.0.0.0/8", None),
        ("https", "11.2.3.4", "10.0.0.0/8", "http://proxy:3128"),
        ("https", "registry.example", "10.0.0.0/8,,x/y", "http://proxy:3128"),
        ("https", "10.2.3.4", "10.2.3.4", None),
        ("https", "fd00::1", "[fd00::1]:443", None),
    ],
)
def test_a_proxy(scheme: str, host: str, no_proxy: str, expected: str | None) -> None:
    assert proxy_for(scheme, host, 443, {**PROXIES, "NO_PROXY": no_proxy}) == expected


def test_a_proxy_that_is_none() -> None:
    with pytest.raises(InvalidArgument):
        proxy_for("https", "registry.example", 443, {"HTTPS_PROXY": "socks5://proxy"})
    assert proxy_for("https", "registry.example", 443, {}) is None


def test_a_proxy_is_shown_without_its_password() -> None:
    shown = shown_proxies({"HTTPS_PROXY": "http://me:secret@proxy:1", "no_proxy": "a,b"})
    assert shown == {
        "HttpProxy": "",
        "HttpsProxy": "http://xxxxx:xxxxx@proxy:1",
        "NoProxy": "a,b",
    }


# -- credentials -----------------------------------------------------------------------------------


def test_no_secret_is_shown() -> None:
    credentials = Credentials("me", "secret-1", "secret-2", "secret-3", "registry.example")
    assert "secret" not in repr(credentials) and "secret" not in str(credentials)
    assert base64.b64decode(credentials.basic.removeprefix("Basic ")) == b"me:secret-1"


@pytest.mark.parametrize(
    ("credentials", "something"),
    [
        (Credentials(), False),
        (Credentials(server_address="a"), False),
        (Credentials(password="without a name"), False),
        (Credentials("me"), True),
        (Credentials(identity_token="t"), True),
        (Credentials(registry_token="t"), True),
    ],
)
def test_credentials_that_are_none(credentials: Credentials, something: bool) -> None:
    assert bool(credentials) is something


@pytest.mark.parametrize(
    ("server_address", "domain"),
    [
        ("", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("localhost:5000", "localhost:5000"),
        ("https://quay.io/v2/", "quay.io"),
        ("http://127.0.0.1:5000", "127.0.0.1:5000"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_the_registry_of_a_login(server_address: str, domain: str) -> None:
    assert domain_of(server_address) == domain


@pytest.mark.parametrize("server_address", ["https://", "ftp://a", "http://a:port", "/path"])
def test_the_registry_of_no_login(server_address: str) -> None:
    with pytest.raises(InvalidArgument, match="unable to parse server address"):
        domain_of(server_address)


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("busybox", ("docker.io", "busybox")),
        ("library/busybox", ("docker.io", "busybox")),
        ("user/app", ("docker.io", "user/app")),
        ("docker.io/library/busybox", ("docker.io", "busybox")),
        ("localhost/x", ("localhost", "x")),
        ("quay.io/a/b", ("quay.io", "a/b")),
        ("host:5000/a", ("host:5000", "a")),
        ("", ("docker.io", "")),
    ],
)
def test_a_search_term(term: str, expected: tuple[str, str]) -> None:
    assert split_term(term) == expected


def test_bad_searches() -> None:
    with pytest.raises(InvalidArgument, match="nvalid repository name"):
        split_term("https://quay.io/a")
    for limit in (0, -1, 101):
        with pytest.raises(InvalidArgument, match=r"is outside the range of \[1, 100\]"):
            check_limit(limit)


# -- failures --------------------------------------------------------------------------------------

REFERENCE = parse_reference("localhost:5000/a/b:v1")


def answered(status: int, body: str = "", challenge: str = "", **more: float) -> Answered:
    challenges = parse_challenges([challenge] if challenge else [])
    reason = {401: "Unauthorized", 500: "Internal Server Error", 503: "Service Unavailable"}
    return Answered(status, reason.get(status, "Reason"), challenges, body.encode(), **more)


def errors(code: str, message: str = "", detail: str = "null") -> str:
    return f'{{"errors":[{{"code":"{code}","message":"{message}","detail":{detail}}}]}}'


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (
            answered(404, errors("MANIFEST_UNKNOWN", "manifest unknown")),
            NotFound,
            "manifest for localhost:5000/a/b:v1 not found: manifest unknown: manifest unknown",
        ),
        (
            answered(404, errors("NAME_UNKNOWN", "repository name not known to registry")),
            NotFound,
            (
                "repository localhost:5000/a/b not found: "
                "name unknown: repository name not known to registry"
            ),
        ),
        (
            answered(403, errors("DENIED", "requested access to the resource is denied")),
            NotFound,
            (
                "pull access denied for localhost:5000/a/b, repository does not exist or may require "
                "'docker login': denied: requested access to the resource is denied"
            ),
        ),
        (
            answered(
                401,
                errors("UNAUTHORIZED", "authentication required"),
                'Bearer realm="r",error="insufficient_scope"',
            ),
            NotFound,
            (
                "pull access denied for localhost:5000/a/b, repository does not exist or may require "
                "'docker login': denied: requested access to the resource is denied"
            ),
        ),
        (
            answered(401, errors("UNAUTHORIZED", "authentication required")),
            RegistryFailure,
            "unauthorized: authentication required",
        ),
        (answered(401, "<html>"), RegistryFailure, "unauthorized: authentication required"),
        (
            answered(429, errors("TOOMANYREQUESTS", "You have reached your pull rate limit.")),
            Temporary,
            "toomanyrequests: You have reached your pull rate limit.",
        ),
        (
            answered(500),
            Temporary,
            "received unexpected HTTP status: 500 Internal Server Error",
        ),
        (
            answered(503, "<html>busy</html>"),
            Temporary,
            "received unexpected HTTP status: 503 Service Unavailable",
        ),
        (
            answered(400, errors("MANIFEST_INVALID", "manifest invalid")),
            RegistryFailure,
            "manifest invalid: manifest invalid",
        ),
        (
            answered(400, errors("SOMETHING_NEW", "of their own")),
            RegistryFailure,
            "unknown: of their own",
        ),
        (
            answered(404, "<html>nothing</html>"),
            NotFound,
            (
                "error parsing HTTP 404 response body: invalid character '<' looking for beginning of "
                'value: "<html>nothing</html>"'
            ),
        ),
        (
            answered(404),
            NotFound,
            'error parsing HTTP 404 response body: unexpected end of JSON input: ""',
        ),
        (
            answered(400, '{"a":1}'),
            RegistryFailure,
            (
                "error parsing HTTP 400 response body: no error details found in HTTP response body: "
                '"{\\"a\\":1}"'
            ),
        ),
        (
            answered(400, '{"errors":[{"code":"DENIED"},{"code":"UNAUTHORIZED"}]}'),
            NotFound,
            (
                "pull access denied for localhost:5000/a/b, repository does not exist or may require "
                "'docker login': denied: requested access to the resource is denied"
            ),
        ),
        (
            answered(400, '{"errors":[{"code":"UNSUPPORTED"},{"code":"NAME_INVALID"}]}'),
            RegistryFailure,
            "unsupported: The operation is unsupported.",
        ),
        (answered(400, '{"details":"old words"}'), RegistryFailure, "unknown: old words"),
    ],
)
def test_a_failure_of_a_pull(answer: Answered, kind: type[SampanError], text: str) -> None:
    failure = failure_of(answer, REFERENCE)
    assert (type(failure), failure.message) == (kind, text)


def test_a_failure_of_a_push_has_no_words_in_front() -> None:
    failure = failure_of(answered(403, errors("DENIED")))
    assert type(failure) is RegistryFailure
    assert failure.message == "denied: requested access to the resource is denied"
    two = '{"errors":[{"code":"UNSUPPORTED"},{"code":"NAME_INVALID"}]}'
    assert failure_of(answered(400, two)).message == (
        "errors:\nunsupported: The operation is unsupported.\n"
        "name invalid: invalid repository name\n"
    )


@pytest.mark.parametrize(
    "body",
    [
        "[]", "null", '{"errors":{}}', '{"errors":[1,"a",null]}', '{"errors":[{"code":{}}]}',
        '{"errors":[{"code":"X","message":{"deep":1}}]}', "[" * 5000, '"\udcff"', "{" + '"a":[' * 2000,
    ],
)  # fmt: skip
def test_a_strange_body(body: str) -> None:
    answer = Answered(400, "Bad Request", (), body.encode("utf-8", "surrogatepass"))
    assert isinstance(failure_of(answer, REFERENCE), RegistryFailure)


def test_a_long_message_is_cut() -> None:
    failure = failure_of(answered(400, errors("DENIED", "x" * 100_000)))
    assert len(failure.message) < 3000


def test_a_failure_of_a_token() -> None:
    refused = token_failure(
        answered(401, '{"details":"incorrect username or password"}'), 'Get "u"'
    )
    assert type(refused) is LoginRefused
    assert refused.message == 'Get "u": unauthorized: incorrect username or password'
    again = token_failure(answered(429, retry_after=7.0), 'Get "u"')
    assert isinstance(again, Temporary) and again.retry_after == 7.0
    assert type(token_failure(answered(400), 'Get "u"')) is RegistryFailure


def test_retry_after() -> None:
    assert retry_after_s("") is None
    assert retry_after_s("soon") is None
    assert retry_after_s(" 12 ") == 12.0
    assert retry_after_s("-1") is None
    at = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 25 < (retry_after_s(at) or 0) <= 30
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
