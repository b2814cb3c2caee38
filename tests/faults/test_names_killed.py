"""The death of who answers about names, and of who tells what to answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from support.command import DockerCLI, docker_clis
from support.engines import IMAGE, SampanEngine
from support.waiting import wait_for

NETWORK = "names-killed"
NAMES = ("s0", "s1", "s2", "s3")


@pytest.fixture
def cli(own_sampan: SampanEngine) -> Iterator[DockerCLI]:
    cli = own_sampan.cli(next(iter(docker_clis().values())))
    cli("network", "create", NETWORK)
    yield cli
    own_sampan.remove_containers()
    cli("network", "rm", NETWORK)


def start(cli: DockerCLI, name: str, script: str = "exec sleep 1000") -> None:
    cli("run", "-d", "--name", name, "--network", NETWORK, IMAGE, "sh", "-c", script)


def finds(cli: DockerCLI, asking: str, name: str) -> bool:
    return f"Name:\t{name}\n" in cli("exec", asking, "busybox", "nslookup", name, check=False).out


ASKS = "while busybox nslookup other >/found; do :; done; echo lost >/lost; exec sleep 1000"


def test_names_are_found_while_no_daemon_runs(own_sampan: SampanEngine, cli: DockerCLI) -> None:
    """One container asks all the time; it is answered through ends and kills of the daemon."""
    engine = own_sampan
    start(cli, "other")
    start(cli, "asking", ASKS)
    [resolver] = engine.resolver_pids()
    for end in (engine.kill, engine.terminate, engine.kill):
        end()
        assert engine.resolver_pids() == [resolver]
        engine.start()
    start(cli, "later")
    assert finds(cli, "later", "asking") and finds(cli, "asking", "later")
    assert engine.resolver_pids() == [resolver]
    assert cli("exec", "asking", "ls", "/").out.split().count("lost") == 0


def test_a_resolver_that_dies_is_replaced(own_sampan: SampanEngine, cli: DockerCLI) -> None:
    """By the daemon that runs, or by the next one; its successor knows all."""
    engine = own_sampan
    start(cli, "other")
    start(cli, "asking")
    for daemon_runs in (True, False):
        [former] = engine.resolver_pids()
        if not daemon_runs:
            engine.kill()
        os.kill(former, signal.SIGKILL)
        if not daemon_runs:
            wait_for(lambda: not engine.resolver_pids(), "the resolver to be gone")
            engine.start()
        wait_for(lambda: engine.resolver_pids() not in ([], [former]), "another resolver")  # noqa: B023
        wait_for(lambda: finds(cli, "asking", "other"), "the name to be found")
        assert finds(cli, "other", "asking")


def test_a_daemon_killed_in_the_middle_of_starts(own_sampan: SampanEngine, cli: DockerCLI) -> None:
    """Whatever runs afterwards is found, and what does not is not."""
    engine = own_sampan
    start(cli, "asking")
    for name in NAMES:
        cli("create", "--name", name, "--network", NETWORK, IMAGE, "sleep", "1000")
    with cli.background("start", *NAMES) as starting:
        wait_for(
            lambda: engine.get("/containers/s1/json").json["State"]["Running"], "the second to run"
        )
        engine.kill()
        starting.communicate()
    engine.start()
    running = {
        name: engine.get(f"/containers/{name}/json").json["State"]["Running"] for name in NAMES
    }
    assert running["s0"] and running["s1"]
    for name, runs in running.items():
        assert not runs or (finds(cli, "asking", name) and finds(cli, name, "asking")), name


def test_it_ends_with_the_engine(own_sampan: SampanEngine, cli: DockerCLI) -> None:
    start(cli, "other")
    assert own_sampan.resolver_pids()
    cli("rm", "-f", "other")
    own_sampan.terminate()
    wait_for(lambda: not own_sampan.resolver_pids(), "the resolver to end")
    assert not os.path.exists(f"{own_sampan.exec_root}/names.sock")
    own_sampan.start()
