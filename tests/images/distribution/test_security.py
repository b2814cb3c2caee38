"""TLS: whom a registry's certificate convinces, and what is never sent in the clear."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
from aiohttp.resolver import ThreadedResolver

from images.distribution.conftest import Open
from images.distribution.test_repository import put_manifest, read
from images.distribution.tunnel import Tunnel
from sampan.errors import InvalidArgument
from sampan.images.distribution import settings as settings_module
from sampan.images.distribution.client import Registries
from sampan.images.distribution.credentials import Credentials
from sampan.images.distribution.failures import RegistryFailure, Unreachable
from sampan.images.distribution.settings import LiveSettings, RegistrySettings
from sampan.images.distribution.trust import folder_of, make_context
from sampan.oci.descriptor import Descriptor
from sampan.oci.digest import Digest
from support.certificates import Certificates
from support.faulty_proxy import Answer, FaultyProxy, Redirect
from support.registries import PASSWORD, USER, Registry

ABSENT = Descriptor(media_type="x", digest=Digest("sha256:" + "0" * 64), size=1)


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own addresses are trusted no more than others."""
    monkeypatch.setattr(settings_module, "LOOPBACK", ())


async def test_this_machine_needs_no_certificate(
    tls_registry: Registry, open_repository: Open
) -> None:
    put = put_manifest(tls_registry, "a", "v1")
    assert await open_repository(f"{tls_registry.address}/a").resolve("v1") == put


@pytest.mark.usefixtures("strict")
async def test_an_authority_that_nobody_knows(
    tls_registry: Registry, open_repository: Open
) -> None:
    address = tls_registry.address
    with pytest.raises(Unreachable) as caught:
        await open_repository(f"{address}/a").manifest("v1")
    assert caught.value.message == (
        f'Get "https://{address}/v2/": x509: certificate signed by unknown authority'
    )
    assert caught.value.hint == (
        f"put its authority's certificate into /etc/sampan/certs.d/{address}/ca.crt"
    )


@pytest.mark.usefixtures("strict")
async def test_an_authority_of_the_registrys_folder(
    tls_registry: Registry,
    certificates: Certificates,
    open_repository: Open,
    settings: LiveSettings,
) -> None:
    put = put_manifest(tls_registry, "a", "v1")
    certificates.trust(settings.current.certs_directories[0], tls_registry.address)
    assert await open_repository(f"{tls_registry.address}/a").resolve("v1") == put


@pytest.mark.usefixtures("strict")
async def test_a_folder_is_read_when_it_changes(
    tls_registry: Registry,
    certificates: Certificates,
    tmp_path: Path,
    open_repository: Open,
    settings: LiveSettings,
) -> None:
    directory = settings.current.certs_directories[0]
    Certificates(str(tmp_path / "others")).trust(directory, tls_registry.address)
    put = put_manifest(tls_registry, "a", "v1")
    repository = open_repository(f"{tls_registry.address}/a")
    with pytest.raises(Unreachable, match="unknown authority"):
        await repository.resolve("v1")
    os.unlink(f"{directory}/{tls_registry.address}/ca.crt")
    certificates.trust(directory, tls_registry.address)
    assert await repository.resolve("v1") == put


@pytest.mark.usefixtures("strict")
async def test_a_client_certificate(
    tmp_path: Path, certificates: Certificates, open_repository: Open, settings: LiveSettings
) -> None:
    directory = settings.current.certs_directories[0]
    with Registry(str(tmp_path / "r"), certificates=certificates, client_needed=True) as registry:
        put = put_manifest(registry, "a", "v1")
        certificates.trust(directory, registry.address, client=True)
        assert await open_repository(f"{registry.address}/a").resolve("v1") == put


@pytest.mark.usefixtures("strict")
async def test_a_client_without_the_certificate(
    tmp_path: Path, certificates: Certificates, open_repository: Open, settings: LiveSettings
) -> None:
    with Registry(str(tmp_path / "r"), certificates=certificates, client_needed=True) as registry:
        certificates.trust(settings.current.certs_directories[0], registry.address)
        with pytest.raises(
            Unreachable, match=r"remote error: tls: (bad certificate|certificate required)"
        ):
            await open_repository(f"{registry.address}/a").resolve("v1")


@pytest.mark.usefixtures("strict")
async def test_a_certificate_for_another_name(
    tmp_path: Path, certificates: Certificates, open_repository: Open, settings: LiveSettings
) -> None:
    with Registry(str(tmp_path / "r"), certificates=certificates, host="127.0.0.3") as registry:
        certificates.trust(settings.current.certs_directories[0], registry.address)
        with pytest.raises(Unreachable, match=r"x509: certificate is not valid for 127\.0\.0\.3"):
            await open_repository(f"{registry.address}/a").resolve("v1")


@pytest.mark.usefixtures("strict")
async def test_insecure_by_the_settings(
    tls_registry: Registry, registry: Registry, open_repository: Open, settings: LiveSettings
) -> None:
    """Read anew: a reload of the daemon's file counts for the next request."""
    put_manifest(tls_registry, "a", "v1")
    put_manifest(registry, "a", "v1")
    for one in (tls_registry, registry):
        with pytest.raises(Unreachable):
            await open_repository(f"{one.address}/a").manifest("v1")
    settings.current = RegistrySettings(insecure=(tls_registry.address, "127.0.0.0/8"))
    for one in (tls_registry, registry):
        assert (await open_repository(f"{one.address}/a").manifest("v1")).data


async def test_a_name_keeps_the_addresses_that_it_was_judged_by(
    registry: Registry, open_repository: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who answers DNS cannot make a registry insecure and then be that registry."""
    put_manifest(registry, "a", "v1")
    port = int(registry.address.rpartition(":")[2])
    asked = []

    async def resolve(
        self: object, host: str, port: int = 0, **_: object
    ) -> list[dict[str, object]]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "203.0.113.1"
        return [
            {"hostname": host, "host": address, "port": port, "family": 2, "proto": 0, "flags": 4}
        ]

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    assert (await open_repository(f"registry.test:{port}/a").manifest("v1")).data
    assert asked == ["registry.test"]


@pytest.mark.usefixtures("strict")
async def test_no_http_without_a_word(registry: Registry, open_repository: Open) -> None:
    with pytest.raises(Unreachable) as caught:
        await open_repository(f"{registry.address}/a", Credentials(USER, PASSWORD)).manifest("v1")
    assert caught.value.message == (
        f'Get "https://{registry.address}/v2/": http: server gave HTTP response to HTTPS client'
    )


@pytest.mark.usefixtures("strict")
async def test_from_https_nobody_is_sent_to_http(
    tls_registry: Registry,
    registry: Registry,
    certificates: Certificates,
    open_repository: Open,
    settings: LiveSettings,
) -> None:
    """Not by a redirect, not by a token server's address, not by an upload's location."""
    directory = settings.current.certs_directories[0]
    with closing(FaultyProxy(tls_registry, certificates=certificates)) as proxy:
        certificates.trust(directory, proxy.address)
        repository = open_repository(f"{proxy.address}/a", Credentials(USER, PASSWORD), push=True)
        proxy.fault(Redirect(registry.url), path="/blobs/sha256", times=None)
        with pytest.raises(RegistryFailure, match="sends from https to http://") as caught:
            await read(repository, ABSENT)
        assert caught.value.hint is not None and "insecure-registries" in caught.value.hint
        proxy.fault(Answer(202, {"Location": f"{registry.url}/v2/x"}), method="POST", times=None)
        with pytest.raises(RegistryFailure, match="sends from https to http://"):
            await repository.upload(ABSENT, lambda _: open(os.devnull, "rb"), lambda _: None)
        realm = f'Bearer realm="{registry.url}/token"'
        proxy.fault(Answer(401, {"WWW-Authenticate": realm}), path="/tags/", times=None)
        with pytest.raises(RegistryFailure, match="sends from https to http://"):
            await repository.tags()


@pytest.mark.usefixtures("strict")
async def test_a_redirect_is_verified_too(
    tls_registry: Registry,
    certificates: Certificates,
    tmp_path: Path,
    open_repository: Open,
    settings: LiveSettings,
) -> None:
    """Storage signed by the registry's own authority is fine, by another's is not."""
    directory = settings.current.certs_directories[0]
    others = Certificates(str(tmp_path / "others"))
    blob = put_manifest(tls_registry, "a", "v1")
    with (
        closing(FaultyProxy(tls_registry, certificates=certificates)) as proxy,
        closing(FaultyProxy(tls_registry, certificates=others)) as foreign,
    ):
        certificates.trust(directory, proxy.address)
        repository = open_repository(f"{proxy.address}/a")
        proxy.fault(Redirect(tls_registry.url), path="/manifests/", times=1)
        assert (await repository.manifest("v1")).digest == blob.digest
        proxy.fault(Redirect(foreign.url), path="/manifests/", times=None)
        with pytest.raises(Unreachable, match="unknown authority"):
            await repository.manifest("v1")


def test_the_folder_of_a_registry(tmp_path: Path) -> None:
    for name in ("first/a:5000", "second/a:5000", "second/b"):
        (tmp_path / name).mkdir(parents=True)
    directories = [str(tmp_path / "first"), str(tmp_path / "second"), str(tmp_path / "none")]
    assert folder_of("a:5000", directories) == str(tmp_path / "first/a:5000")
    assert folder_of("b", directories) == str(tmp_path / "second/b")
    for name in ("c", "", "..", ".", "../first/a:5000", "a:5000/../x"):
        assert folder_of(name, directories) is None


def test_a_folder_that_cannot_be_used(tmp_path: Path, certificates: Certificates) -> None:
    (tmp_path / "client.cert").symlink_to(certificates.client)
    with pytest.raises(InvalidArgument, match=r"missing key client\.key for client certificate"):
        make_context(str(tmp_path), insecure=False)
    (tmp_path / "client.key").symlink_to(certificates.client_key)
    make_context(str(tmp_path), insecure=False)
    (tmp_path / "client.cert").unlink()
    with pytest.raises(InvalidArgument, match=r"missing client certificate client\.cert for key"):
        make_context(str(tmp_path), insecure=False)
    (tmp_path / "client.key").unlink()
    (tmp_path / "ca.crt").write_text("no certificate")
    with pytest.raises(InvalidArgument, match="cannot use the certificates of"):
        make_context(str(tmp_path), insecure=False)


async def test_a_proxy_is_used(
    registry: Registry,
    registries: Registries,
    open_repository: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Everything but this machine goes through it; here it is a registry that answers by itself."""
    put = put_manifest(registry, "a", "v1")
    monkeypatch.setenv("HTTP_PROXY", registry.url)
    settings = RegistrySettings(insecure=("registry.invalid",))
    client = Registries(LiveSettings(settings))
    try:
        from sampan.oci.reference import parse_reference

        repository = client.repository(parse_reference("registry.invalid/a"), None)
        assert (await repository.manifest("v1")).digest == put.digest
    finally:
        await client.close()


async def test_tls_through_a_proxy(
    tls_registry: Registry,
    certificates: Certificates,
    open_repository: Open,
    settings: LiveSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The proxy sees the registry's name and its own password, nothing else."""
    put = put_manifest(tls_registry, "a", "v1")
    port = int(tls_registry.address.rpartition(":")[2])
    certificates.trust(settings.current.certs_directories[0], f"registry.test:{port}")
    async with Tunnel(port) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@{tunnel.address}")
        repository = open_repository(f"registry.test:{port}/a", Credentials(USER, PASSWORD))
        assert await repository.resolve("v1") == put
    assert tunnel.heads[0].startswith(f"CONNECT registry.test:{port} HTTP/1.1\r\n")
    basic = Credentials("me", "secret").basic
    assert f"Proxy-Authorization: {basic}" in tunnel.heads[0]
    assert PASSWORD not in tunnel.heads[0] and "\r\nAuthorization:" not in tunnel.heads[0]


async def test_a_proxy_that_refuses(open_repository: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Tunnel(1, status="407 Proxy Authentication Required") as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@{tunnel.address}")
        with pytest.raises(Unreachable, match="proxyconnect: 407") as caught:
            await open_repository("registry.test/a").resolve("v1")
        assert "secret" not in caught.value.message
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with pytest.raises(Unreachable, match=r"proxyconnect tcp: dial tcp 127\.0\.0\.1:1: connect:"):
        await open_repository("registry.test/a").resolve("v1")
