"""A pull that is interrupted: by `kill -9` of the daemon, by its client, by the registry's end.

The bytes are counted where they come from.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from support.command import run
from support.engines import SampanEngine
from support.faulty_proxy import Cut, FaultyProxy, Stall, StallHead
from support.registries import Registry
from support.registry_images import Made, layer, put_image
from support.rootfs import rootfs_tar
from support.waiting import wait_for

# Less than this may be lost of a layer that was arriving: what was not written yet.
UNWRITTEN = 3 << 20


@pytest.fixture
def proxy(registry: Registry) -> Iterator[FaultyProxy]:
    made = FaultyProxy(registry)
    yield made
    made.close()


def put(registry: Registry) -> Made:
    layers = [rootfs_tar(), layer(20_000_000, seed=7), layer(3_000_000, seed=8), layer(10, seed=9)]
    return put_image(registry, "team/app", "v1", layers)


def size_of(made: Made) -> int:
    return sum(len(blob.data) for blob in made.layers)


def pull(engine: SampanEngine, proxy: FaultyProxy) -> list[dict[str, Any]]:
    name = f"{proxy.address}/team/app"
    answer = engine.request("POST", "/images/create", query={"fromImage": name, "tag": "v1"})
    assert answer.status == 200, answer
    return [json.loads(line) for line in answer.body.splitlines()]


def pull_in_background(engine: SampanEngine, proxy: FaultyProxy) -> threading.Thread:
    def work() -> None:
        try:
            pull(engine, proxy)
        except (OSError, AssertionError, ValueError, EOFError):
            return  # the daemon is killed under it

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def partial_bytes(engine: SampanEngine) -> int:
    ingest = os.path.join(engine.data_root, "ingest")
    names = [name for name in os.listdir(ingest) if name.startswith("sha256-")]
    return sum(os.path.getsize(os.path.join(ingest, name)) for name in names)


def expect_runs(engine: SampanEngine, proxy: FaultyProxy) -> None:
    body = {"Image": f"{proxy.address}/team/app:v1", "Cmd": ["true"], "HostConfig": {}}
    identity = engine.post("/containers/create", body).json["Id"]
    assert engine.post(f"/containers/{identity}/start").status == 204
    assert engine.post(f"/containers/{identity}/wait").json["StatusCode"] == 0
    assert engine.delete(f"/containers/{identity}").status == 204
    assert partial_bytes(engine) == 0


def test_a_killed_daemon_goes_on_where_it_was(
    own_sampan: SampanEngine, registry: Registry, proxy: FaultyProxy
) -> None:
    made = put(registry)
    engine = own_sampan
    for _ in range(3):
        before = partial_bytes(engine)
        proxy.reset()
        proxy.fault(Stall(4_000_000), path=made.layers[1].digest)
        pulling = pull_in_background(engine, proxy)
        wait_for(lambda before=before: partial_bytes(engine) > before, "bytes on the disk")
        wait_for(lambda: proxy.count(made.layers[1].digest) > 0, "the layer to be asked for")
        engine.kill()
        pulling.join(10)
        proxy.heal()
        engine.start()
        assert engine.get("/images/json").json[0]["RepoTags"] == ["busybox:test"]
    had = partial_bytes(engine)
    assert had > 0
    proxy.reset()
    found = pull(engine, proxy)
    assert found[-1]["status"].startswith("Status: Downloaded newer image")
    assert proxy.sent("/blobs/") == size_of(made) + len(made.config.data) - had
    expect_runs(engine, proxy)


def test_little_is_lost(own_sampan: SampanEngine, registry: Registry, proxy: FaultyProxy) -> None:
    """Of what the registry had sent when the daemon died, all but a few MiB is there."""
    made = put(registry)
    engine = own_sampan
    proxy.fault(Stall(19_000_000), path=made.layers[1].digest)
    pulling = pull_in_background(engine, proxy)
    proxy.wait_sent(size_of(made) - 1_100_000, "/blobs/")
    sent = proxy.sent("/blobs/") - len(made.config.data)
    wait_for(lambda: partial_bytes(engine) > sent - UNWRITTEN, "what came to be on the disk")
    engine.kill()
    pulling.join(10)
    proxy.heal()
    engine.start()
    had = partial_bytes(engine)
    proxy.reset()
    pull(engine, proxy)
    assert proxy.sent("/blobs/") == size_of(made) + len(made.config.data) - had
    expect_runs(engine, proxy)


def test_a_client_that_leaves_ends_the_pull(
    own_sampan: SampanEngine, registry: Registry, proxy: FaultyProxy
) -> None:
    made = put(registry)
    engine = own_sampan
    proxy.fault(Stall(10_000_000), path=made.layers[1].digest)
    with engine.connect() as connection:
        name = f"{proxy.address}/team/app"
        connection.start("POST", "/images/create", query={"fromImage": name, "tag": "v1"})
        connection.read_head()
        wait_for(lambda: partial_bytes(engine) > 10_000_000 - UNWRITTEN, "bytes on the disk")
    wait_for(lambda: not open_partials(engine), "the engine to let go of the download")
    assert engine.get("/images/json").json[0]["RepoTags"] == ["busybox:test"]
    proxy.heal()
    had = partial_bytes(engine)
    assert had > 10_000_000 - UNWRITTEN
    proxy.reset()
    pull(engine, proxy)
    assert proxy.sent("/blobs/") == size_of(made) + len(made.config.data) - had
    expect_runs(engine, proxy)


def open_partials(engine: SampanEngine) -> list[str]:
    assert engine.process is not None
    directory = f"/proc/{engine.process.pid}/fd"
    targets = []
    for name in os.listdir(directory):
        try:
            targets.append(os.readlink(os.path.join(directory, name)))
        except FileNotFoundError:
            continue
    return [target for target in targets if "/ingest/sha256-" in target]


def test_a_registry_that_is_restarted(
    own_sampan: SampanEngine, registry: Registry, proxy: FaultyProxy
) -> None:
    made = put(registry)
    proxy.fault(Cut(5_000_000, reset=True), path=made.layers[1].digest)
    found = pull(own_sampan, proxy)
    assert found[-1]["status"].startswith("Status: Downloaded newer image")
    assert any(message["status"] == "Retrying in 1 second" for message in found)
    expect_runs(own_sampan, proxy)


def test_a_client_that_leaves_before_the_first_word(
    own_sampan: SampanEngine, registry: Registry, proxy: FaultyProxy
) -> None:
    """A registry that says nothing does not keep a request, or the daemon's end, for a minute."""
    put(registry)
    proxy.fault(StallHead(), path="/manifests/", times=None)
    name = f"{proxy.address}/team/app"
    with own_sampan.connect() as connection:
        connection.start("POST", "/images/create", query={"fromImage": name, "tag": "v1"})
        wait_for(lambda: proxy.count("/manifests/") > 0, "the registry to be asked")
    wait_for(lambda: proxy.address not in connections(own_sampan), "the connection to be closed")


def connections(engine: SampanEngine) -> str:
    """The remote ends of the TCP connections that the daemon has."""
    assert engine.process is not None
    lines = run(["ss", "-Htnp", "state", "established"]).out.splitlines()
    return "\n".join(line for line in lines if f"pid={engine.process.pid}," in line)
