"""Who the user is to registries: kept in the client's configuration file or by credential helpers.

registry_auth_header("localhost:5000/app")        # what goes with a pull or push
kept("https://index.docker.io/v1/", environ)      # docker's AuthConfig, or None
"""

from __future__ import annotations

import os

from sampan.cli import config_file
from sampan.cli.call import complain
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

HUB_SERVER = "https://index.docker.io/v1/"
"""What Docker Hub's entry is called."""
_HUB_DOMAINS = ("docker.io", "index.docker.io", "registry-1.docker.io")

_UNENCRYPTED = """
WARNING! Your credentials are stored unencrypted in '{path}'.
Configure a credential helper to remove this warning. See
https://docs.docker.com/go/credential-store/
"""


def registry_auth_header(reference: str) -> str:
    """The value of `X-Registry-Auth` for the registry of a reference; "" without credentials.

    Credentials that cannot be had are left out, as docker does: the registry may want none.
    """
    return header_for(server_of(reference))


def header_for(server: str) -> str:
    """The value of `X-Registry-Auth` for a server, by its name in the configuration file."""
    try:
        found = kept(server, os.environ)
    except CommandError:
        return ""
    return encoded(found) if found else ""


def encoded(config: dict[str, Any]) -> str:
    """An AuthConfig as the header's value: JSON in URL-safe base64."""
    import binascii

    from sampan.cli import jsontext

    data = jsontext.encode(config).encode("utf-8", "surrogateescape")
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE).decode()


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def server_of(reference: str) -> str:
    """The server that a reference's credentials are kept under."""
    head, slash, _ = reference.partition("/")
    if not slash or not ("." in head or ":" in head or head == "localhost" or head != head.lower()):
        return HUB_SERVER
    return HUB_SERVER if head in _HUB_DOMAINS else head


def server_named(argument: str) -> str:
    """The server that a user's `[SERVER]` means; Docker Hub for none."""
    host = hostname(argument)
    return HUB_SERVER if not argument or host in _HUB_DOMAINS else host


def hostname(server: str) -> str:
    """`host[:port]` of a server with or without scheme and path."""
    text = server.strip()
    for scheme in ("http://", "https://"):
        text = text.removeprefix(scheme)
    return text.partition("/")[0]


def kept(server: str, environ: Mapping[str, str]) -> dict[str, str] | None:
    """What is known for a server, as docker's AuthConfig.

    Raises:
        CommandError: the credential helper failed.
    """
    content = config_file.load(environ)
    helper = _helper(content, server)
    if helper:
        from sampan.cli import credential_helpers

        found = credential_helpers.get(helper, server)
        if found is not None:
            return found
    entry = _entry(content, server)
    config = {
        key: entry[key]
        for key in ("username", "password", "identitytoken", "registrytoken")
        if entry.get(key)
    }
    if entry.get("auth"):
        config.update(_decoded(str(entry["auth"])))
    return {**config, "serveraddress": server} if config else None


def keep(server: str, config: dict[str, str], environ: Mapping[str, str]) -> None:
    """Keep an AuthConfig; warns where a password is written in the clear.

    Raises:
        CommandError: neither helper nor file takes it.
    """
    content = config_file.load(environ)
    auths = _auths(content)
    helper = _helper(content, server)
    token = config.get("identitytoken", "")
    if helper:
        from sampan.cli import credential_helpers

        user = credential_helpers.TOKEN_USER if token else config.get("username", "")
        try:
            credential_helpers.store(helper, server, user, token or config.get("password", ""))
        except CommandError as error:
            raise CommandError(f"Error saving credentials: {error.message}") from None
        entry: dict[str, str] = {}
    elif token:
        entry = {"auth": _pair(config.get("username", ""), ""), "identitytoken": token}
    else:
        entry = {"auth": _pair(config.get("username", ""), config.get("password", ""))}
    if auths.get(server) == entry:
        return
    content["auths"] = {**auths, server: entry}
    config_file.save(environ, content)
    if not helper and not token:
        complain(_UNENCRYPTED.format(path=config_file.path(environ)))


def forget(server: str, environ: Mapping[str, str]) -> list[str]:
    """Forget a server, however it is spelled; the failures, a line each."""
    content = config_file.load(environ)
    host = hostname(server)
    spellings = (
        [server] if server == HUB_SERVER else [server, host, f"http://{host}", f"https://{host}"]
    )
    failures = []
    for spelling in dict.fromkeys(spellings):
        helper = _helper(content, spelling)
        if helper:
            from sampan.cli import credential_helpers

            try:
                credential_helpers.erase(helper, spelling)
            except CommandError as error:
                failures.append(f"{spelling}: {error.message}")
    auths = _auths(content)
    rest = {name: entry for name, entry in auths.items() if name not in spellings}
    if rest != auths:
        content["auths"] = rest
        config_file.save(environ, content)
    return failures


def _helper(content: dict[str, Any], server: str) -> str:
    """The name of the helper that keeps a server's credentials, "" for the file itself."""
    own = content.get("credHelpers")
    chosen = own.get(server) if isinstance(own, dict) else None
    return str(chosen or content.get("credsStore") or "")


def _auths(content: dict[str, Any]) -> dict[str, Any]:
    auths = content.get("auths")
    return auths if isinstance(auths, dict) else {}


def _entry(content: dict[str, Any], server: str) -> dict[str, Any]:
    """The file's entry of a server; old files name it with scheme and path."""
    auths = _auths(content)
    entry = auths.get(server)
    if entry is None and server != HUB_SERVER:
        entry = next((auths[name] for name in auths if hostname(name) == server), None)
    return entry if isinstance(entry, dict) else {}


def _pair(user: str, password: str) -> str:
    import binascii

    data = f"{user}:{password}".encode("utf-8", "surrogateescape")
    return binascii.b2a_base64(data, newline=False).decode()


def _decoded(auth: str) -> dict[str, str]:
    """`username` and `password` of base64 `user:password`; {} for anything else."""
    import binascii

    try:
        text = binascii.a2b_base64(auth + "=" * (-len(auth) % 4)).decode("utf-8", "surrogateescape")
    except ValueError:
        return {}
    user, colon, password = text.partition(":")
    return {"username": user, "password": password.rstrip("\0")} if colon else {}
