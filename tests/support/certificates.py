"""Keys and certificates for servers of the tests, made by openssl: a CA, a server's, a client's.

The names are those that a server on the loopback interface can have, and `registry.test`, which a
test resolves itself: engines take every registry on a loopback address for an insecure one.
"""

from __future__ import annotations

import os
import ssl
import subprocess

SERVER_NAMES = (
    "DNS:localhost,DNS:registry.test,DNS:*.registry.test,IP:127.0.0.1,IP:127.0.0.2,IP:::1"
)
_DAYS = "30"


class Certificates:
    """A CA of its own below a directory, and what it signed: paths to PEM files.

    `ca`; `server` and `server_key` (for SERVER_NAMES); `client` and `client_key`.
    """

    def __init__(self, directory: str) -> None:
        os.makedirs(directory, exist_ok=True)
        self.directory = directory
        self.ca, self._ca_key = self._path("ca.crt"), self._path("ca.key")
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", _DAYS,
            "-subj", "/CN=Test CA", "-keyout", self._ca_key, "-out", self.ca,
        )  # fmt: skip
        self.server, self.server_key = self._signed(
            "server", f"subjectAltName={SERVER_NAMES}\nextendedKeyUsage=serverAuth\n"
        )
        self.client, self.client_key = self._signed("client", "extendedKeyUsage=clientAuth\n")

    def server_context(self, *, client_needed: bool = False) -> ssl.SSLContext:
        """For a server with the server's certificate; `client_needed`: only clients with one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server, self.server_key)
        if client_needed:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        """For a client that trusts only this CA, and has the client's certificate."""
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(self.client, self.client_key)
        return context

    def trust(self, certs_directory: str, address: str, *, client: bool = False) -> None:
        """Put the CA (and the client's certificate) where engines look: `<certs.d>/<host:port>/`."""
        target = os.path.join(certs_directory, address)
        os.makedirs(target, exist_ok=True)
        os.symlink(self.ca, os.path.join(target, "ca.crt"))
        if client:
            os.symlink(self.client, os.path.join(target, "client.cert"))
            os.symlink(self.client_key, os.path.join(target, "client.key"))

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _signed(self, name: str, extensions: str) -> tuple[str, str]:
        certificate, key = self._path(f"{name}.crt"), self._path(f"{name}.key")
        request, wanted = self._path(f"{name}.csr"), self._path(f"{name}.ext")
        with open(wanted, "w") as file:
            file.write(extensions)
        _openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
            "-keyout", key, "-out", request,
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-days", _DAYS, "-in", request, "-CA", self.ca, "-CAkey", self._ca_key,
            "-CAcreateserial", "-extfile", wanted, "-out", certificate,
        )  # fmt: skip
        return certificate, key


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
