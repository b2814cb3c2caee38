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
VOLUMES, NETWORKS = ("vol", "store"), ("net", "mesh")
POLICIES: tuple[dict[str, Any], ...] = (
    {"Name": "no"}, {"Name": "always"}, {"Name": "unless-stopped"}, {"Name": "on-failure", "MaximumRetryCount": 1},
    {"Name": "on-failure"}, {"Name": "bad"}, {"Name": "no", "MaximumRetryCount": 1}, {"Name": "on-failure", "MaximumRetryCount": -1},
)  # fmt: skip
ENDLESS = ("always", "unless-stopped", "on-failure")

# What differs on purpose (docs/api.md): dockerd's answer, and ours.
ON_PURPOSE = {
    (500, "Container ID is not paused"): (409, "Container ID is not paused"),
    (404, 'plugin "nosuch" not found'): (404, 'could not find plugin nosuch in v1 plugin registry: plugin "nosuch" not found'),
}  # fmt: skip

names = st.sampled_from((*NAMES, ABSENT))
volumes = st.sampled_from((*VOLUMES, ABSENT))
networks = st.sampled_from((*NETWORKS, ABSENT))
policies = st.sampled_from(({}, *POLICIES))
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
            for name in NETWORKS:
                engine.delete(f"/networks/{self.full(name)}")
            for name in VOLUMES:
                engine.delete(f"/volumes/{self.full(name)}")

    def full(self, name: str) -> str:
        """A name of this example's own; nonsense stays what it is."""
        return f"{self.token}{name}" if name.isalpha() else name

    def same(self, ours: object, theirs: object) -> None:
        assert ours == theirs, "\n".join([*self.told, f"ours:   {ours}", f"theirs: {theirs}"])

    def both(self, method: str, path: str, **options: Any) -> tuple[Answer, Answer]:
        """Ask both, and expect the same."""
        self.told.append(f"{method} {path} {options.get('query', '')} {options.get('body', '')}")
        answers = tuple(
            engine.request(method, path, **options) for engine in (self.ours, self.theirs)
        )
        ours, theirs = (_said(answer) for answer in answers)
        self.same(ours, ON_PURPOSE.get(theirs, theirs))
        return answers[0], answers[1]

    # What a client may ask

    @rule(
        name=st.sampled_from(NAMES),
        command=st.sampled_from(sorted(COMMANDS)),
        fault=faults,
        volume=st.sampled_from((None, None, *VOLUMES)),
        network=st.sampled_from((None, None, *NETWORKS)),
    )
    def create(
        self,
        name: str,
        command: str,
        fault: dict[str, Any],
        volume: str | None,
        network: str | None,
    ) -> None:
        """One fault at a time: which of two is told is nobody's business."""
        host = {"NetworkMode": "none", "Memory": fault.get("memory", 64 << 20)}
        if volume and not fault:
            host["Binds"] = [f"{self.full(volume)}:/data"]
        if network and not fault:
            host["NetworkMode"] = self.full(network)
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
        self.same(*codes)

    @rule(name=names, what=st.sampled_from(("top", "changes", "logs?stdout=1", "logs", "stats?stream=0&one-shot=1")))  # fmt: skip
    def look(self, name: str, what: str) -> None:
        if what.startswith("stats") and name != ABSENT:
            return  # figures
        self.both("GET", f"/containers/{self.full(name)}/{what}")

    @rule(name=names)
    def resize(self, name: str) -> None:
        self.both("POST", f"/containers/{self.full(name)}/resize", query={"h": "x", "w": 5})

    @rule(name=st.sampled_from(NAMES), policy=policies)
    def create_with_policy(self, name: str, policy: dict[str, Any]) -> None:
        host = {"NetworkMode": "none", "Memory": 64 << 20, "RestartPolicy": policy}
        body = {"Image": IMAGE, "Cmd": COMMANDS["stays"], "HostConfig": host}
        self.both("POST", "/containers/create", query={"name": self.full(name)}, body=body)

    @rule(name=names, policy=policies)
    def update(self, name: str, policy: dict[str, Any]) -> None:
        """None that would start one again and again that ends by itself."""
        path = f"/containers/{self.full(name)}"
        found = self.theirs.get(f"{path}/json")
        stays = found.status == 200 and found.json["Config"]["Cmd"] == COMMANDS["stays"]
        if found.status == 200 and not stays and policy.get("Name") in ENDLESS:
            return
        self.both("POST", f"{path}/update", body={"RestartPolicy": policy})

    @rule(name=st.sampled_from((*VOLUMES, "-bad", "a/b", "")), driver=st.sampled_from(("local", "local", "", "nosuch")))  # fmt: skip
    def create_volume(self, name: str, driver: str) -> None:
        made = self.both("POST", "/volumes/create", body={"Name": self.full(name) if name else "", "Driver": driver})  # fmt: skip
        if not name and made[0].status == 201:
            for engine, answer in zip((self.ours, self.theirs), made, strict=True):
                assert engine.delete(f"/volumes/{answer.json['Name']}").status == 204

    @rule(name=volumes, force=st.booleans())
    def remove_volume(self, name: str, force: bool) -> None:
        self.both("DELETE", f"/volumes/{self.full(name)}", query={"force": force})

    @rule(name=volumes)
    def inspect_volume(self, name: str) -> None:
        self.both("GET", f"/volumes/{self.full(name)}")

    @rule(name=st.sampled_from((*NETWORKS, *NETWORKS, "host")), driver=st.sampled_from(("bridge", "bridge", "", "nosuch", "host")))  # fmt: skip
    def create_network(self, name: str, driver: str) -> None:
        wanted = name if name == "host" else self.full(name)
        body = {"Name": wanted, "Driver": driver, "CheckDuplicate": True}
        self.both("POST", "/networks/create", body=body)

    @rule(name=st.sampled_from((*NETWORKS, ABSENT, "bridge")))
    def remove_network(self, name: str) -> None:
        self.both("DELETE", f"/networks/{name if name == 'bridge' else self.full(name)}")

    @rule(network=networks, name=names, aliases=st.sampled_from(([], ["other"])))
    def connect(self, network: str, name: str, aliases: list[str]) -> None:
        if self.ours.get(f"/networks/{self.full(network)}").status == 404:
            return  # a container that does not run would be in it, says dockerd, until it starts
        body = {"Container": self.full(name), "EndpointConfig": {"Aliases": aliases}}
        self.both("POST", f"/networks/{self.full(network)}/connect", body=body)

    @rule(network=networks, name=names, force=st.booleans())
    def disconnect(self, network: str, name: str, force: bool) -> None:
        if self.ours.get(f"/networks/{self.full(network)}").status == 404:
            return  # dockerd says other things of one that runs and one that does not
        body = {"Container": self.full(name), "Force": force}
        self.both("POST", f"/networks/{self.full(network)}/disconnect", body=body)

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
        self.same(ours, theirs)

    @invariant()
    def same_volumes_and_networks(self) -> None:
        ours, theirs = (
            (
                {v["Name"] for v in engine.get("/volumes").json["Volumes"] or () if v["Name"].startswith(self.token)},
                {
                    n["Name"]: sorted(c["Name"] for c in engine.get(f"/networks/{n['Id']}").json["Containers"].values())
                    for n in engine.get("/networks").json if n["Name"].startswith(self.token)
                },
            )
            for engine in (self.ours, self.theirs)
        )  # fmt: skip
        self.same(ours, theirs)


def _said(answer: Answer) -> tuple[int, str]:
    """Status and message, without what differs from engine to engine."""
    if answer.status < 400:
        return answer.status, ""
    message = re.sub(r"\b[0-9a-f]{64}\b", "ID", answer.json["message"]).strip()
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
        {"Name": "no", **_given(document["HostConfig"]["RestartPolicy"])},
        document["HostConfig"]["NetworkMode"],
        sorted(document["NetworkSettings"]["Networks"]),
        [(mount["Name"], mount["Destination"]) for mount in document["Mounts"]],
    )


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Without empty ones: no restart policy is called `no` since Docker 25."""
    return {name: value for name, value in values.items() if value}


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
