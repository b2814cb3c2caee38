"""`stop` of a container whose first process cannot hear the signal does not wait for nothing."""

from __future__ import annotations

import pytest

from support.engines import IMAGE, SampanEngine

NEVER_S = 10_000  # much longer than any test may take
DEAF = ["sleep", "86400"]


def begin(engine: SampanEngine, name: str, command: list[str], **config: object) -> None:
    body = {"Image": IMAGE, "Cmd": command, "HostConfig": {"NetworkMode": "none"}, **config}
    assert engine.post("/containers/create", body, name=name).status == 201
    assert engine.post(f"/containers/{name}/start").status == 204


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_no_handler(engine: SampanEngine, unused_name: str, verb: str) -> None:
    begin(engine, unused_name, DEAF)
    assert engine.post(f"/containers/{unused_name}/{verb}", t=NEVER_S).status == 204
    state = engine.get(f"/containers/{unused_name}/json").json["State"]
    assert state["Running"] == (verb == "restart")
    assert state["ExitCode"] == (0 if verb == "restart" else 137)


def test_its_own_stop_signal(engine: SampanEngine, unused_name: str) -> None:
    begin(engine, unused_name, DEAF, StopSignal="SIGUSR1", StopTimeout=NEVER_S)
    assert engine.post(f"/containers/{unused_name}/stop").status == 204


def test_paused(engine: SampanEngine, unused_name: str) -> None:
    begin(engine, unused_name, DEAF)
    assert engine.post(f"/containers/{unused_name}/pause").status == 204
    assert engine.post(f"/containers/{unused_name}/stop", t=NEVER_S).status == 204


def test_a_handler_has_its_time(engine: SampanEngine, unused_name: str) -> None:
    script = "trap 'sleep 0.2; exit 3' TERM; echo ready; while true; do usleep 10000; done"
    begin(engine, unused_name, ["sh", "-c", script])
    with engine.connect() as connection:
        query = {"stdout": 1, "follow": 1}
        connection.start("GET", f"/containers/{unused_name}/logs", query=query)
        while b"ready" not in connection.buffer:
            assert connection.fill()
    assert engine.post(f"/containers/{unused_name}/stop", t=NEVER_S).status == 204
    assert engine.get(f"/containers/{unused_name}/json").json["State"]["ExitCode"] == 3


def test_the_label_gives_it_its_time(engine: SampanEngine, unused_name: str) -> None:
    """As under dockerd: it does not hear the signal, and ends its work."""
    labels = {"dev.sampan.stop": "wait"}
    begin(engine, unused_name, ["sh", "-c", "usleep 300000; exit 4"], Labels=labels)
    assert engine.post(f"/containers/{unused_name}/stop", t=NEVER_S).status in (204, 304)
    assert engine.get(f"/containers/{unused_name}/json").json["State"]["ExitCode"] == 4
