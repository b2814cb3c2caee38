"""What a container uses: the documents of `stats`, and what the docker command makes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine

NEVER = "0001-01-01T00:00:00Z"


def stats(target: Engine, name: str, query: str) -> dict[str, Any]:
    answer = target.get(f"/v1.41/containers/{name}/stats?{query}")
    assert answer.status == 200, answer
    document: dict[str, Any] = answer.json
    return document


@pytest.mark.vm
def test_one_second(docker: DockerCLI, target: Engine, unused_name: str) -> None:
    """A container that computes uses about one CPU, also as the command shows it."""
    docker("run", "-d", "--name", unused_name, "--network", "none", "--memory", "64m",
           "--pids-limit", "50", IMAGE, "sh", "-c", "while :; do :; done")  # fmt: skip
    document = stats(target, unused_name, "stream=false")
    now, before = document["cpu_stats"], document["precpu_stats"]
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    # How much of one second it got is the machine's business, and an emulated one counts its ticks badly.
    passed = (now["system_cpu_usage"] - before["system_cpu_usage"]) / now["online_cpus"]
    assert 0 < used < now["cpu_usage"]["total_usage"]
    assert used < 2 * passed
    assert document["read"] > document["preread"] > NEVER
    assert document["memory_stats"]["limit"] == 64 << 20
    assert 0 < document["memory_stats"]["usage"] < 64 << 20
    assert document["pids_stats"] == {"current": 1, "limit": 50}
    assert document["name"] == f"/{unused_name}"
    assert "networks" not in document
    shown = json.loads(docker("stats", "--no-stream", "--format", "{{json .}}", unused_name).line)
    assert float(shown["CPUPerc"].rstrip("%")) > 0
    assert shown["MemUsage"].endswith(" / 64MiB")
    assert (shown["Name"], shown["PIDs"]) == (unused_name, "1")


def test_one_shot(docker: DockerCLI, target: Engine, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, "sleep", "600")
    document = stats(target, unused_name, "stream=false&one-shot=true")
    assert document["preread"] == NEVER
    assert document["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert "system_cpu_usage" not in document["precpu_stats"]
    both = target.get(f"/v1.41/containers/{unused_name}/stats?stream=true&one-shot=true")
    assert (both.status, both.message) == (400, "cannot have stream=true and one-shot=true")


def test_of_one_that_does_not_run(docker: DockerCLI, target: Engine, unused_name: str) -> None:
    docker("create", "--name", unused_name, IMAGE, "true")
    document = stats(target, unused_name, "stream=false")
    assert (document["read"], document["memory_stats"], document["pids_stats"]) == (NEVER, {}, {})
    assert document["blkio_stats"]["io_service_bytes_recursive"] is None
    missing = target.get("/v1.41/containers/nosuch/stats?stream=false")
    assert (missing.status, missing.message) == (404, "No such container: nosuch")


def test_stream(docker: DockerCLI, target: Engine, unused_name: str) -> None:
    """A document a second, each with the one before in it; the removal ends it."""
    docker("run", "-d", "--name", unused_name, "--network", "none", IMAGE, "sleep", "600")
    documents = target.client().containers.get(unused_name).stats(decode=True)
    first, second = next(documents), next(documents)
    assert first["preread"] == NEVER
    assert second["preread"] == first["read"]
    assert second["precpu_stats"] == first["cpu_stats"]
    docker("rm", "-f", unused_name)
    assert len(list(documents)) < 3


def test_network_counters(docker: DockerCLI, target: Engine, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, "sleep", "600")
    docker("exec", unused_name, "ping", "-c", "1", "-W", "1", "192.0.2.1", check=False)
    [(device, counters)] = stats(target, unused_name, "stream=false&one-shot=1")["networks"].items()
    assert device == "eth0"
    assert counters["tx_bytes"] > 0
    kinds = ("bytes", "packets", "errors", "dropped")
    assert set(counters) == {f"{way}_{kind}" for way in ("rx", "tx") for kind in kinds}
    old = target.get(f"/v1.20/containers/{unused_name}/stats?stream=false").json
    assert "networks" not in old
    assert old["network"]["tx_bytes"] > 0
