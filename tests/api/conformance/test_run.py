"""`docker run`: what the process sees, what comes back, which exit code."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from support.command import DockerCLI
from support.engines import IMAGE, Engine
from support.waiting import wait_for


@pytest.mark.vm
def test_prints_what_the_command_prints(docker: DockerCLI) -> None:
    result = docker("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2")
    assert (result.out, result.err) == ("out\n", "err\n")


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exits_with_the_commands_code(docker: DockerCLI, code: int) -> None:
    assert (
        docker(
            "run", "--rm", "--network", "none", IMAGE, "sh", "-c", f"exit {code}", check=False
        ).code
        == code
    )


def test_signals_show_as_128_and_more(docker: DockerCLI) -> None:
    assert (
        docker("run", "--rm", IMAGE, "sh", "-c", "sh -c 'kill -9 $$'; exit $?", check=False).code
        == 137
    )


@pytest.mark.vm
def test_command_not_found_is_127(docker: DockerCLI) -> None:
    result = docker("run", "--rm", IMAGE, "nosuch", check=False)
    assert result.code == 127
    assert 'exec: "nosuch": executable file not found in $PATH' in result.err


def test_missing_path_is_127(docker: DockerCLI) -> None:
    result = docker("run", "--rm", IMAGE, "/no/such", check=False)
    assert result.code == 127
    assert "no such file or directory" in result.err


@pytest.mark.parametrize("command", ["/usr/bin/notexecutable", "/etc"])
def test_not_executable_is_126(docker: DockerCLI, command: str) -> None:
    result = docker("run", "--rm", IMAGE, command, check=False)
    assert result.code == 126
    assert "permission denied" in result.err


def test_missing_image_is_125(docker: DockerCLI) -> None:
    result = docker("run", "--rm", "--pull", "never", "nosuchimage:1", check=False)
    assert result.code == 125
    assert "No such image: nosuchimage:1" in result.err


def test_reads_standard_input(docker: DockerCLI) -> None:
    assert docker("run", "-i", "--rm", IMAGE, "cat", stdin="one\ntwo\n").out == "one\ntwo\n"


def test_large_input_and_output_are_complete(docker: DockerCLI) -> None:
    data = bytes(range(256)) * 20_000  # 5 MB
    result = docker("run", "-i", "--rm", "--network", "none", IMAGE, "md5sum", stdin=data)
    assert result.line.split()[0] == hashlib.md5(data).hexdigest()


def test_without_i_standard_input_is_empty(docker: DockerCLI) -> None:
    assert docker("run", "--rm", IMAGE, "cat", stdin="ignored").out == ""


def test_environment(docker: DockerCLI) -> None:
    lines = docker(
        "run", "--rm", "-e", "A=1", "--env", "B=x y", "-h", "box", IMAGE, "env"
    ).out.splitlines()
    assert {"A=1", "B=x y", "HOSTNAME=box", "PATH=/usr/bin:/bin", "HOME=/root"} <= set(lines)


@pytest.mark.parametrize(
    ("options", "command", "printed"),
    [
        (["-w", "/tmp"], ["pwd"], "/tmp"),
        (["-w", "/made/on/demand"], ["pwd"], "/made/on/demand"),
        (["-u", "1000"], ["id", "-u"], "1000"),
        (["-u", "user"], ["id", "-un"], "user"),
        (["-u", "user:audio"], ["id", "-gn"], "audio"),
        (["-u", "4000:5000"], ["sh", "-c", "id -u; id -g"], "4000\n5000"),
        (["--group-add", "audio", "-u", "user"], ["id", "-G"], "1000 29"),
        (["--hostname", "box"], ["hostname"], "box"),
        (["--entrypoint", "echo"], ["hello"], "hello"),
        (["--ulimit", "nofile=512:1024"], ["sh", "-c", "ulimit -Sn; ulimit -Hn"], "512\n1024"),
        (["--read-only"], ["sh", "-c", "touch /x 2>/dev/null || echo refused"], "refused"),
        (["--tmpfs", "/scratch:size=1m"], ["sh", "-c", "df -k /scratch | awk 'NR==2 {print $1, $2}'"], "tmpfs 1024"),
        (["--shm-size", "2m"], ["sh", "-c", "df -k /dev/shm | awk 'NR==2 {print $2}'"], "2048"),
        ([], ["sh", "-c", "df -k /dev/shm | awk 'NR==2 {print $2}'"], "65536"),
        (["--sysctl", "net.ipv4.ip_forward=0"], ["cat", "/proc/sys/net/ipv4/ip_forward"], "0"),
        (["--init"], ["sh", "-c", "test $$ -ne 1 && echo not first"], "not first"),
        ([], ["sh", "-c", "echo $$"], "1"),
        (["--network", "none"], ["sh", "-c", "ls /sys/class/net"], "lo"),
        (["--security-opt", "no-new-privileges"], ["sh", "-c", "grep NoNewPrivs /proc/self/status | tr -d '\\t'"], "NoNewPrivs:1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_option(docker: DockerCLI, options: list[str], command: list[str], printed: str) -> None:
    assert docker("run", "--rm", *options, IMAGE, *command).line == printed


def _capabilities(status: str) -> int:
    line = next(line for line in status.splitlines() if line.startswith("CapEff"))
    return int(line.split()[1], 16)


@pytest.mark.vm
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], 0xA80425FB),
        (["--cap-drop", "ALL"], 0),
        (["--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE"], 1 << 10),
        (["--cap-add", "cap_sys_admin"], 0xA80425FB | 1 << 21),
        (["--cap-drop", "chown"], 0xA80425FB & ~1),
    ],
)
def test_capabilities(docker: DockerCLI, options: list[str], expected: int) -> None:
    assert (
        _capabilities(docker("run", "--rm", *options, IMAGE, "cat", "/proc/self/status").out)
        == expected
    )


@pytest.mark.vm
def test_seccomp_filter_is_on_unless_unconfined(docker: DockerCLI) -> None:
    command = ["grep", "^Seccomp:", "/proc/self/status"]
    assert docker("run", "--rm", IMAGE, *command).line.split() == ["Seccomp:", "2"]
    assert docker(
        "run", "--rm", "--security-opt", "seccomp=unconfined", IMAGE, *command
    ).line.split() == ["Seccomp:", "0"]


@pytest.mark.vm
def test_namespaces_are_the_containers_own(docker: DockerCLI) -> None:
    kinds = ["mnt", "uts", "ipc", "pid", "net"]
    links = docker(
        "run",
        "--rm",
        IMAGE,
        "sh",
        "-c",
        "for n in mnt uts ipc pid net; do readlink /proc/self/ns/$n; done",
    ).out.split()
    for kind, link in zip(kinds, links, strict=True):
        assert link != os.readlink(f"/proc/self/ns/{kind}"), kind


@pytest.mark.vm
def test_masked_and_read_only_paths(docker: DockerCLI) -> None:
    script = "wc -c < /proc/timer_list; ls /sys/firmware; echo x > /proc/sys/kernel/domainname"
    result = docker("run", "--rm", IMAGE, "sh", "-c", script, check=False)
    assert result.out == "0\n"
    assert "Read-only file system" in result.err


def test_memory_and_pids_limits(docker: DockerCLI, target: Engine) -> None:
    name = docker(
        "run",
        "-d",
        "--memory",
        "64m",
        "--pids-limit",
        "50",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "512",
        IMAGE,
        "sleep",
        "60",
    ).line
    host = json.loads(docker("inspect", name).out)[0]["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"], host["NanoCpus"], host["CpuShares"]) == (
        64 << 20, 128 << 20, 50, 500_000_000, 512,
    )  # fmt: skip


@pytest.mark.cgroup1
def test_limits_reach_the_kernel(docker: DockerCLI) -> None:
    out = docker(
        "run", "--rm", "--memory", "64m", "--memory-reservation", "32m", "--pids-limit", "50", "--cpus", "0.5",
        "--cpu-shares", "512", "--cpuset-cpus", "0", IMAGE, "sh", "-c",
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes pids/pids.max"
        " cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu/cpu.shares cpuset/cpuset.cpus",
    ).out  # fmt: skip
    assert out.split() == [str(64 << 20), str(32 << 20), "50", "50000", "100000", "512", "0"]


@pytest.mark.vm
def test_out_of_memory_is_said(docker: DockerCLI, unused_name: str) -> None:
    script = "x=0123456789abcdef; while true; do x=$x$x; done"
    result = docker(
        "run",
        "--name",
        unused_name,
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        IMAGE,
        "sh",
        "-c",
        script,
        check=False,
    )
    assert result.code == 137
    assert (
        docker("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", unused_name).line
        == "true 137"
    )


@pytest.mark.vm
def test_bind_mounts(docker: DockerCLI, target: Engine) -> None:
    directory = os.path.join(target.directory, "bind")
    os.makedirs(directory, exist_ok=True)
    docker("run", "--rm", "-v", f"{directory}:/data", IMAGE, "sh", "-c", "echo x > /data/file")
    with open(os.path.join(directory, "file")) as file:
        assert file.read() == "x\n"
    script = "cat /data/file; echo y > /data/file"
    result = docker(
        "run", "--rm", "-v", f"{directory}:/data:ro", IMAGE, "sh", "-c", script, check=False
    )
    assert result.out == "x\n"
    assert "Read-only file system" in result.err


def test_missing_bind_source_is_made_for_v_and_refused_for_mount(
    docker: DockerCLI, target: Engine
) -> None:
    directory = os.path.join(target.directory, "bind-made")
    docker("run", "--rm", "-v", f"{directory}/a:/data", IMAGE, "true")
    assert os.path.isdir(f"{directory}/a")
    result = docker.fails(
        "run", "--rm", "--mount", f"type=bind,source={directory}/b,target=/data", IMAGE, "true"
    )
    assert "bind source path does not exist" in result.err


@pytest.mark.vm
def test_terminal(docker: DockerCLI) -> None:
    with docker.terminal("run", "--rm", "-it", IMAGE, "sh", rows=33, columns=111) as terminal:
        terminal.expect("#")
        terminal.type("stty size; tty\n")
        terminal.expect("33 111")
        terminal.expect("/dev/pts/0")
        terminal.type(
            "until [ \"$(stty size)\" = '44 122' ]; do usleep 10000; done; echo re''sized\n"
        )
        terminal.resize_until(44, 122, "resized")
        terminal.type("exit 7\n")
        assert terminal.wait() == 7


def test_detach_keys_leave_the_container_running(docker: DockerCLI, unused_name: str) -> None:
    with docker.terminal("run", "--name", unused_name, "-it", IMAGE, "sh") as terminal:
        terminal.expect("#")
        terminal.type("\x10\x11")
        assert terminal.wait() == 0
    assert docker("inspect", "-f", "{{.State.Running}}", unused_name).line == "true"


def test_detached_run_prints_the_id(docker: DockerCLI) -> None:
    identity = docker("run", "-d", IMAGE, "sleep", "60").line
    assert len(identity) == 64
    assert docker("ps", "-q", "--no-trunc").line == identity


def test_rm_removes(docker: DockerCLI) -> None:
    docker("run", "--rm", "-d", IMAGE, "true")
    wait_for(lambda: docker("ps", "-aq").out == "", "the container to be removed")


def test_cidfile_and_label(docker: DockerCLI, target: Engine) -> None:
    path = os.path.join(target.directory, "cid")
    docker("run", "--rm", "--cidfile", path, "--label", "a=b", IMAGE, "true")
    with open(path) as file:
        assert len(file.read()) == 64
    os.unlink(path)


def test_name_in_use(docker: DockerCLI, unused_name: str) -> None:
    identity = docker("create", "--name", unused_name, IMAGE).line
    result = docker("run", "--name", unused_name, IMAGE, check=False)
    assert result.code == 125
    text = f'Conflict. The container name "/{unused_name}" is already in use by container "{identity}". You have to remove (or rename) that container to be able to reuse that name.'
    assert text in result.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memory", "4m"], "Minimum memory limit allowed is 6MB"),
        (["--memory-swap", "100m"], "You should always set the Memory limit when using Memoryswap limit, see usage"),
        (["--memory", "100m", "--memory-swap", "50m"], "Minimum memoryswap limit should be larger than memory limit, see usage"),
        (["--memory", "100m", "--memory-reservation", "200m"], "Minimum memory limit can not be less than memory reservation limit, see usage"),
        (["--cpus", "1000"], "ange of CPUs is from 0.01 to "),
        (["--cpuset-cpus", "900"], "Requested CPUs are not available - requested 900, available: "),
        (["--cpuset-cpus", "x"], "Invalid value x for cpuset cpus"),
        (["--ulimit", "nofile=50:20"], "ulimit soft limit must be less than or equal to hard limit: 50 > 20"),
        (["--user", "nosuch"], "unable to find user nosuch: no matching entries in passwd file"),
        (["--workdir", "relative"], "the working directory 'relative' is invalid, it needs to be an absolute path"),
        (["--network", "nosuch"], "network nosuch not found"),
        (["--network", "container:nosuch"], "No such container: nosuch"),
        (["--cap-add", "NOSUCH"], 'invalid CapAdd: unknown capability: "CAP_NOSUCH"'),
        (["--tmpfs", "relative"], "mount path must be absolute"),
                (["--name", "a"], "Invalid container name (a), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
        (["--ipc", "nosuch"], "nvalid IPC mode: nosuch"),
        (["-v", "relative/path:/x"], "includes invalid characters for a local volume name"),
        (["-v", "/tmp:/"], "destination can't be '/'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_refused(docker: DockerCLI, options: list[str], message: str) -> None:
    result = docker("run", "--rm", *options, IMAGE, "true", check=False)
    assert result.code in (125, 126, 127), result
    assert message in result.err, result
    assert docker("ps", "-aq").out == ""


def test_container_network_is_shared(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, "sleep", "60")
    mine = docker("exec", unused_name, "readlink", "/proc/self/ns/net").line
    shared = docker(
        "run",
        "--rm",
        "--network",
        f"container:{unused_name}",
        IMAGE,
        "readlink",
        "/proc/self/ns/net",
    ).line
    assert shared == mine


def test_pid_namespace_of_another_container(docker: DockerCLI, unused_name: str) -> None:
    docker("run", "-d", "--name", unused_name, IMAGE, "sleep", "61")
    assert "sleep 61" in docker("run", "--rm", "--pid", f"container:{unused_name}", IMAGE, "ps").out


def test_hosts_and_resolv_conf(docker: DockerCLI) -> None:
    out = docker(
        "run",
        "--rm",
        "-h",
        "box",
        "--add-host",
        "other:10.1.2.3",
        "--dns",
        "192.0.2.53",
        IMAGE,
        "cat",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/etc/hostname",
    ).out
    assert "127.0.0.1\tlocalhost" in out
    assert "10.1.2.3\tother" in out
    assert "\tbox\n" in out
    assert "nameserver 192.0.2.53" in out
    assert out.endswith("box\n")


@pytest.mark.cgroup2
@pytest.mark.vm
def test_limits_reach_the_kernel_v2(docker: DockerCLI) -> None:
    out = docker(
        "run", "--rm", "--memory", "64m", "--memory-reservation", "32m", "--pids-limit", "50", "--cpus", "0.5",
        "--cpuset-cpus", "0", IMAGE, "sh", "-c",
        "cd /sys/fs/cgroup; cat memory.max memory.low pids.max cpu.max cpuset.cpus",
    ).out  # fmt: skip
    assert out.split() == [str(64 << 20), str(32 << 20), "50", "50000", "100000", "0"]


@pytest.mark.apparmor
@pytest.mark.vm
def test_apparmor_profile_can_be_left_off(docker: DockerCLI) -> None:
    command = ["cat", "/proc/self/attr/current"]
    off = docker("run", "--rm", "--security-opt", "apparmor=unconfined", IMAGE, *command).line
    assert off == "unconfined"
