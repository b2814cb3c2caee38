"""docker-py drives the engine unchanged."""

from __future__ import annotations

import io
from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

from support.engines import IMAGE, Engine
from support.http import demultiplex
from support.rootfs import rootfs_tar
from support.waiting import wait_for


@pytest.fixture
def client(target: Engine) -> Iterator[docker.DockerClient]:
    client = target.client()
    yield client
    client.close()


def test_run(client: docker.DockerClient) -> None:
    assert client.containers.run(IMAGE, ["echo", "hello"], remove=True) == b"hello\n"
    with pytest.raises(ContainerError) as raised:
        client.containers.run(IMAGE, ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert raised.value.exit_status == 3
    with pytest.raises(ImageNotFound):
        client.containers.create("nosuch:x")


def test_container(client: docker.DockerClient, unused_name: str) -> None:
    container = client.containers.run(
        IMAGE, "sleep 600", name=unused_name, detach=True, environment={"A": "1"}, labels={"k": "v"}, mem_limit="64m",
        nano_cpus=500_000_000, cap_add=["SYS_PTRACE"], tmpfs={"/scratch": "size=1m"}, network_mode="none", init=True,
    )  # fmt: skip
    assert container.status in ("created", "running")
    container.reload()
    assert container.status == "running"
    assert container.attrs["HostConfig"]["Memory"] == 64 << 20
    assert container.image.tags == [IMAGE]
    assert client.containers.list(filters={"label": "k=v"}) == [container]
    code, output = container.exec_run(["sh", "-c", "echo $A; exit 4"])
    assert (code, output) == (4, b"1\n")
    code, output = container.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True)
    assert output == (b"out\n", b"err\n")
    container.pause()
    container.unpause()
    container.rename(unused_name + "x")
    assert "sleep 600" in str(container.top()["Processes"])
    container.restart(timeout=0)
    container.kill()
    assert container.wait()["StatusCode"] == 137
    container.remove()
    with pytest.raises(NotFound):
        client.containers.get(unused_name + "x")


def test_logs(client: docker.DockerClient) -> None:
    container = client.containers.run(IMAGE, ["seq", "1", "5"], detach=True)
    container.wait()
    assert container.logs() == b"1\n2\n3\n4\n5\n"
    assert container.logs(tail=2) == b"4\n5\n"
    assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n4\n5\n"
    assert container.logs(stdout=False, stderr=True) == b""
    container.remove()


def test_exec_socket(client: docker.DockerClient) -> None:
    container = client.containers.run(IMAGE, ["sleep", "60"], detach=True)
    _, sock = container.exec_run(["cat"], stdin=True, socket=True)
    raw = sock._sock
    raw.sendall(b"hello\n")
    data = b""
    while len(data) < 14:
        data += raw.recv(100)
    assert demultiplex(data) == (b"hello\n", b"")
    sock.close()
    raw.close()
    container.remove(force=True)


def test_attach_socket(client: docker.DockerClient) -> None:
    container = client.containers.create(IMAGE, ["cat"], stdin_open=True, tty=False)
    sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    raw = sock._sock
    raw.sendall(b"x\n")
    data = b""
    while len(data) < 10:
        data += raw.recv(100)
    assert demultiplex(data) == (b"x\n", b"")
    sock.close()
    raw.close()
    container.remove(force=True)


def test_images(client: docker.DockerClient, unused_name: str) -> None:
    client.api.import_image_from_data(rootfs_tar(), repository=unused_name, tag="one")
    image = client.images.get(f"{unused_name}:one")
    assert image.tags == [f"{unused_name}:one"]
    assert image.tag(unused_name, "two")
    saved = b"".join(image.save(named=f"{unused_name}:one"))
    client.images.remove(f"{unused_name}:one")
    client.images.remove(f"{unused_name}:two")
    with pytest.raises(ImageNotFound):
        client.images.get(f"{unused_name}:one")
    [loaded] = client.images.load(io.BytesIO(saved))
    assert loaded.id == image.id
    client.images.remove(f"{unused_name}:one")


def test_errors_are_explained(client: docker.DockerClient, unused_name: str) -> None:
    client.containers.create(IMAGE, name=unused_name)
    with pytest.raises(APIError) as raised:
        client.containers.create(IMAGE, name=unused_name)
    assert raised.value.status_code == 409
    assert "Conflict. The container name" in raised.value.explanation


def test_events(client: docker.DockerClient) -> None:
    events = client.events(decode=True, filters={"event": "create"})
    container = client.containers.create(IMAGE)
    assert next(events)["Actor"]["ID"] == container.id
    events.close()


def test_info_and_ping(client: docker.DockerClient) -> None:
    assert client.ping()
    assert client.info()["Containers"] == 0
    assert client.version()["ApiVersion"]


def test_auto_remove(client: docker.DockerClient) -> None:
    host = client.api.create_host_config(auto_remove=True)
    identity = client.api.create_container(IMAGE, "true", host_config=host)["Id"]
    client.api.start(identity)

    def gone() -> bool:
        return identity not in [other["Id"] for other in client.api.containers(all=True)]

    wait_for(gone, "the container to be removed")


def test_prune(client: docker.DockerClient) -> None:
    container = client.containers.create(IMAGE)
    assert client.containers.prune()["ContainersDeleted"] == [container.id]
