"""What `info` says of registries: docker's RegistryServiceConfig, and the proxies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sampan.images.distribution.proxies import shown_proxies
from sampan.images.distribution.settings import RegistrySettings
from sampan.oci.reference import DEFAULT_DOMAIN


def registry_fields(settings: RegistrySettings, environ: Mapping[str, str]) -> dict[str, Any]:
    """The fields of SystemInfo that registries are about."""
    mirrors = [f"{url}/" for url in settings.mirrors]
    indexes = {DEFAULT_DOMAIN: _index(DEFAULT_DOMAIN, mirrors, secure=True)}
    for name in settings.insecure_names:
        indexes[name] = _index(name, [], secure=False)
    return {
        "RegistryConfig": {
            "AllowNondistributableArtifactsCIDRs": [],
            "AllowNondistributableArtifactsHostnames": [],
            "InsecureRegistryCIDRs": [str(network) for network in settings.insecure_networks],
            "IndexConfigs": indexes,
            "Mirrors": mirrors,
        },
        **shown_proxies(environ),
    }


def _index(name: str, mirrors: list[str], *, secure: bool) -> dict[str, Any]:
    return {
        "Name": name,
        "Mirrors": mirrors,
        "Secure": secure,
        "Official": name == DEFAULT_DOMAIN,
    }
