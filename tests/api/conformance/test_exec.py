"""`docker exec`: further processes in a running container."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine
from support.waiting import wait_for


@pytest.fixture
def box(docker: DockerCLI) -> Iterator[str]:
    """A running container."""
    yield docker("run", "-d", "-e", "A=1", "-w", "/tmp", IMAGE, "sleep", "600").line


@pytest.mark.vm
def test_output_and_code(docker: DockerCLI, box: str) -> None:
    result = docker("exec", box, "sh", "-c", "echo out; echo err >&2; exit 9", check=False)
    assert (result.out, result.err, result.code) == ("out\n", "err\n", 9)


def test_inherits_environment_and_directory(docker: DockerCLI, box: str) -> None:
    out = docker("exec", "-e", "B=2", box, "sh", "-c", "echo $A $B $HOSTNAME; pwd").out
    assert out == f"1 2 {box[:12]}\n/tmp\n"


@pytest.mark.parametrize(
    ("options", "command", "printed"),
    [
        (["-u", "user"], ["id", "-un"], "user"),
        (["-u", "5:6"], ["sh", "-c", "id -u; id -g"], "5\n6"),
        (["-w", "/bin"], ["pwd"], "/bin"),
        ([], ["sh", "-c", "readlink /proc/1/ns/pid | cmp -s - /dev/null; ls /proc | grep -c '^1$'"], "1"),
    ],
    ids=["user", "ids", "workdir", "pid namespace"],
)  # fmt: skip
def test_option(
    docker: DockerCLI, box: str, options: list[str], command: list[str], printed: str
) -> None:
    assert docker("exec", *options, box, *command).line == printed


def test_stdin(docker: DockerCLI, box: str) -> None:
    data = bytes(range(256)) * 8_000
    assert (
        docker("exec", "-i", box, "md5sum", stdin=data).line.split()[0]
        == hashlib.md5(data).hexdigest()
    )


def test_terminal(docker: DockerCLI, box: str) -> None:
    with docker.terminal("exec", "-it", box, "sh", rows=31, columns=99) as terminal:
        terminal.expect("#")
        terminal.type("until [ \"$(stty size)\" = '31 99' ]; do usleep 10000; done; echo si''zed\n")
        terminal.expect("sized")
        terminal.type(
            "until [ \"$(stty size)\" = '41 101' ]; do usleep 10000; done; echo re''sized\n"
        )
        terminal.resize_until(41, 101, "resized")
        terminal.type("exit 5\n")
        assert terminal.wait() == 5


@pytest.mark.parametrize(("command", "code", "message"), [
    ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
    ("/usr/bin/notexecutable", 126, "permission denied"),
])  # fmt: skip
def test_cannot_exec(docker: DockerCLI, box: str, command: str, code: int, message: str) -> None:
    result = docker("exec", box, command, check=False)
    assert message in result.out + result.err
    assert result.code in (code, 126)


def test_in_a_stopped_container(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "--name", unused_name, IMAGE, "true")
    assert "is not running" in docker.fails("exec", unused_name, "true").err


def test_in_no_container(docker: DockerCLI) -> None:
    assert "No such container: nosuch" in docker.fails("exec", "nosuch", "true").err


def test_detached(docker: DockerCLI, box: str) -> None:
    docker("exec", "-d", box, "sh", "-c", "echo done > /tmp/file")
    wait_for(
        lambda: docker("exec", box, "cat", "/tmp/file", check=False).out == "done\n", "the file"
    )


def test_api_shape(target: Engine, docker: DockerCLI, box: str) -> None:
    body = {"Cmd": ["sh", "-c", "exit 6"], "AttachStdout": True, "AttachStderr": True}
    created = target.post(f"/containers/{box}/exec", body)
    assert created.status == 201
    identity = created.json["Id"]
    before = target.get(f"/exec/{identity}/json").json
    assert (before["Running"], before["ExitCode"], before["ContainerID"]) == (False, None, box)
    assert before["ProcessConfig"]["entrypoint"] == "sh"
    assert before["ProcessConfig"]["arguments"] == ["-c", "exit 6"]
    assert identity in json.loads(docker("inspect", box).out)[0]["ExecIDs"]
    assert target.post(f"/exec/{identity}/start", {"Detach": False, "Tty": False}).status == 200
    after = wait_for(
        lambda: (lambda found: found if not found["Running"] else None)(
            target.get(f"/exec/{identity}/json").json
        ),
        "the end of the exec",
    )
    assert after["ExitCode"] == 6
    again = target.post(f"/exec/{identity}/start", {"Detach": False, "Tty": False})
    assert again.status == 409 or b"has already run" in again.body  # 20.10 says it in the stream


def test_errors(target: Engine, docker: DockerCLI, box: str) -> None:
    assert target.get("/exec/nosuch/json").status == 404
    assert "No such exec instance" in target.get("/exec/nosuch/json").message
    answer = target.post(f"/containers/{box}/exec", {"Cmd": []})
    assert (answer.status, answer.message) == (400, "No exec command specified")


def test_ends_with_the_container(docker: DockerCLI, box: str) -> None:
    process = docker.background("exec", box, "sleep", "600")
    try:
        wait_for(lambda: docker("top", box).out.count("sleep 600") == 2, "the exec to run")
        docker("kill", box)
        assert process.wait(timeout=60) == 137
    finally:
        process.kill()
        process.communicate()


def test_privileged(docker: DockerCLI, only_sampan: None, box: str) -> None:
    """All capabilities that this machine has; dockerd 20.10 fails where one is lacking."""
    own = docker("exec", box, "grep", "CapEff", "/proc/self/status").line.split()[1]
    more = docker("exec", "--privileged", box, "grep", "CapEff", "/proc/self/status").line.split()[
        1
    ]
    assert int(own, 16) & 1 << 21 == 0
    assert int(more, 16) & 1 << 21 != 0
