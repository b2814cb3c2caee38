"""TLS towards registries: the machine's authorities, and what lies in a registry's own folder.

`<certs.d>/<host[:port]>/` holds `*.crt` (further authorities) and pairs of `*.cert` and `*.key`
(a client certificate), as dockerd reads `/etc/docker/certs.d`.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence

from sampan.errors import InvalidArgument


def make_context(directory: str | None, *, insecure: bool, client: bool = True) -> ssl.SSLContext:
    """A context for one registry; blocks some ms for reading the machine's authorities.

    `client`: whether to take a client certificate of the folder too.

    Raises:
        InvalidArgument: what is in the folder cannot be used, and why.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if directory:
        _load(context, directory, client=client)
    return context


def folder_of(host: str, directories: Sequence[str]) -> str | None:
    """The folder of `host[:port]` in the first of `directories` that has one."""
    if "/" in host or host in ("", ".", ".."):
        return None
    candidates = [os.path.join(directory, host) for directory in directories]
    return next((path for path in candidates if os.path.isdir(path)), None)


def state_of(folder: str | None) -> tuple[object, ...]:
    """What changes when the files of a folder do: a new certificate counts from then on."""
    if folder is None:
        return ()
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries))
    except OSError as error:
        raise InvalidArgument(f"cannot use the certificates of {folder}: {error}") from error


def _load(context: ssl.SSLContext, directory: str, *, client: bool) -> None:
    try:
        names = sorted(os.listdir(directory))
        for name in names:
            path = os.path.join(directory, name)
            if name.endswith(".crt"):
                context.load_verify_locations(path)
            elif name.endswith(".cert"):
                if client:
                    _load_client(context, path, names)
            elif name.endswith(".key") and f"{name[:-4]}.cert" not in names:
                raise InvalidArgument(f"missing client certificate {name[:-4]}.cert for key {name}")
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"cannot use the certificates of {directory}: {error}") from error


def _load_client(context: ssl.SSLContext, path: str, names: Sequence[str]) -> None:
    name = os.path.basename(path)
    key = f"{name[:-5]}.key"
    if key not in names:
        raise InvalidArgument(
            f"missing key {key} for client certificate {name}. "
            "CA certificates must use the extension .crt"
        )
    context.load_cert_chain(path, os.path.join(os.path.dirname(path), key), password=_no_password)


def _no_password() -> str:
    """For a key that is encrypted: openssl would ask the daemon's terminal."""
    raise ssl.SSLError("the key is encrypted")
