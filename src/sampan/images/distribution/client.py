"""The registries that an engine talks to.

registries = Registries(lambda: settings)
repository = registries.repository(parse_reference("busybox"), credentials)
manifest = await repository.manifest("latest")
async with repository.blob(layer) as stream:
    async for chunk in stream.chunks(): …
await registries.close()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampan.images.distribution import interface, logins, searching
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.host import Host
from sampan.images.distribution.repository import RegistryRepository
from sampan.images.distribution.settings import RegistrySettings
from sampan.images.distribution.tokens import Tokens
from sampan.images.distribution.transport import Transport
from sampan.oci.reference import DEFAULT_DOMAIN, Reference

BlobStream = interface.BlobStream
FetchedManifest = interface.FetchedManifest
LoginResult = interface.LoginResult
Repository = interface.Repository

HOSTS_LIMIT = 256


class Registries:
    """All registries of one engine; connections are made at first use and kept for a while."""

    def __init__(self, settings: Callable[[], RegistrySettings]) -> None:
        self._settings = settings
        self._transport = Transport(settings)
        self._tokens = Tokens(self._transport)
        self._hosts: dict[str, Host] = {}
        self._hosts_settings = settings()

    @property
    def settings(self) -> RegistrySettings:
        """The settings in force."""
        return self._settings()

    async def close(self) -> None:
        """End all connections."""
        self._tokens.forget_all()
        await self._transport.close()

    def repository(
        self,
        reference: Reference,
        credentials: Credentials | None,
        *,
        push: bool = False,
        plain: bool = False,
    ) -> Repository:
        """The repository of a reference. Nothing is asked of the registry yet.

        `plain`: failures are told in the registry's words alone, without those of a pull.
        """
        places = [reference.domain]
        if reference.domain == DEFAULT_DOMAIN and not push:
            places = [*self.settings.mirrors, *places]
        return RegistryRepository(
            [self._host(place) for place in places],
            reference,
            credentials or None,
            push=push,
            plain=plain or push,
        )

    async def login(self, credentials: Credentials) -> LoginResult:
        """Try credentials at the registry that they are for (docker.io when they name none).

        Raises:
            Unauthorized: the token server refused them.
            SampanError: the registry refused them, or cannot be reached; dockerd's texts.
        """
        place = logins.domain_of(credentials.server_address)
        return await logins.login(self._host(place), self._tokens, credentials)

    async def search(
        self, term: str, limit: int, credentials: Credentials | None
    ) -> list[dict[str, Any]]:
        """What an index finds for `[host/]term`: docker's search results, at most `limit`.

        Raises:
            InvalidArgument: the term cannot be one, or the limit is not from 1 to 100.
            SampanError: the index has no search, or cannot be reached.
        """
        domain, rest = searching.split_term(term)
        searching.check_limit(limit)
        return await searching.search(self._host(domain), rest, limit, credentials or None)

    def _host(self, place: str) -> Host:
        """What is known of a registry; forgotten when the settings change."""
        if self._hosts_settings is not self.settings or len(self._hosts) >= HOSTS_LIMIT:
            self._hosts_settings = self.settings
            self._hosts.clear()
            self._transport.forget_certificates()
        host = self._hosts.get(place)
        if host is None:
            host = self._hosts[place] = Host(
                place, transport=self._transport, tokens=self._tokens, settings=self._settings
            )
        return host
