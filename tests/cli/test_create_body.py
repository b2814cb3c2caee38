"""`sampan create` asks for the same container as docker does, flag by flag."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from cli.fakes import Server
from support.command import docker_clis

pytestmark = pytest.mark.docker_cli

SAMPAN = os.path.join(os.path.dirname(sys.executable), "sampan")

SAME = """
image
image cmd --flag arg
--network host image
--network foo image
--network foo --network bar image
--network name=foo,alias=x,ip=1.2.3.4 image
--network foo --network-alias z --ip 10.0.0.5 image
--ip 10.0.0.5 image
--mac-address 92:d0:c6:0a:29:33 image
--network container:abc image
--network foo --link a:b image
--link a:b --link c image
--link-local-ip 1.2.3.4 image
-p 80 image
-p 127.0.0.1:8080:80/udp -p 9000-9002:90-92 -p 53:53/udp image
-p 1.2.3.4::80 -p [::1]:80:80 -p 7000-7005:80 image
-P --expose 80 --expose 90-91/udp image
-v /a -v /b:/c:ro -v name:/x -v ./rel:/y -v ~:/z image
--tmpfs /t --tmpfs /u:size=1m,mode=700 image
-e A=b -e HOME -e NOTSET image
-l a --label b=c image
--entrypoint "" image
--entrypoint /bin/x image a b
--restart on-failure:3 image
--restart foo image
--log-driver none image
--log-opt max-size=1m --log-opt a image
--security-opt no-new-privileges --security-opt seccomp=unconfined --security-opt apparmor=x image
--security-opt systempaths=unconfined image
--security-opt label:disable --security-opt no-new-privileges:true image
--health-cmd "curl x" --health-interval 5s --health-retries 3 image
--no-healthcheck image
--mount type=bind,src=/a,dst=/b,readonly image
--mount type=volume,source=v,target=/b,volume-opt=a=b,volume-label=x=y,volume-driver=d image
--mount type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=1777 image
--mount type=bind,src=/a,dst=/b,bind-propagation=rslave,bind-recursive=disabled image
--mount type=bind,src=rel,dst=/b --mount dst=/c image
--gpus all image
--gpus 2 image
--cpus 1.5 -c 512 --cpuset-cpus 0 --cpu-period 1000 --cpu-quota 500 image
-m 64m --memory-swap -1 --memory-reservation 32m --memory-swappiness 10 --oom-kill-disable --pids-limit 100 image
--ulimit nofile=1:2 --ulimit core=0 image
--blkio-weight 100 --blkio-weight-device /dev/sda:100 --device-read-bps /dev/sda:1mb --device-write-iops /dev/sda:10 image
--dns 1.1.1.1 --dns-option a --dns-search b --add-host x:1.2.3.4 --add-host y=::1 --add-host z:host-gateway image
--pid host --ipc host --uts host --userns host --cgroupns host image
--pid container:x --ipc container:y image
-i image
-i -a stdout image
-a stdin image
--device /dev/null --device /dev/zero:/dev/z:r --device /dev/full:r image
--sysctl net.ipv4.ip_forward=1 --annotation c=d --annotation e --storage-opt size=1 --shm-size 1m image
--init --read-only --privileged --cap-add ALL --cap-drop x --group-add g -u u:g -w /w -h hn --domainname dn image
--stop-signal TERM --stop-timeout 3 --runtime rt --isolation i --volume-driver vd --volumes-from c:ro image
--cgroup-parent cp --oom-score-adj 5 --device-cgroup-rule "c 1:3 rwm" --cpu-rt-period 1 --cpuset-mems 0 image
--init=false --rm image
--stop-timeout 0 image
--hostname x --network host image
--env-file FILE --label-file FILE image
"""

REFUSED = """
--network bridge --network-alias z image
--memory-swappiness 200 image
--dns foo image
--add-host foo image
--pid foo image
--uts foo image
--userns foo image
--cgroupns foo image
--storage-opt a image
--sysctl a image
--device-cgroup-rule x image
--device a:b:c:d image
--restart on-failure:x image
--log-driver none --log-opt a=b image
--expose x image
-p 80:x image
-p x:80 image
-p 99999:80 image
-p "" image
--mac-address x image
--network-alias x image
--env-file /nofile image
-v :/x image
-v /x: image
-v "" image
--health-interval -1s image
--health-cmd x --no-healthcheck image
--entrypoint sh -e =x image
--blkio-weight-device x image
--device-read-bps x image
--security-opt seccomp=/nofile image
--security-opt foo image
--rm --restart always image
--ulimit nofile=50:20 image
--cpus x image
-m xx image
--mount dst=/b,foo=bar image
--mount type=bind image
--pull foo image
--gpus foo=bar image
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(f"{tmp_path_factory.mktemp('cli')}/s.sock")
    yield server
    server.close()


def ask(
    server: Server, program: str, flags: str, folder: str
) -> tuple[int, str, object, list[str]]:
    """Exit status, first line of stderr, the body sent, the query."""
    before = len(server.requests)
    done = subprocess.run(
        [program, "create", *shlex.split(flags.replace("FILE", f"{folder}/file"))],
        env={"DOCKER_HOST": server.url, "PATH": os.environ["PATH"], "HOME": "/root", "DOCKER_CONFIG": folder},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    sent = [r for r in server.requests[before:] if "/containers/create" in r.path]
    error = (done.stderr.splitlines() or [""])[0].replace("docker", "sampan")
    body = sent[0].json() if sent else None
    if body:  # docker's own order is that of a Go map
        for values in (body["Env"], body["HostConfig"]["Binds"]):
            (values or []).sort()
    return done.returncode, error, body, [r.path.partition("?")[2] for r in sent]


def differences(left: Any, right: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, by path."""
    if not isinstance(left, dict) or not isinstance(right, dict):
        return [] if left == right else [f"{path}: {left!r} is not {right!r}"]
    names = sorted({*left, *right})
    return [
        line
        for name in names
        for line in differences(
            left.get(name, "absent"), right.get(name, "absent"), f"{path}.{name}"
        )
    ]


@pytest.fixture
def folder(tmp_path: object) -> str:
    with open(f"{tmp_path}/file", "w") as file:
        file.write("# note\nA=b c\n\nHOME\nGONE\n")
    return str(tmp_path)


@pytest.mark.parametrize("flags", SAME.strip().splitlines())
def test_same_body(server: Server, flags: str, folder: str) -> None:
    docker = ask(server, next(iter(docker_clis().values())), flags, folder)
    sampan = ask(server, SAMPAN, flags, folder)
    assert sampan[2] is not None, sampan
    assert differences(sampan[2], docker[2]) == []
    assert sampan == docker


@pytest.mark.parametrize("flags", REFUSED.strip().splitlines())
def test_same_refusal(server: Server, flags: str, folder: str) -> None:
    docker = ask(server, next(iter(docker_clis().values())), flags, folder)
    sampan = ask(server, SAMPAN, flags, folder)
    assert sampan[2] is None, "asked the engine for it"
    assert sampan == docker


def test_probes_without_a_process(server: Server, folder: str) -> None:
    """Flags of our own travel as annotations, which any engine takes."""
    _, _, body, _ = ask(server, SAMPAN, "--health-tcp 80 --annotation a=b image", folder)
    assert isinstance(body, dict)
    assert body["HostConfig"]["Annotations"] == {"a": "b", "sampan.health-tcp": "80"}
    _, _, body, _ = ask(server, SAMPAN, "--health-http http://localhost/ok --health-interval 1s image", folder)  # fmt: skip
    assert isinstance(body, dict)
    assert body["HostConfig"]["Annotations"] == {"sampan.health-http": "http://localhost/ok"}
    assert body["Healthcheck"] == {"Interval": 1_000_000_000}
