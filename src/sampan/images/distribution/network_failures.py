"""A connection that was not made, cut or stalled, in Go's words: what dockerd says of it."""

from __future__ import annotations

import errno
import os
import re
import ssl

import aiohttp

from sampan.errors import SampanError
from sampan.images.distribution.failures import RegistryFailure, Temporary, Unreachable

# OpenSSL's X509_V_ERR_* → Go's text.
_CERTIFICATES = {
    10: "x509: certificate has expired or is not yet valid",
    9: "x509: certificate has expired or is not yet valid",
    18: "x509: certificate signed by unknown authority",
    19: "x509: certificate signed by unknown authority",
    20: "x509: certificate signed by unknown authority",
    21: "x509: certificate signed by unknown authority",
}
_NAME_MISMATCHES = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_TRIED = re.compile(r"Connect call failed \('([^']+)'")
# What the other side says of us, in OpenSSL's words: it wants a certificate, or another one.
_ALERT = re.compile(r"\[SSL: (?:SSLV3|TLSV1|TLSV13)_ALERT_([A-Z_]+)\]")
# A server that speaks HTTP where TLS was begun.
_NOT_TLS = frozenset(("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"))


def failure_of_network(error: BaseException, shown: str) -> SampanError:
    """The failure that an exception of the HTTP client means; `shown` is `Get "url"`."""
    if isinstance(error, aiohttp.InvalidURL | ValueError) and not isinstance(error, ssl.SSLError):
        return RegistryFailure(f"{shown}: {error}")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
        return Unreachable(f"{shown}: {_unconnected(error)}", hint=_hint(error))
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Unreachable(f"{shown}: dial tcp: i/o timeout")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return Unreachable(f"{shown}: proxyconnect: {error.status} {error.message}")
    if alert := _ALERT.search(str(error)):
        return Unreachable(f"{shown}: remote error: tls: {alert[1].lower().replace('_', ' ')}")
    return Temporary(f"{shown}: {_cut(error)}")


def _unconnected(
    error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError,
) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _certificate(error)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {error.host}: no such host"
    cause = error.os_error
    if isinstance(cause, ssl.SSLError):
        if cause.reason in _NOT_TLS:
            return "http: server gave HTTP response to HTTPS client"
        return f"tls: {(cause.reason or str(cause)).lower().replace('_', ' ')}"
    # asyncio tells the address that it tried, in its text only.
    tried = _TRIED.search(str(cause))
    lead = "proxyconnect tcp: " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
    where = f"{lead}dial tcp {_joined(tried[1] if tried else error.host, error.port)}"
    number = cause.errno or 0
    if number in (errno.ECONNREFUSED, 0):
        return f"{where}: connect: connection refused" if number else f"{where}: {cause}"
    return f"{where}: connect: {os.strerror(number).lower()}"


def _joined(host: str, port: object) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _certificate(error: aiohttp.ClientConnectorCertificateError) -> str:
    cause = error.certificate_error
    code = getattr(cause, "verify_code", 0)
    if code in _NAME_MISMATCHES:
        return f"x509: certificate is not valid for {error.host}"
    message = getattr(cause, "verify_message", "") or str(cause)
    return _CERTIFICATES.get(code, f"x509: {message}")


def _hint(error: BaseException) -> str | None:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"put its authority's certificate into /etc/sampan/certs.d/{error.host}:{error.port}/ca.crt"
    return None


def _cut(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "net/http: timeout awaiting response: nothing came for a minute"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "unexpected EOF"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"malformed HTTP response: {error.message}"
    if isinstance(error, OSError) and error.errno:
        return f"{os.strerror(error.errno).lower()}"
    return str(error) or type(error).__name__
