"""The registries that the tests stand on do what they promise, faults included."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator

import pytest

from support import faulty_proxy
from support.certificates import Certificates
from support.command import run
from support.faulty_proxy import FaultyProxy
from support.registries import PASSWORD, USER, Registry
from support.registry_images import layer, put_image, put_index

pytestmark = pytest.mark.root


@pytest.fixture
def proxy(registry: Registry) -> Iterator[FaultyProxy]:
    made = FaultyProxy(registry)
    yield made
    made.close()


def get(address: str, path: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def skopeo(*arguments: str, check: bool = True) -> str:
    return run(["skopeo", *arguments], check=check).out


def test_an_image_put_by_hand_is_one_for_skopeo(registry: Registry) -> None:
    made = put_image(registry, "team/app", "1", [layer(1000), layer(2000, seed=1)])
    raw = skopeo(
        "inspect", "--raw", "--tls-verify=false", f"docker://{registry.address}/team/app:1"
    )
    assert raw.encode() == made.manifest.data
    assert registry.tags("team/app") == ["1"]
    assert registry.blob("team/app", made.layers[0].digest) == made.layers[0].data
    assert registry.stored_bytes() > 3000


def test_an_index_has_its_platforms(registry: Registry) -> None:
    amd64 = put_image(registry, "app", "", [layer(10)], docker=True)
    arm64 = put_image(registry, "app", "", [layer(11)], docker=True, platform=("linux", "arm64"))
    images = {"linux/amd64": amd64, "linux/arm64/v8": arm64}
    blob = put_index(registry, "app", "all", images, docker=True)
    assert registry.manifest("app", "all").body == blob.data
    name = f"docker://{registry.address}/app:all"
    seen = skopeo("inspect", "--override-arch=arm64", "--tls-verify=false", name)
    assert '"Architecture": "arm64"' in seen


def test_what_was_pushed_outlives_a_restart_and_not_a_clear(registry: Registry) -> None:
    put_image(registry, "app", "1", [layer(10)])
    address = registry.address
    registry.stop()
    registry.start()
    assert (registry.address, registry.tags("app")) == (address, ["1"])
    registry.clear()
    assert (registry.address, registry.tags("app")) == (address, [])


def test_tls_needs_the_ca(tls_registry: Registry, tmp_path: object) -> None:
    put_image(tls_registry, "app", "1", [layer(10)])
    assert tls_registry.certificates is not None
    name = f"docker://{tls_registry.address}/app:1"
    refused = run(["skopeo", "inspect", name], check=False)
    assert "certificate" in refused.err
    trusted = f"{tmp_path}/certs.d"
    tls_registry.certificates.trust(trusted, tls_registry.address, client=True)
    skopeo("inspect", f"--cert-dir={trusted}/{tls_registry.address}", name)


def test_a_client_certificate_can_be_asked_for(
    tmp_path: object, certificates: Certificates
) -> None:
    with Registry(f"{tmp_path}/r", certificates=certificates, client_needed=True) as registry:
        put_image(registry, "app", "1", [layer(10)])
        context = ssl.create_default_context(cafile=certificates.ca)
        connection = http.client.HTTPSConnection(registry.address, timeout=30, context=context)
        with pytest.raises(ssl.SSLError):
            connection.request("GET", "/v2/")
            connection.getresponse()
        connection.close()


def test_a_password_is_asked_for(password_registry: Registry) -> None:
    put_image(password_registry, "app", "1", [layer(10)])
    name = f"docker://{password_registry.address}/app:1"
    assert not skopeo("inspect", "--tls-verify=false", name, check=False)
    skopeo("inspect", "--tls-verify=false", f"--creds={USER}:{PASSWORD}", name)
    answer, _ = get(password_registry.address, "/v2/")
    assert (answer.status, answer.getheader("WWW-Authenticate")) == (401, 'Basic realm="tests"')


def test_tokens_are_asked_for(token_registry: Registry) -> None:
    put_image(token_registry, "app", "1", [layer(10)])
    assert token_registry.tokens is not None
    name = f"docker://{token_registry.address}/app:1"
    assert not skopeo("inspect", "--tls-verify=false", name, check=False)
    skopeo("inspect", "--tls-verify=false", f"--creds={USER}:{PASSWORD}", name)
    token_registry.tokens.anonymous = ("pull",)
    skopeo("inspect", "--tls-verify=false", name)
    accounts = {request.account for request in token_registry.tokens.requests}
    assert accounts == {"", USER}


class TestFaults:
    def test_a_cut_gives_exactly_what_was_ordered(
        self, registry: Registry, proxy: FaultyProxy
    ) -> None:
        made = put_image(registry, "app", "1", [layer(500_000)])
        path = f"/v2/app/blobs/{made.layers[0].digest}"
        proxy.fault(faulty_proxy.Cut(300_000), path="/blobs/")
        with pytest.raises(http.client.IncompleteRead) as failure:
            get(proxy.address, path)
        assert failure.value.partial == made.layers[0].data[:300_000]
        assert get(proxy.address, path)[1] == made.layers[0].data
        assert proxy.sent("/blobs/") == 300_000 + len(made.layers[0].data)

    def test_a_stall_lasts_until_it_is_released(
        self, registry: Registry, proxy: FaultyProxy
    ) -> None:
        made = put_image(registry, "app", "1", [layer(50_000)])
        proxy.fault(faulty_proxy.Stall(100))
        with socket.create_connection(("127.0.0.2", int(proxy.address.split(":")[1]))) as sock:
            request = f"GET /v2/app/blobs/{made.layers[0].digest} HTTP/1.1\r\nHost: x\r\n\r\n"
            sock.sendall(request.encode())
            proxy.wait_sent(100)
            proxy.release()
            while sock.recv(65536):
                pass

    def test_lies(self, registry: Registry, proxy: FaultyProxy) -> None:
        made = put_image(registry, "app", "1", [layer(5000)])
        data = made.layers[0].data
        path = f"/v2/app/blobs/{made.layers[0].digest}"
        proxy.fault(faulty_proxy.Corrupt(7))
        _, body = get(proxy.address, path)
        assert body[:7] == data[:7] and body[7] != data[7] and body[8:] == data[8:]
        proxy.fault(faulty_proxy.WrongLength(-1))
        assert get(proxy.address, path)[1] == data[:-1]
        proxy.fault(faulty_proxy.WrongLength(3))
        with pytest.raises(http.client.IncompleteRead):
            get(proxy.address, path)
        proxy.fault(faulty_proxy.Header({"Docker-Content-Digest": "sha256:no"}))
        answer, _ = get(proxy.address, path)
        assert answer.getheader("Docker-Content-Digest") == "sha256:no"

    def test_answers_and_redirects(self, registry: Registry, proxy: FaultyProxy) -> None:
        other = FaultyProxy(registry, host="127.0.0.3")
        try:
            made = put_image(registry, "app", "1", [layer(5000)])
            proxy.fault(faulty_proxy.Answer(429, {"Retry-After": "1"}), path="/manifests/")
            proxy.fault(faulty_proxy.Redirect(other.url), path="/blobs/", times=None)
            answer, _ = get(proxy.address, "/v2/app/manifests/1")
            assert (answer.status, answer.getheader("Retry-After")) == (429, "1")
            path = f"docker://{proxy.address}/app:1"
            skopeo("inspect", "--config", "--tls-verify=false", path)
            assert [r.path for r in other.requests] == [f"/v2/app/blobs/{made.config.digest}"]
            assert not other.requests[0].authorization
        finally:
            other.close()

    def test_an_upload_is_cut(self, registry: Registry, proxy: FaultyProxy) -> None:
        made = put_image(registry, "app", "1", [layer(200_000)])
        source = f"docker://{registry.address}/app:1"
        arguments = ("--src-tls-verify=false", "--dest-tls-verify=false", source)
        target = f"docker://{proxy.address}/other:1"
        proxy.fault(faulty_proxy.CutUpload(100_000))
        assert run(["skopeo", "copy", *arguments, target], check=False).code != 0
        skopeo("copy", *arguments, target)
        assert registry.manifest("other", "1").body == made.manifest.data
        assert proxy.received("/blobs/uploads/") > 200_000

    def test_tls_before_a_plain_registry(
        self, registry: Registry, certificates: Certificates, tmp_path: object
    ) -> None:
        proxy = FaultyProxy(registry, certificates=certificates, host="127.0.0.1")
        try:
            put_image(registry, "app", "1", [layer(200_000)])
            source = f"docker://{registry.address}/app:1"
            certificates.trust(f"{tmp_path}/certs.d", proxy.address)
            trusted = f"--dest-cert-dir={tmp_path}/certs.d/{proxy.address}"
            target = f"docker://{proxy.address}/copy:1"
            skopeo("copy", "--src-tls-verify=false", trusted, source, target)
            assert registry.tags("copy") == ["1"]
        finally:
            proxy.close()
