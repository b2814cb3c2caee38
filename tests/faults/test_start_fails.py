"""A start that fails, at each stage: the message, the exit code, nothing left."""

from __future__ import annotations

import os
from typing import Any

import pytest

from support.command import docker_clis
from support.engines import IMAGE, SampanEngine

STAGES: dict[str, tuple[dict[str, Any], dict[str, Any], int, str]] = {
    # name: (config, host config, exit code of docker run, part of the message)
    "no such program": ({"Cmd": ["nosuch"]}, {}, 127, 'exec: "nosuch": executable file not found in $PATH'),
    "no such path": ({"Cmd": ["/no/such"]}, {}, 127, "no such file or directory"),
    "not executable": ({"Cmd": ["/usr/bin/notexecutable"]}, {}, 126, "permission denied"),
    "no such user": ({"User": "nosuch"}, {}, 125, "unable to find user nosuch: no matching entries in passwd file"),
    "no such group": ({"User": "0:nosuch"}, {}, 125, "unable to find group nosuch: no matching entries in group file"),
    "target is a file": ({}, {"Binds": ["/tmp:/etc/passwd"]}, 125, "not a directory"),
    "cwd is a file": ({"WorkingDir": "/etc/passwd"}, {}, 125, "/etc/passwd"),
    "no such sysctl": ({}, {"Sysctls": {"net.nosuch": "1"}}, 125, "net"),
    "no such device": ({}, {"Devices": [{"PathOnHost": "/dev/nosuch", "PathInContainer": "/dev/nosuch", "CgroupPermissions": "rwm"}]}, 125, "/dev/nosuch"),
    "bad seccomp profile": ({}, {"SecurityOpt": ["seccomp={not json"]}, 125, "seccomp"),
    "network of nobody": ({}, {"NetworkMode": "container:nosuch"}, 125, "No such container: nosuch"),
    "no such network": ({}, {"NetworkMode": "nosuch"}, 125, "nosuch"),
    "tmpfs options": ({}, {"Tmpfs": {"/x": "size=nonsense"}}, 125, ""),
    "no memory for init": ({}, {"Memory": 6 << 20, "MemorySwap": 6 << 20, "Cmd": None}, 0, ""),
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_stage(engine: SampanEngine, unused_name: str, stage: str) -> None:
    config, host, _, message = STAGES[stage]
    host = {key: value for key, value in host.items() if value is not None}
    for network in ("bridge", "none"):
        body = {
            "Image": IMAGE,
            "Cmd": ["true"],
            **config,
            "HostConfig": {"NetworkMode": network, **host},
        }
        answer = engine.post("/containers/create", body, name=unused_name)
        if answer.status == 201:
            answer = engine.post(f"/containers/{unused_name}/start")
        assert answer.status in (204, 400, 404, 409, 500), answer
        if answer.status == 204:
            assert stage == "no memory for init"
            engine.post(f"/containers/{unused_name}/wait")
        else:
            assert message in answer.message, answer
            assert "Traceback" not in answer.message
            found = engine.get(f"/containers/{unused_name}/json")
            if found.status == 200:
                state = found.json["State"]
                assert (state["Running"], state["Pid"], state["Status"]) == (False, 0, "created")
                assert message in state["Error"]
                held = engine.remains()
                assert not held["mounts"] and not held["cgroups"] and not held["shims"], held
        engine.delete(f"/containers/{unused_name}", force=1)


@pytest.mark.docker_cli
@pytest.mark.parametrize("stage", [stage for stage, case in STAGES.items() if case[0].get("Cmd")])
def test_exit_code_of_run(engine: SampanEngine, stage: str) -> None:
    config, _, code, message = STAGES[stage]
    for path in docker_clis().values():
        result = engine.cli(path)("run", "--rm", IMAGE, *config["Cmd"], check=False)
        assert result.code == code, result
        assert message in result.err


def test_out_of_memory_while_starting(engine: SampanEngine, unused_name: str) -> None:
    """6 MiB is what docker allows; whether it starts or not, it is said and nothing hangs."""
    body = {
        "Image": IMAGE,
        "Cmd": ["sh", "-c", "exit 0"],
        "HostConfig": {"Memory": 6 << 20, "MemorySwap": 6 << 20},
    }
    engine.post("/containers/create", body, name=unused_name)
    answer = engine.post(f"/containers/{unused_name}/start")
    if answer.status == 204:
        assert engine.post(f"/containers/{unused_name}/wait").json["StatusCode"] in (0, 137)
    else:
        assert "memory" in answer.message


def test_failing_starts_many_times(engine: SampanEngine, unused_name: str) -> None:
    """Failures do not add up: descriptors, processes and addresses are the same afterwards."""
    assert engine.process is not None
    pid, zygote = engine.process.pid, engine.zygote_pid()

    def fail() -> None:
        body = {"Image": IMAGE, "Cmd": ["nosuch"]}
        engine.post("/containers/create", body, name=unused_name)
        assert engine.post(f"/containers/{unused_name}/start").status in (400, 404)
        assert engine.delete(f"/containers/{unused_name}", force=1).status == 204

    for _ in range(3):
        fail()
    before = [len(os.listdir(f"/proc/{process}/fd")) for process in (pid, zygote)]
    for _ in range(20):
        fail()
    after = [len(os.listdir(f"/proc/{process}/fd")) for process in (pid, zygote)]
    assert after[0] <= before[0] + 1
    assert after[1] <= before[1] + 1
