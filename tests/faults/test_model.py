"""Random valid and invalid requests to Sampan and to dockerd: statuses, messages and states are the same.

A hypothesis state machine plays them. The suite's few steps are always the same ones; `--model-steps N` plays
that many random ones and shrinks what it finds (`--seed N` repeats a run).
"""

from __future__ import annotations

import re
import secrets
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from support.engines import IMAGE, DockerEngine, Engine, SampanEngine
from support.http import Answer

NAMES = ("alpha", "beta", "gamma")
ABSENT = "nobody"
STEPS_OF_EXAMPLE = 25
# How it runs: until it is told to end, deaf to signals but for SIGKILL, or to an end of its own.
COMMANDS: dict[str, list[str]] = {
    "stays": ["sleep", "600"],
    "ends": ["sh", "-c", "exit 3"],
    "absent": ["/no/such/program"],
}
SIGNALS = ("KILL", "SIGUSR1", "9", "NOSUCH", "0", "SIGKILL ")
NEW_NAMES = (*NAMES, "", "-bad", "a/b", "delta")

# What differs on purpose (docs/api.md): dockerd's answer, and ours.
ON_PURPOSE = {(500, "Container ID is not paused"): (409, "Container ID is not paused")}

names = st.sampled_from((*NAMES, ABSENT))
faults = st.sampled_from(
    ({}, {}, {}, {}, {"memory": 0}, {"memory": 100}, {"memory": -1}, {"image": "no/such:image"}, {"image": "Bad"},
     {"name": "-bad"}, {"name": "a/b"})
)  # fmt: skip


class Pair(RuleBasedStateMachine):
    """Both engines, with the same containers."""

    ours: Engine
    theirs: Engine

    def __init__(self) -> None:
        super().__init__()
        self.token = "m" + secrets.token_hex(4)
        self.told: list[str] = []

    def teardown(self) -> None:
        for engine in (self.ours, self.theirs):
            for name in (*NAMES, "delta"):
                engine.delete(f"/containers/{self.full(name)}", force=True)

    def full(self, name: str) -> str:
        """A name of this example's own; nonsense stays what it is."""
        return f"{self.token}{name}" if name.isalpha() else name

    def both(self, method: str, path: str, **options: Any) -> tuple[Answer, Answer]:
        """Ask both, and expect the same."""
        self.told.append(f"{method} {path} {options.get('query', '')} {options.get('body', '')}")
        answers = tuple(
            engine.request(method, path, **options) for engine in (self.ours, self.theirs)
        )
        ours, theirs = (_said(answer) for answer in answers)
        assert ours == ON_PURPOSE.get(theirs, theirs), "\n".join(self.told)
        return answers[0], answers[1]

    # What a client may ask

    @rule(name=st.sampled_from(NAMES), command=st.sampled_from(sorted(COMMANDS)), fault=faults)
    def create(self, name: str, command: str, fault: dict[str, Any]) -> None:
        """One fault at a time: which of two is told is nobody's business."""
        host = {"NetworkMode": "none", "Memory": fault.get("memory", 64 << 20)}
        body = {"Image": fault.get("image", IMAGE), "Cmd": COMMANDS[command], "HostConfig": host}
        query = {"name": self.full(fault.get("name", name))}
        self.both("POST", "/containers/create", query=query, body=body)

    @rule(name=names)
    def start(self, name: str) -> None:
        self.both("POST", f"/containers/{self.full(name)}/start")
        self.settle(name)

    @rule(name=names, timeout_s=st.sampled_from((0, 1)))
    def stop(self, name: str, timeout_s: int) -> None:
        self.both("POST", f"/containers/{self.full(name)}/stop", query={"t": timeout_s})

    @rule(name=names)
    def restart(self, name: str) -> None:
        self.both("POST", f"/containers/{self.full(name)}/restart", query={"t": 0})
        self.settle(name)

    @rule(name=names, signal=st.sampled_from(SIGNALS))
    def kill(self, name: str, signal: str) -> None:
        self.both("POST", f"/containers/{self.full(name)}/kill", query={"signal": signal})

    @rule(name=names, verb=st.sampled_from(("pause", "unpause")))
    def freeze(self, name: str, verb: str) -> None:
        self.both("POST", f"/containers/{self.full(name)}/{verb}")

    @rule(name=names, new=st.sampled_from(NEW_NAMES))
    def rename(self, name: str, new: str) -> None:
        query = {"name": self.full(new)}
        self.both("POST", f"/containers/{self.full(name)}/rename", query=query)

    @rule(name=names, force=st.booleans())
    def remove(self, name: str, force: bool) -> None:
        self.both("DELETE", f"/containers/{self.full(name)}", query={"force": force})

    @rule(name=names, command=st.sampled_from((["true"], ["sh", "-c", "exit 4"], [])))
    def exec(self, name: str, command: list[str]) -> None:
        made = self.both("POST", f"/containers/{self.full(name)}/exec", body={"Cmd": command})
        if made[0].status != 201:
            return
        codes = []
        for engine, answer in zip((self.ours, self.theirs), made, strict=True):
            identity = answer.json["Id"]
            assert engine.post(f"/exec/{identity}/start", {"Detach": False}).status == 200
            codes.append(engine.get(f"/exec/{identity}/json").json["ExitCode"])
        assert codes[0] == codes[1], "\n".join(self.told)

    @rule(name=names, what=st.sampled_from(("top", "changes", "logs?stdout=1", "logs", "stats?stream=0&one-shot=1")))  # fmt: skip
    def look(self, name: str, what: str) -> None:
        if what.startswith("stats") and name != ABSENT:
            return  # figures
        self.both("GET", f"/containers/{self.full(name)}/{what}")

    @rule(name=names)
    def resize(self, name: str) -> None:
        self.both("POST", f"/containers/{self.full(name)}/resize", query={"h": "x", "w": 5})

    # What must be the same at all times

    def settle(self, name: str) -> None:
        """Wait for one that ends by itself."""
        for engine in (self.ours, self.theirs):
            found = engine.get(f"/containers/{self.full(name)}/json")
            if found.status == 200 and found.json["Config"]["Cmd"] == COMMANDS["ends"]:
                engine.post(f"/containers/{self.full(name)}/wait")

    @invariant()
    def same_states(self) -> None:
        ours, theirs = ({n: _state(engine, self.full(n)) for n in (*NAMES, "delta")} for engine in (self.ours, self.theirs))  # fmt: skip
        assert ours == theirs, "\n".join(self.told)


def _said(answer: Answer) -> tuple[int, str]:
    """Status and message, without what differs from engine to engine."""
    if answer.status < 400:
        return answer.status, ""
    message = re.sub(r"\b[0-9a-f]{64}\b", "ID", answer.json["message"])
    # Whom dockerd asks to start a process is no business of ours.
    message = re.sub(r"failed to create shim task: .*: unable to start container process: (.*): unknown$", r"\1", message)  # fmt: skip
    return answer.status, message


def _state(engine: Engine, name: str) -> object:
    answer = engine.get(f"/containers/{name}/json")
    if answer.status != 200:
        return _said(answer)
    document = answer.json
    shown = ("Status", "Running", "Paused", "Restarting", "Dead", "OOMKilled", "ExitCode")
    return (
        {field: document["State"][field] for field in shown},
        document["State"]["Pid"] > 0,
        document["Name"],
        document["Config"]["Cmd"],
        document["HostConfig"]["Memory"],
        document["RestartCount"],
    )


@pytest.mark.timeout(3600)
def test_as_dockerd(
    sampan: SampanEngine, dockerd: DockerEngine, pytestconfig: pytest.Config
) -> None:
    steps: int = pytestconfig.getoption("--model-steps")
    chosen = pytestconfig.getoption("--seed")
    machine = type("Chosen", (Pair,), {"ours": sampan, "theirs": dockerd})
    profile = settings(
        max_examples=max(1, steps // STEPS_OF_EXAMPLE) if steps else 4,
        stateful_step_count=STEPS_OF_EXAMPLE,
        derandomize=not steps,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if steps else [Phase.generate],
    )
    if chosen is not None:
        machine = seed(chosen)(machine)
    run_state_machine_as_test(machine, settings=profile)
