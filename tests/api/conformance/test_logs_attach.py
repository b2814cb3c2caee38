"""Logs and attach: every byte, in order, to everybody who asked."""

from __future__ import annotations

import json
import re
import signal
import socket
import time

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine
from support.http import demultiplex
from support.waiting import wait_for


def test_streams_are_kept_apart(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "--name", unused_name, IMAGE, "sh", "-c", "echo out; echo err >&2")
    result = docker("logs", unused_name)
    assert (result.out, result.err) == ("out\n", "err\n")


def test_tail_and_timestamps(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "--name", unused_name, IMAGE, "seq", "1", "1000")
    assert docker("logs", "--tail", "3", unused_name).out == "998\n999\n1000\n"
    assert docker("logs", "--tail", "0", unused_name).out == ""
    assert len(docker("logs", unused_name).out.splitlines()) == 1000
    line = docker("logs", "-t", "--tail", "1", unused_name).line
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z 1000", line)


def test_since_and_until(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "--name", unused_name, IMAGE, "sh", "-c", "echo a; usleep 300000; echo b")
    stamps = [line.split()[0] for line in docker("logs", "-t", unused_name).out.splitlines()]
    assert docker("logs", "--since", stamps[1], unused_name).out == "b\n"
    assert docker("logs", "--until", stamps[0], unused_name).out == "a\n"
    assert docker("logs", "--since", "1h", unused_name).out == "a\nb\n"


def test_follow_ends_with_the_container(docker: DockerCLI, unused_name: str) -> None:
    script = "echo one; until test -e /go; do usleep 10000; done; echo two"
    docker("run", "-d", "--name", unused_name, IMAGE, "sh", "-c", script)
    process = docker.background("logs", "-f", unused_name)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"one\n"
        docker("exec", unused_name, "touch", "/go")
        assert process.stdout.readline() == b"two\n"
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.communicate()


def test_partial_and_binary_lines(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    script = "yes x | tr -d '\\n' | head -c 40000; printf '\\377\\000end'"
    docker("run", "--name", unused_name, "--network", "none", IMAGE, "sh", "-c", script)
    stdout, _ = demultiplex(
        target.get(f"/containers/{unused_name}/logs", stdout=True, stderr=True).body
    )
    assert stdout == b"x" * 40000 + "\ufffd\0end".encode()


def test_log_file_is_dockers_format(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "--name", unused_name, IMAGE, "sh", "-c", "echo '\"<&>'; printf 'no newline'")
    path = docker("inspect", "-f", "{{.LogPath}}", unused_name).line
    with open(path) as file:
        entries = [json.loads(line) for line in file]
    assert [(entry["log"], entry["stream"]) for entry in entries] == [
        ('"<&>\n', "stdout"),
        ("no newline", "stdout"),
    ]
    assert all(set(entry) == {"log", "stream", "time"} for entry in entries)


def test_many_lines_are_complete(docker: DockerCLI, unused_name: str) -> None:
    docker(
        "run", "--network", "none", "--name", unused_name, IMAGE, "seq", "1", "50000", timeout_s=60
    )
    lines = docker("logs", unused_name).out.split()
    assert lines == [str(number) for number in range(1, 50001)]


def test_no_log_driver(docker: DockerCLI, unused_name: str) -> None:
    assert (
        docker("run", "--name", unused_name, "--log-driver", "none", IMAGE, "echo", "hi").out
        == "hi\n"
    )
    assert (
        "configured logging driver does not support reading"
        in docker.fails("logs", unused_name).err
    )


def test_rotation(docker: DockerCLI, unused_name: str) -> None:
    docker(
        "run", "--name", unused_name, "--network", "none", "--log-opt", "max-size=20k", "--log-opt", "max-file=3",
        IMAGE, "seq", "1", "5000",
    )  # fmt: skip
    lines = docker("logs", unused_name).out.split()
    assert lines[-1] == "5000"
    assert lines == [str(number) for number in range(int(lines[0]), 5001)]
    assert 200 < len(lines) < 2000


def test_tty_log_is_raw(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-t", "--name", unused_name, IMAGE, "echo", "hi")
    answer = target.get(f"/containers/{unused_name}/logs", stdout=True)
    assert answer.body == b"hi\r\n"


def test_logs_need_a_stream(target: Engine, docker: DockerCLI) -> None:
    identity = docker("create", IMAGE).line
    answer = target.get(f"/containers/{identity}/logs")
    assert (answer.status, answer.message) == (
        400,
        "Bad parameters: you must choose at least one stream",
    )


def test_attach_sees_what_comes_after(docker: DockerCLI, unused_name: str) -> None:
    script = "echo before; read line; echo got $line; exit 3"
    docker("run", "-d", "-i", "--name", unused_name, IMAGE, "sh", "-c", script)
    wait_for(lambda: docker("logs", unused_name).out == "before\n", "the first line")
    process = docker.background("attach", unused_name)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"got hello\n"
        assert process.wait(timeout=60) == 3
    finally:
        process.kill()
        process.communicate()


def test_attach_proxies_signals(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    script = "trap 'exit 11' INT; echo ready; while true; do usleep 10000; done"
    docker("run", "-d", "--name", unused_name, IMAGE, "sh", "-c", script)
    wait_for(lambda: docker("logs", unused_name).out == "ready\n", "the trap")
    since = f"{time.time():.9f}"
    process = docker.background("attach", "--no-stdin", unused_name)

    def attached() -> bool:
        filters = {"event": ["attach"], "container": [unused_name]}
        until = f"{time.time():.9f}"
        return bool(target.get("/events", since=since, until=until, filters=filters).body)

    try:
        wait_for(attached, "the command to be attached")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) in (11, 130)  # 28 says what happened to itself
        assert docker("wait", unused_name).line == "11"
    finally:
        process.kill()
        process.communicate()


def test_two_clients_see_the_same(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    """An answer of 101 promises what comes from then on only roughly; both get all that follows."""
    docker("run", "-d", "-i", "--name", unused_name, IMAGE, "cat")
    query = {"stream": 1, "stdin": 1, "stdout": 1}
    with target.connect() as one, target.connect() as two:
        for connection in (one, two):
            status, headers = connection.hijack(f"/containers/{unused_name}/attach", query=query)
            assert status == 101
            assert headers["upgrade"] == "tcp"

        def both_are_there() -> bool:
            one.sock.sendall(b"hello\n")
            return all(b"hello\n" in connection.poll() for connection in (one, two))

        wait_for(both_are_there, "both to be attached")
        one.sock.sendall(b"the same\n")
        two.sock.sendall(b"the end\n")
        for connection in (one, two):
            while b"the same" not in connection.buffer or b"the end" not in connection.buffer:
                assert connection.fill()
        a, b = (demultiplex(connection.buffer)[0] for connection in (one, two))
        assert a.endswith(b) or b.endswith(a)


def test_attach_with_logs_replays(target: Engine, docker: DockerCLI, unused_name: str) -> None:
    docker(
        "run",
        "-d",
        "--name",
        unused_name,
        IMAGE,
        "sh",
        "-c",
        "echo early; until test -e /go; do usleep 10000; done; echo late",
    )
    wait_for(lambda: docker("logs", unused_name).out == "early\n", "the first line")
    with target.connect() as connection:
        connection.hijack(
            f"/containers/{unused_name}/attach", query={"logs": 1, "stream": 1, "stdout": 1}
        )
        while b"early" not in connection.buffer:
            assert connection.fill()
        docker("exec", unused_name, "touch", "/go")
        assert demultiplex(b"".join(connection.rest())) == (b"early\nlate\n", b"")


def test_attach_without_upgrade_is_a_plain_stream(target: Engine, docker: DockerCLI) -> None:
    identity = docker("create", IMAGE, "echo", "plain").line
    with target.connect() as connection:
        connection.start("POST", f"/containers/{identity}/attach", query={"stream": 1, "stdout": 1})
        status, _, headers = connection.read_head()
        assert status == 200
        assert headers["content-type"].startswith("application/vnd.docker.")
        assert target.post(f"/containers/{identity}/start").status == 204
        assert demultiplex(b"".join(connection.rest())) == (b"plain\n", b"")


def test_half_closed_stdin_ends_the_input(target: Engine, docker: DockerCLI) -> None:
    created = target.post(
        "/containers/create",
        {"Image": IMAGE, "Cmd": ["cat"], "OpenStdin": True, "StdinOnce": True, "AttachStdin": True},
    )
    identity = created.json["Id"]
    with target.connect() as connection:
        connection.hijack(
            f"/containers/{identity}/attach",
            query={"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1},
        )
        target.post(f"/containers/{identity}/start")
        connection.sock.sendall(b"bytes")
        connection.sock.shutdown(socket.SHUT_WR)
        assert demultiplex(b"".join(connection.rest())) == (b"bytes", b"")
    assert target.post(f"/containers/{identity}/wait").json["StatusCode"] == 0


@pytest.mark.parametrize("how", ["attach", "logs"])
def test_a_client_that_vanishes_does_no_harm(
    target: Engine, docker: DockerCLI, unused_name: str, how: str
) -> None:
    docker(
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        unused_name,
        IMAGE,
        "sh",
        "-c",
        "seq 1 200000; sleep 60",
    )
    with target.connect() as connection:
        if how == "attach":
            connection.hijack(f"/containers/{unused_name}/attach", query={"stream": 1, "stdout": 1})
        else:
            connection.start(
                "GET", f"/containers/{unused_name}/logs", query={"follow": 1, "stdout": 1}
            )
            connection.read_head()
    wait_for(
        lambda: docker("logs", "--tail", "1", unused_name).line == "200000",
        "the container to go on",
        timeout_s=30,
    )
