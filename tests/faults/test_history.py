"""How containers ended, told when they are gone: through the API, on the command line, over `kill -9`."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from support.accounts import expect_all_accounted
from support.command import DockerCLI
from support.engines import IMAGE, SampanEngine
from support.waiting import wait_for

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")


def begin(engine: SampanEngine, name: str, script: str, **host: Any) -> str:
    """Start a container that is removed at its end; its ID."""
    host = {"NetworkMode": "none", "AutoRemove": True, **host}
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], "HostConfig": host}
    identity = engine.post("/containers/create", body, name=name).json["Id"]
    assert engine.post(f"/containers/{name}/start").status in (204, 400)
    return str(identity)


def gone(engine: SampanEngine, name: str) -> None:
    wait_for(lambda: engine.get(f"/containers/{name}/json").status == 404, f"{name} to be removed")


def history(engine: SampanEngine, name: str, **query: object) -> list[dict[str, Any]]:
    answer = engine.get(f"/containers/{name}/history", **query)
    assert answer.status == 200, answer
    found: list[dict[str, Any]] = answer.json
    return found


def test_after_rm(sampan: SampanEngine, unused_name: str) -> None:
    """Exit code, usage and last words of a container that is gone."""
    name = unused_name
    script = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; echo out; echo bad >&2; exit 3"
    identity = begin(sampan, name, script)
    gone(sampan, name)
    (run,) = history(sampan, name)
    assert (run["Id"], run["Name"], run["Image"]) == (identity, name, IMAGE)
    assert (run["ExitCode"], run["Signal"], run["Cause"]) == (3, 0, "exited with code 3")
    assert run["Usage"]["CPUNanoseconds"] > 1_000_000
    assert run["Usage"]["PeakMemory"] > 100_000
    assert run["StartedAt"] < run["FinishedAt"]
    lines = [(line["Stream"], line["Text"]) for line in run["Output"]]
    assert sorted(lines) == [("stderr", "bad"), ("stdout", "out")]
    begin(sampan, name, "exit 4")
    gone(sampan, name)
    assert [run["ExitCode"] for run in history(sampan, name)] == [4, 3]
    assert [run["ExitCode"] for run in history(sampan, name, limit=1)] == [4]
    assert [run["ExitCode"] for run in history(sampan, identity[:12])] == [3]
    assert sampan.get(f"/containers/{name}x/history").status == 404


def test_a_container_that_is_there(sampan: SampanEngine, unused_name: str) -> None:
    begin(sampan, unused_name, "exit 9", AutoRemove=False)
    sampan.post(f"/containers/{unused_name}/wait")
    sampan.post(f"/containers/{unused_name}/rename", name=f"{unused_name}-new")
    assert [run["ExitCode"] for run in history(sampan, f"{unused_name}-new")] == [9]
    sampan.delete(f"/containers/{unused_name}-new")
    made = sampan.post("/containers/create", {"Image": IMAGE}, name=f"{unused_name}-c")
    assert history(sampan, f"{unused_name}-c") == []
    sampan.delete(f"/containers/{made.json['Id']}")


def test_out_of_memory(sampan: SampanEngine, unused_name: str) -> None:
    """The kernel's victim and the limit, when the first process lived on."""
    begin(sampan, unused_name, "tail /dev/zero; exit 5", Memory=20 << 20)
    gone(sampan, unused_name)
    (run,) = history(sampan, unused_name)
    assert (run["ExitCode"], run["OOMKilled"], run["Usage"]["OOMKills"]) == (5, True, 1)
    assert run["Usage"]["PeakMemory"] >= 19 << 20
    (kill,) = run["KilledForMemory"]
    assert (kill["Process"], kill["Uid"], kill["Limit"]) == ("tail", 0, 20 << 20)
    assert kill["LimitOf"].endswith(run["Id"])
    assert run["Cause"].startswith("exited with code 5; out of memory: the kernel killed tail (pid")


def test_who_sent_the_signal(sampan: SampanEngine, unused_name: str) -> None:
    begin(sampan, unused_name, "exec sleep 600")
    sampan.post(f"/containers/{unused_name}/kill")
    gone(sampan, unused_name)
    (run,) = history(sampan, unused_name)
    assert run["SentBy"] == {"Uid": os.geteuid(), "Gid": os.getegid(), "Pid": os.getpid()}
    assert run["Cause"] == f"killed by SIGKILL, sent by uid {os.geteuid()}, pid {os.getpid()}"


def test_a_start_that_failed(sampan: SampanEngine, unused_name: str) -> None:
    body = {"Image": IMAGE, "Cmd": ["/nosuch"], "HostConfig": {"AutoRemove": True}}
    sampan.post("/containers/create", body, name=unused_name)
    assert sampan.post(f"/containers/{unused_name}/start").status == 400
    gone(sampan, unused_name)
    (run,) = history(sampan, unused_name)
    assert run["Cause"].startswith('did not start: exec: "/nosuch"')
    assert (run["ExitCode"], run["StartedAt"]) == (127, "")


def test_over_the_end_of_the_daemon(own_sampan: SampanEngine) -> None:
    """An end while no daemon runs is told by the next one, its last words and usage included; what was
    written before is there; and every file has its owner."""
    engine = own_sampan
    begin(engine, "before", "exit 6")
    gone(engine, "before")
    shared = os.path.join(engine.directory, "shared")
    os.mkdir(shared)
    script = "until test -e /shared/go; do usleep 5000; done; echo last words; exit 7"
    begin(engine, "meanwhile", script, Binds=[f"{shared}:/shared"])
    pid = engine.get("/containers/meanwhile/json").json["State"]["Pid"]
    engine.kill()
    with open(os.path.join(shared, "go"), "w"):
        pass
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the container to end")
    engine.start()
    gone(engine, "meanwhile")
    (run,) = history(engine, "meanwhile")
    assert (run["ExitCode"], [line["Text"] for line in run["Output"]]) == (7, ["last words"])
    assert run["Usage"]["CPUNanoseconds"] > 0
    assert [run["ExitCode"] for run in history(engine, "before")] == [6]
    expect_all_accounted(engine)


def test_how_much_is_kept(own_sampan: SampanEngine) -> None:
    """The daemon's options, and what SIGHUP makes of them."""
    engine = own_sampan
    path = os.path.join(engine.directory, "daemon.json")
    with open(path, "w") as file:
        file.write('{"history-lines": 1}')
    engine.terminate()
    engine.start("--config-file", path)
    begin(engine, "one", "echo a; echo b")
    gone(engine, "one")
    (run,) = history(engine, "one")
    assert [line["Text"] for line in run["Output"]] == ["b"]
    with open(path, "w") as file:
        file.write('{"history-lines": 0, "history-max-size": "1KiB", "events-max-size": "64KiB"}')
    assert engine.process is not None
    engine.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "configuration reloaded" in engine.log(), "the configuration to be read again")
    assert "used after a restart" not in engine.log()
    begin(engine, "two", "echo a")
    gone(engine, "two")
    assert history(engine, "two")[0]["Output"] == []
    for number in range(3):
        begin(engine, f"more-{number}", "exit 1")
        gone(engine, f"more-{number}")
    assert engine.get("/containers/one/history").status == 404


def test_ids_that_begin_alike(sampan: SampanEngine, unused_name: str) -> None:
    """Some of 17 IDs have their first digit in common: that names none of them."""
    identities = []
    for number in range(17):
        identities.append(begin(sampan, f"{unused_name}-{number}", "exit 0"))
        gone(sampan, f"{unused_name}-{number}")
    firsts = [identity[0] for identity in identities]
    common = next(first for first in firsts if firsts.count(first) > 1)
    answer = sampan.get(f"/containers/{common}/history")
    assert answer.status == 400
    assert f"Multiple IDs found with provided prefix: {common}" in answer.json["message"]


def test_command(sampan: SampanEngine, unused_name: str) -> None:
    """`history` is an image's where there is one with the name, else the container's."""
    own = DockerCLI(SAMPAN, sampan.socket, sampan.config_directory)
    name = unused_name
    begin(sampan, name, "printf 'a\\033[2Jb\\n'; exit 3")
    gone(sampan, name)
    told = own("history", name).out
    assert told == own("container", "history", name).out
    assert told.startswith(f"{name}  ")
    assert "  cause   exited with code 3\n" in told
    assert "  output  a\\x1b[2Jb\n" in told
    assert (
        own("history", "--format", "{{.ExitCode}} {{.Cause}}", name).line == "3 exited with code 3"
    )
    (row,) = own("container", "history", "--format", "json", name).out.splitlines()
    assert json.loads(row)["Output"] == "a\x1b[2Jb"
    head, line = own("container", "history", "--format", "table", name).out.splitlines()
    assert head.split()[:3] == ["CONTAINER", "ID", "NAME"]
    assert name in line
    assert own("history", IMAGE).out.startswith("IMAGE")
    assert own("image", "history", IMAGE).out == own("history", IMAGE).out
    assert "No such image" in own.fails("history", f"{name}x").err
    assert "No such image" in own.fails("image", "history", name).err
    assert f"No such container: {name}x" in own.fails("container", "history", f"{name}x").err
