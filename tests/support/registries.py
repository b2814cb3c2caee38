"""Real registries: Debian's docker-registry on a free loopback port, a process of the test's own.

    registry = Registry(str(tmp_path / "registry"))            # plain HTTP, no password
    registry = Registry(directory, certificates=Certificates(directory + "/tls"))
    registry = Registry(directory, password=True)              # user USER, password PASSWORD
    registry = Registry(directory, tokens=TokenServer(certificates))
    registry.stop()

The fixtures `registry`, `tls_registry`, `password_registry`, `token_registry` give them to tests;
`support.faulty_proxy` stands in front of one and misbehaves; `support.registry_images` fills one.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from support.certificates import Certificates
from support.http import Answer
from support.token_server import ISSUER, PASSWORD, SERVICE, USER, TokenServer
from support.waiting import wait_for

__all__ = ["PASSWORD", "USER", "Registry", "TokenServer"]

# bcrypt at its lowest cost, of PASSWORD.
_HTPASSWD = f"{USER}:$2b$04$srn1URAKd.GaEa37q9WXsePlmaODb5vaaEHU6uBatmIGoP/74iHQS\n"
_LISTENING = re.compile(r"listening on [^\" ]*:(\d+)")
_START_TIMEOUT_S = 15.0


class Registry:
    """A running docker-registry. `address` is `127.0.0.1:<port>`, what references begin with.

    Everything it stores is below `directory`, which stays: `stop` ends the process, and `start`
    begins a further one on the same port with the same content.
    """

    def __init__(
        self,
        directory: str,
        *,
        certificates: Certificates | None = None,
        client_needed: bool = False,
        password: bool = False,
        tokens: TokenServer | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        if shutil.which("docker-registry") is None:
            pytest.skip("needs the command docker-registry")
        os.makedirs(directory, exist_ok=True)
        self.directory, self.host = directory, host
        self.certificates, self.tokens, self._password = certificates, tokens, password
        self._client_needed = client_needed
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    # -- the process ---------------------------------------------------------------------------

    @property
    def address(self) -> str:
        return f"{self.host}:{self._port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.certificates else 'http'}://{self.address}"

    @property
    def storage(self) -> str:
        """Where it keeps blobs and repositories: `docker/registry/v2` in distribution's layout."""
        return os.path.join(self.directory, "storage")

    def start(self) -> None:
        """Start the process and wait until it listens."""
        config = os.path.join(self.directory, "config.yml")
        with open(config, "w") as file:
            json.dump(self._config(), file)  # which is YAML, too
        # The log begins anew: the port is read from it.
        with open(self._log_path, "wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "docker-registry", "serve", config],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
            )  # fmt: skip
        found = wait_for(self._listening, "docker-registry to listen", timeout_s=_START_TIMEOUT_S)
        self._port = int(found or 0)

    def _listening(self) -> str | None:
        assert self._process is not None
        assert self._process.poll() is None, f"docker-registry ended:\n{self.log()[-2000:]}"
        found = _LISTENING.search(self.log())
        return found.group(1) if found else None

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()
        if self.tokens:
            self.tokens.close()

    def stop(self) -> None:
        """End the process; what it stored stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def clear(self) -> None:
        """Forget everything that was pushed."""
        self.stop()
        shutil.rmtree(self.storage, ignore_errors=True)
        self.start()

    def log(self) -> str:
        with open(self._log_path, errors="replace") as file:
            return file.read()

    @property
    def _log_path(self) -> str:
        return os.path.join(self.directory, "log")

    def _config(self) -> dict[str, Any]:
        server: dict[str, Any] = {"addr": self.address, "secret": "tests"}
        if self.certificates:
            server["tls"] = {
                "certificate": self.certificates.server,
                "key": self.certificates.server_key,
            }
            if self._client_needed:
                server["tls"]["clientcas"] = [self.certificates.ca]
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {
                "filesystem": {"rootdirectory": self.storage},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": server,
        }
        if self._password:
            path = os.path.join(self.directory, "htpasswd")
            with open(path, "w") as file:
                file.write(_HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "tests", "path": path}}
        if self.tokens:
            config["auth"] = {"token": self._token_settings(self.tokens)}
        return config

    def _token_settings(self, tokens: TokenServer) -> dict[str, str]:
        return {
            "realm": tokens.realm,
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": tokens.trusted,
        }

    # -- a client that does not need our own -----------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        scope: str = "",
    ) -> Answer:
        """One request to `/v2/…` or a URL's path, with the right to it; the whole answer."""
        if self.certificates:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self.host, self._port, timeout=30, context=self.certificates.client_context()
            )
        else:
            connection = http.client.HTTPConnection(self.host, self._port, timeout=30)
        try:
            connection.request(
                method, path, body, {**self._authorization(scope), **(headers or {})}
            )
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, answer.reason, found, answer.read())
        finally:
            connection.close()

    def _authorization(self, scope: str) -> dict[str, str]:
        if self.tokens:
            return {"Authorization": f"Bearer {self.tokens.issue([scope] if scope else [])}"}
        if self._password:
            given = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            return {"Authorization": f"Basic {given}"}
        return {}

    def in_repository(self, method: str, repository: str, path: str, **options: Any) -> Answer:
        """One request to `/v2/<repository>/<path>`."""
        scope = f"repository:{repository}:pull,push,delete"
        return self.request(method, f"/v2/{repository}/{path}", scope=scope, **options)

    def tags(self, repository: str) -> list[str]:
        """The tags of a repository, sorted; none of an unknown one."""
        answer = self.in_repository("GET", repository, "tags/list")
        return sorted(answer.json["tags"] or []) if answer.status == 200 else []

    def manifest(self, repository: str, reference: str) -> Answer:
        """A manifest or index as it is stored, whatever its kind."""
        accept = {"Accept": ", ".join(MANIFEST_TYPES)}
        return self.in_repository("GET", repository, f"manifests/{reference}", headers=accept)

    def has_blob(self, repository: str, digest: str) -> bool:
        return self.in_repository("HEAD", repository, f"blobs/{digest}").status == 200

    def blob(self, repository: str, digest: str) -> bytes:
        answer = self.in_repository("GET", repository, f"blobs/{digest}")
        assert answer.status == 200, answer
        return answer.body

    def delete_manifest(self, repository: str, digest: str) -> None:
        answer = self.in_repository("DELETE", repository, f"manifests/{digest}")
        assert answer.status == 202, answer

    def stored_bytes(self) -> int:
        """The size of all blobs that it holds."""
        root = os.path.join(self.storage, "docker/registry/v2/blobs")
        return sum(
            os.path.getsize(os.path.join(directory, name))
            for directory, _, names in os.walk(root)
            for name in names
        )


MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
