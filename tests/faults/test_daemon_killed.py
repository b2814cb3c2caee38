"""`kill -9` of the daemon: containers go on, and a new daemon knows all about them."""

from __future__ import annotations

import json
import os
import shutil
import threading
from typing import Any

import pytest

from support.command import DockerCLI, docker_clis
from support.engines import IMAGE, SampanEngine, parent
from support.http import demultiplex
from support.waiting import wait_for

COUNT = "i=0; while true; do echo $i; i=$((i+1)); usleep 1000; done"


def cli(engine: SampanEngine) -> DockerCLI:
    return engine.cli(next(iter(docker_clis().values())))


def state(engine: SampanEngine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.get(f"/containers/{name}/json").json["State"]
    return found


def start(engine: SampanEngine, name: str, script: str, **host: Any) -> str:
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], "OpenStdin": True, "HostConfig": host}
    identity = engine.post("/containers/create", body, name=name).json["Id"]
    assert engine.post(f"/containers/{name}/start").status == 204
    return str(identity)


def restart_daemon(engine: SampanEngine, while_down: Any = lambda: None) -> None:
    engine.kill()
    while_down()
    engine.start()


@pytest.mark.vm
def test_states_exit_codes_and_names(own_sampan: SampanEngine) -> None:
    engine = own_sampan
    shared = os.path.join(engine.directory, "shared")
    os.mkdir(shared)
    binds = {"Binds": [f"{shared}:/shared"]}
    start(engine, "running", "sleep 600")
    start(
        engine,
        "ending",
        "until test -e /shared/go; do usleep 5000; done; echo last; touch /shared/gone; exit 7",
        **binds,
    )
    start(
        engine,
        "removed",
        "until test -e /shared/go; do usleep 5000; done; exit 8",
        AutoRemove=True,
        **binds,
    )
    start(engine, "ended", "exit 9")
    engine.post("/containers/ended/wait")
    start(engine, "paused", "sleep 600")
    engine.post("/containers/paused/pause")
    engine.post("/containers/create", {"Image": IMAGE}, name="created")
    before = {name: state(engine, name) for name in ("running", "ended", "paused", "created")}
    pid = state(engine, "ending")["Pid"]

    def let_go() -> None:
        with open(os.path.join(shared, "go"), "w"):
            pass
        wait_for(
            lambda: not os.path.exists(f"/proc/{pid}"), "the container to end while no daemon runs"
        )

    restart_daemon(engine, let_go)
    for name, found in before.items():
        assert state(engine, name) == found, name
    ending = state(engine, "ending")
    assert (ending["Status"], ending["ExitCode"], ending["Pid"]) == ("exited", 7, 0)
    assert cli(engine)("logs", "ending").out == "last\n"
    wait_for(lambda: engine.get("/containers/removed/json").status == 404, "the automatic removal")
    names = [entry["Names"][0] for entry in engine.get("/containers/json", all=1).json]
    assert sorted(names) == ["/created", "/ended", "/ending", "/paused", "/running"]
    assert engine.post("/containers/paused/unpause").status == 204
    assert engine.post("/containers/create", {"Image": IMAGE}, name="running").status == 409
    assert engine.post("/containers/ended/start").status == 204
    assert engine.post("/containers/ended/wait").json["StatusCode"] == 9


def test_no_line_is_lost(own_sampan: SampanEngine) -> None:
    engine = own_sampan
    docker = cli(engine)
    start(engine, "counter", COUNT)
    for _ in range(2):
        seen = len(docker("logs", "counter").out)
        restart_daemon(engine)
        wait_for(lambda seen=seen: len(docker("logs", "counter").out) > seen, "the log to grow")
    docker("kill", "counter")
    docker("wait", "counter")
    lines = docker("logs", "counter").out.split()
    assert len(lines) > 10
    assert lines == [str(number) for number in range(len(lines))]


def test_an_attached_client_stays_attached(own_sampan: SampanEngine) -> None:
    engine = own_sampan
    start(engine, "echo", "while read line; do echo got $line; done")
    with engine.connect() as connection:
        connection.hijack("/containers/echo/attach", query={"stream": 1, "stdin": 1, "stdout": 1})
        connection.sock.sendall(b"one\n")
        while b"got one" not in connection.buffer:
            assert connection.fill()
        engine.kill()
        connection.sock.sendall(b"two\n")
        while b"got two" not in connection.buffer:
            assert connection.fill()
        engine.start()
        connection.sock.sendall(b"three\n")
        while b"got three" not in connection.buffer:
            assert connection.fill()
        assert demultiplex(connection.buffer)[0] == b"got one\ngot two\ngot three\n"
    assert cli(engine)("logs", "echo").out == "got one\ngot two\ngot three\n"


def test_an_exec_under_way_ends_as_it_should(own_sampan: SampanEngine) -> None:
    engine = own_sampan
    start(engine, "box", "sleep 600")
    body = {
        "Cmd": ["sh", "-c", "echo before; read line; echo after $line; exit 5"],
        "AttachStdin": True,
        "AttachStdout": True,
    }
    identity = engine.post("/containers/box/exec", body).json["Id"]
    with engine.connect() as connection:
        connection.hijack(f"/exec/{identity}/start", body={"Detach": False, "Tty": False})
        while b"before" not in connection.buffer:
            assert connection.fill()
        restart_daemon(engine)
        connection.sock.sendall(b"restart\n")
        assert demultiplex(b"".join(connection.rest())) == (b"before\nafter restart\n", b"")


def test_attach_exec_wait_stop_work_again(own_sampan: SampanEngine) -> None:
    engine = own_sampan
    docker = cli(engine)
    start(engine, "box", "trap 'exit 4' TERM; echo ready; while true; do usleep 10000; done")
    wait_for(lambda: docker("logs", "box").out == "ready\n", "the trap")
    pid = state(engine, "box")["Pid"]
    restart_daemon(engine)
    assert state(engine, "box")["Pid"] == pid
    assert docker("exec", "-i", "box", "cat", stdin="through\n").out == "through\n"
    assert "sh -c trap" in docker("top", "box").out
    waiting = docker.background("wait", "box")
    following = docker.background("logs", "-f", "box")
    try:
        assert following.stdout is not None
        assert following.stdout.readline() == b"ready\n"
        docker("stop", "box")
        assert waiting.wait(timeout=60) == 0
        assert following.wait(timeout=60) == 0
    finally:
        for process in (waiting, following):
            process.kill()
            process.communicate()
    assert state(engine, "box")["ExitCode"] == 4


def test_addresses_are_kept(own_sampan: SampanEngine) -> None:
    """A new daemon gives no address away that a running container has."""
    engine = own_sampan
    docker = cli(engine)
    start(engine, "one", "sleep 600")
    before = json.loads(docker("inspect", "one").out)[0]["NetworkSettings"]["IPAddress"]
    restart_daemon(engine)
    start(engine, "two", "sleep 600")
    after = [
        json.loads(docker("inspect", name).out)[0]["NetworkSettings"]["IPAddress"]
        for name in ("one", "two")
    ]
    assert after[0] == before
    assert after[1] != before
    docker("exec", "two", "ping", "-c", "1", "-W", "2", before)


def test_the_shim_dies_while_no_daemon_runs(own_sampan: SampanEngine) -> None:
    engine = own_sampan
    start(engine, "box", "sleep 600")
    pid = state(engine, "box")["Pid"]
    shim = parent(pid)

    def kill_shim() -> None:
        os.kill(shim, 9)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the container to die with its shim")

    restart_daemon(engine, kill_shim)
    found = state(engine, "box")
    assert found["Status"] == "exited"
    assert found["ExitCode"] in (137, 255)  # nobody saw it end
    assert engine.post("/containers/box/start").status == 204


def test_sigterm_leaves_containers_running(own_sampan: SampanEngine) -> None:
    engine = own_sampan
    start(engine, "box", "sleep 600")
    pid = state(engine, "box")["Pid"]
    assert engine.terminate() == 0
    assert os.path.exists(f"/proc/{pid}")
    assert not os.path.exists(engine.socket)
    engine.start()
    assert state(engine, "box")["Pid"] == pid


def test_killed_in_the_middle_of_starts(own_sampan: SampanEngine) -> None:
    """Whatever was begun is either a container that runs or one that does not, and can be removed."""
    engine = own_sampan

    def begin(number: int) -> None:
        try:
            start(engine, f"c{number}", "sleep 600")
        except (OSError, AssertionError, ConnectionError):
            return  # the daemon died under the request

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(engine.remains()["shims"]) >= 2, "the first containers to start")
    engine.kill()
    for thread in threads:
        thread.join()
    engine.start()
    for entry in engine.get("/containers/json", all=1).json:
        found = state(engine, entry["Id"])
        assert found["Status"] in ("running", "created", "exited"), found
        assert found["Running"] == (found["Pid"] != 0 and os.path.exists(f"/proc/{found['Pid']}"))
        if found["Running"]:
            shown = engine.get(f"/containers/{entry['Id']}/json").json["NetworkSettings"]
            address = shown["Networks"]["bridge"]["IPAddress"]
            assert address, "the address of a start that nobody noted is known all the same"
            with open(f"/proc/{found['Pid']}/net/fib_trie", encoding="ascii") as routes:
                assert f"|-- {address}\n" in routes.read()
    engine.remove_containers()
    try:
        wait_for(lambda: not any(engine.remains().values()), "everything to be gone")
    except AssertionError as error:
        raise AssertionError(f"{error}: {engine.remains()}") from None


def test_a_container_that_was_being_committed_goes_on(own_sampan: SampanEngine) -> None:
    """The commit had paused it; who paused a container himself finds it paused."""
    engine = own_sampan
    script = "dd if=/dev/zero of=/large bs=1 count=1 seek=100G; echo ready; sleep 600"
    start(engine, "committed", script)
    start(engine, "paused", "sleep 600")
    docker = cli(engine)
    wait_for(lambda: "ready" in docker("logs", "committed").out, "the large file")
    assert engine.post("/containers/paused/pause").status == 204
    commit = threading.Thread(target=lambda: docker("commit", "committed", "never:1", check=False))
    commit.start()
    wait_for(lambda: state(engine, "committed")["Paused"], "the commit to pause the container")
    restart_daemon(engine)
    commit.join(20)
    assert state(engine, "committed")["Status"] == "running"
    assert state(engine, "paused")["Status"] == "paused"
    assert engine.get("/images/never:1/json").status == 404
    assert engine.post("/containers/paused/unpause").status == 204


def test_a_second_daemon_is_refused(own_sampan: SampanEngine) -> None:
    engine = own_sampan
    other = SampanEngine(engine.directory + "-2", engine.token)
    other.data_root, other.exec_root, other.bridge = (
        engine.data_root,
        engine.exec_root + "2",
        engine.bridge,
    )
    try:
        with pytest.raises(AssertionError, match="instead of answering"):
            other.start()
        assert engine.data_root in other.log()
        assert "Traceback" not in other.log()
    finally:
        other.kill()
        shutil.rmtree(other.directory)
    assert engine.get("/_ping").status == 200
