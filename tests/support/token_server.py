"""The server of a registry's tokens, as Docker Hub's and Quay's: scopes in, a signed token out.

It signs with the CA's key of its `Certificates`, which the registry is told to trust.
Source: distribution's docs/spec/auth (token.md, jwt.md, oauth.md).
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from support.certificates import Certificates

USER, PASSWORD = "sampan", "boat"
ISSUER, SERVICE = "tests", "registry.test"


@dataclass
class TokenRequest:
    """One request for a token; `account` is empty for an anonymous one, None for a refused one."""

    method: str
    scopes: list[str]
    account: str | None
    parameters: dict[str, list[str]] = field(default_factory=dict)


class TokenServer:
    """`realm` is its URL. The user USER may do everything, nobody else more than `anonymous`.

    Set `fields` to choose between `token` and `access_token` (Quay has the one, Azure the other),
    `lifetime_s` for what `expires_in` says, `anonymous` for the actions without credentials.
    """

    def __init__(self, certificates: Certificates) -> None:
        self.fields: tuple[str, ...] = ("token", "access_token")
        self.anonymous: tuple[str, ...] = ()
        self.lifetime_s = 300
        self.requests: list[TokenRequest] = []
        self.identity_token = secrets.token_hex(16)
        self.trusted = certificates.ca
        self._signer = _Signer(certificates)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    @property
    def realm(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/token"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def issue(self, scopes: list[str], account: str | None = USER) -> str:
        """A token for these scopes (`repository:a/b:pull,push`), cut to what the account may do."""
        access: list[dict[str, object]] = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            allowed = [a for a in actions.split(",") if account or a in self.anonymous]
            access.append({"type": kind, "name": name, "actions": allowed})
        return self._signer.token(access, account or "", self.lifetime_s)

    def answer(self, request: TokenRequest) -> tuple[int, dict[str, object]]:
        self.requests.append(request)
        if request.account is None:
            error = {"code": "UNAUTHORIZED", "message": "incorrect username or password"}
            return 401, {"details": "incorrect username or password", "errors": [error]}
        token = self.issue(request.scopes, request.account)
        body: dict[str, object] = dict.fromkeys(self.fields, token)
        body["expires_in"] = self.lifetime_s
        given = request.parameters
        if given.get("offline_token") == ["true"] or given.get("access_type") == ["offline"]:
            body["refresh_token"] = self.identity_token
        return 200, body

    def account_of(self, authorization: str, form: dict[str, list[str]]) -> str | None:
        """Who asks, by HTTP's basic authentication or the form's fields; None: a wrong password."""
        if form.get("grant_type") == ["refresh_token"]:
            return USER if form.get("refresh_token") == [self.identity_token] else None
        if form.get("grant_type") == ["password"]:
            given = (form.get("username", [""])[0], form.get("password", [""])[0])
            return USER if given == (USER, PASSWORD) else None
        if not authorization:
            return ""
        expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return USER if authorization == f"Basic {expected}" else None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._serve({}, parse_qs(urlsplit(self.path).query))

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                form = parse_qs(self.rfile.read(length).decode())
                self._serve(form, form)

            def _serve(self, form: dict[str, list[str]], parameters: dict[str, list[str]]) -> None:
                scopes = [s for value in parameters.get("scope", []) for s in value.split(" ") if s]
                account = owner.account_of(self.headers.get("Authorization", ""), form)
                request = TokenRequest(self.command, scopes, account, parameters)
                status, body = owner.answer(request)
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


class _Signer:
    """JSON web tokens, RS256, with the certificate in `x5c`; signed by openssl, kept while valid."""

    def __init__(self, certificates: Certificates) -> None:
        self._key = os.path.join(certificates.directory, "ca.key")
        with open(certificates.ca) as file:
            lines = [line for line in file.read().splitlines() if not line.startswith("-----")]
        self._header = _part({"typ": "JWT", "alg": "RS256", "x5c": ["".join(lines)]})

    def token(self, access: list[dict[str, object]], account: str, lifetime_s: int) -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER, "sub": account, "aud": SERVICE, "access": access, "jti": secrets.token_hex(8),
            "iat": now, "nbf": now - 10, "exp": now + lifetime_s,
        }  # fmt: skip
        signed = f"{self._header}.{_part(claims)}"
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self._key],
            input=signed.encode(), check=True, capture_output=True,
        ).stdout  # fmt: skip
        return f"{signed}.{_base64url(signature)}"


def _part(value: object) -> str:
    return _base64url(json.dumps(value).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
