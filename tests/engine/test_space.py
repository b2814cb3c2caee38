"""`system df --why`, the account of the data root, pins and the disk budget, on a running engine."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

import pytest

from support.accounts import expect_all_accounted
from support.command import DockerCLI
from support.engines import IMAGE, SampanEngine
from support.rootfs import image_tar, rootfs_tar
from support.tars import archive, file
from support.waiting import wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def sampan_cli(own_sampan: SampanEngine) -> DockerCLI:
    return own_sampan.cli(os.path.join(os.path.dirname(sys.executable), "sampan"))


def load(engine: SampanEngine, name: str) -> str:
    layers = [rootfs_tar(), archive([file(f"{name}.bin", name.encode() * 50_000)])]
    answer = engine.request("POST", "/images/load", raw=image_tar(f"{name}:1", layers))
    assert b'"error"' not in answer.body
    return str(engine.get(f"/images/{name}:1/json").json["Id"])


def why(engine: SampanEngine, wanted: str) -> dict[str, Any]:
    [found] = engine.get("/system/df/why", object=wanted).json["Objects"]
    return dict(found)


def holders(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(holder["Kind"], holder["Text"]) for holder in found["HeldBy"]]


def test_why(own_sampan: SampanEngine, sampan_cli: DockerCLI) -> None:
    engine = own_sampan
    identity = load(engine, "one")
    load(engine, "two")
    body = {"Image": "one:1", "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "none"}}
    container = engine.post("/containers/create", body, name="box").json["Id"]
    engine.post("/containers/box/start")
    found = why(engine, "one:1")
    assert (found["Kind"], found["Id"]) == ("image", identity)
    assert holders(found) == [("name", "one:1"), ("container", "box (running)")]
    assert 100_000 < found["FreedBytes"] < found["Bytes"]
    shared, own = engine.get("/images/one:1/json").json["RootFS"]["Layers"]
    [layer, blob] = engine.get("/system/df/why", object=shared).json["Objects"]
    assert (layer["Kind"], blob["Kind"]) == ("layer", "blob")  # a plain blob has the layer's name
    images = [("image", "one:1"), ("image", "two:1")]
    imported = ("image", IMAGE)  # its blob is compressed
    assert sorted(holders(layer)) == [("container", "box (running)"), imported, *images]
    assert sorted(holders(blob)) == images
    assert why(engine, f"{engine.data_root}/layers/{shared[7:]}/fs/bin")["Id"] == shared
    assert why(engine, "box")["Bytes"] > 0
    assert why(engine, f"{engine.data_root}/active/{container}/upper")["Id"] == container
    assert why(engine, f"{engine.data_root}/engine.db-wal")["Kind"] == "engine"
    bad = [
        "nope",
        "/",
        "/etc/passwd",
        f"{engine.data_root}/../x",
        "sha256:",
        "\0",
        "a" * 5000,
        "host",
    ]
    answers = {text[:20]: engine.get("/system/df/why", object=text).status for text in bad}
    assert answers.pop("host") == 200 and set(answers.values()) == {404}, answers
    link = f"{engine.data_root}/layers/{shared[7:]}/fs/bin/sh"
    assert os.path.islink(link) and why(engine, link)["Id"] == shared
    missing = f"{engine.data_root}/blobs/sha256/{'0' * 64}"
    assert engine.get("/system/df/why", object=missing).status == 404
    assert engine.get("/system/df/why").status == 400
    told = sampan_cli("system", "df", "--why", "box").out
    assert told.startswith(f"container {container} (box): ") and "it runs" in told
    told = sampan_cli("system", "df", "--why", own).out
    assert f"layer {why_chain(shared, own)}" in told and "held by container" in told
    engine.delete("/containers/box", force=1)
    assert "`rmi`" in why(engine, "one:1")["Goes"]


def why_chain(below: str, diff_id: str) -> str:
    import hashlib

    return "sha256:" + hashlib.sha256(f"{below} {diff_id}".encode()).hexdigest()


def test_an_operation_is_named_and_its_files_too(own_sampan: SampanEngine) -> None:
    """A load that stalls: what it wrote belongs to it, and goes when the client goes."""
    engine = own_sampan
    before = engine.get("/system/df/account").json["Kinds"]
    go_on = threading.Event()
    data = image_tar("slow:1", [archive([file("big", os.urandom(3 << 20))])])

    def body() -> Any:
        yield data[: 2 << 20]
        go_on.wait(30)
        raise ConnectionError("the client goes")

    def send() -> None:
        try:
            engine.request("POST", "/images/load", raw=body())
        except OSError:
            pass

    client = threading.Thread(target=send)
    client.start()
    try:
        ingest = os.path.join(engine.data_root, "ingest")
        names = wait_for(
            lambda: [n for n in os.listdir(ingest) if os.path.getsize(f"{ingest}/{n}") > 1 << 20],
            "the load to write",
        )
        found = why(engine, f"{ingest}/{names[0]}")
        assert found["Kind"] == "operation"
        assert found["HeldBy"][0]["Text"].startswith("load, since ")
        account = engine.get("/system/df/account").json
        assert account["Unowned"] == [] and account["Kinds"]["operation"]["Bytes"] > 1 << 20
        load(engine, "other")  # nothing waits for the one that stalls
        assert engine.delete("/images/other:1").status == 200
    finally:
        go_on.set()
        client.join()
    account = expect_all_accounted(engine)
    assert account["Kinds"]["blob"] == before["blob"]


def test_downloads_are_told(own_sampan: SampanEngine, sampan_cli: DockerCLI) -> None:
    engine = own_sampan
    digits = "ab" * 32
    with open(f"{engine.data_root}/ingest/sha256-{digits}", "wb") as partial:
        partial.write(b"x" * 123_456)
    found = why(engine, digits[:12])
    assert (found["Kind"], found["Bytes"]) == ("download", 123_456)
    assert "the next pull goes on with it" in found["Goes"]
    assert "Downloads that broke off: 1, 123.5kB" in sampan_cli("system", "df").out
    account = expect_all_accounted(engine)
    assert account["Kinds"]["download"]["Bytes"] == 123_456


def test_what_is_foreign_is_told(own_sampan: SampanEngine, sampan_cli: DockerCLI) -> None:
    engine = own_sampan
    with open(f"{engine.data_root}/mine", "wb") as mine:
        mine.write(b"x")
    assert engine.get("/system/df/account").json["Unowned"] == ["unknown mine"]
    assert "left alone" in why(engine, f"{engine.data_root}/mine")["Goes"]
    assert "needed by nothing: unknown mine" in sampan_cli(
        "system", "df", "--why", engine.data_root
    ).out  # fmt: skip


def test_the_budget_of_a_running_engine(own_sampan: SampanEngine, sampan_cli: DockerCLI) -> None:
    """SIGHUP reads it again; pinned and used images stay, events tell what went."""
    engine = own_sampan
    engine.terminate()
    path = f"{engine.directory}/daemon.json"
    with open(path, "w") as config:
        config.write("{}")
    engine.start("--config-file", path)
    for name in ("one", "two", "three", "four"):
        load(engine, name)
    sampan_cli("image", "pin", "one:1", "two:1")
    sampan_cli("image", "unpin", "two:1")
    body = {"Image": "three:1", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    assert engine.post("/containers/create", body, name="box").status == 201
    with open(path, "w") as config:
        json.dump({"disk-budget": "1kB"}, config)
    assert engine.process is not None
    engine.process.send_signal(signal.SIGHUP)

    def tags() -> list[str]:
        return sorted(tag for i in engine.get("/images/json").json for tag in i["RepoTags"])

    left = ["four:1", "one:1", "three:1"]  # the one used last stays, too
    wait_for(lambda: tags() == left, "the images to go")
    assert ("pin", "pinned: the disk budget leaves it alone") in holders(why(engine, "one:1"))
    events = engine.get("/events", since=0, until=f"{time.time():.3f}", filters={"type": ["image"]})
    assert events.body.count(b'"Action":"delete"') == 2  # two:1 and busybox:test
    expect_all_accounted(engine)
    assert sampan_cli.fails("image", "pin", "host").err


def test_volumes(own_sampan: SampanEngine, sampan_cli: DockerCLI) -> None:
    engine = own_sampan
    script = "head -c 4321 /dev/zero > /v/data"
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], "HostConfig": {"Binds": ["kept:/v"]}}
    engine.post("/containers/create", body, name="box")
    engine.post("/containers/box/start")
    engine.post("/containers/box/wait")
    found = why(engine, "kept")
    assert (found["Kind"], found["Bytes"]) == ("volume", 4321)
    assert holders(found) == [("container", "box (exited)")]
    assert why(engine, f"{engine.data_root}/volumes/kept/_data/data")["Id"] == "kept"
    lines = sampan_cli("system", "df").out.splitlines()
    assert lines[3].split() == ["Local", "Volumes", "1", "1", "4.321kB", "0B", "(0%)"]
    assert "kept          1         4.321kB" in sampan_cli("system", "df", "-v").out
    os.mkdir(f"{engine.data_root}/volumes/foreign")
    assert engine.get("/system/df/account").json["Unowned"] == ["volume foreign"]
    os.rmdir(f"{engine.data_root}/volumes/foreign")
    engine.remove_containers()
    assert "no container has it" in why(engine, "kept")["Goes"]
    assert engine.delete("/volumes/kept").status == 204
    expect_all_accounted(engine)
