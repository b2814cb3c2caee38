"""Containers made by the library, looked at from inside."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
from typing import Any

import pytest

from sampan.errors import RuntimeFailure
from sampan.linux import capabilities, pidfd, process, pty
from sampan.linux.cgroups.manager import open_cgroup
from sampan.runtime import identity
from sampan.runtime.trace import Trace
from support.engines import children
from support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.vm]

Bundle = Any


def test_program_sees_its_own_machine(bundle: Bundle) -> None:
    """PID 1, its own host name, an interface `lo` that is up, only its own processes."""
    bundle.config["hostname"] = "box"
    got = bundle.sh("echo $$; hostname; ip -o link | cut -d: -f2; ls -d /proc/[0-9]* | wc -l")
    assert got.code == 0
    assert got.lines[:3] == ["1", "box", " lo"]
    assert int(got.lines[3]) <= 4


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exit_code(bundle: Bundle, code: int) -> None:
    assert bundle.sh(f"exit {code}").code == code


def test_namespaces_are_new(bundle: Bundle) -> None:
    """Every namespace of the list differs from the machine's, every other is the machine's."""
    bundle.namespace("time")
    container = bundle.start("sleep", "1000")
    kinds = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}
    differ = {
        kind
        for kind in kinds
        if os.readlink(f"/proc/{container.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    }
    assert differ == kinds - {"user"}


def test_shared_namespaces(bundle: Bundle) -> None:
    bundle.share("network")
    bundle.share("uts")
    bundle.share("ipc")
    bundle.config.pop("hostname")
    container = bundle.start("sleep", "1000")
    for kind in ("net", "uts", "ipc"):
        ours = os.readlink(f"/proc/self/ns/{kind}")
        assert os.readlink(f"/proc/{container.pid}/ns/{kind}") == ours


def test_joined_namespaces(bundle: Bundle, lower: str) -> None:
    """A second container in the first one's PID, network and IPC namespaces sees its processes."""
    first = bundle.start("sleep", "1234")
    second = type(bundle)(lower, f"{bundle.path}/second", f"{bundle.name}-2")
    for kind, file in (("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")):
        second.namespace(kind, f"/proc/{first.pid}/ns/{file}")
    second.config.pop("hostname")
    got = second.sh("cat /proc/1/cmdline | tr '\\0' ' '; hostname; readlink /proc/self/ns/net")
    assert got.lines[0] == "sleep 1234 sampan"
    assert got.lines[1] == os.readlink(f"/proc/{first.pid}/ns/net")


def test_user_namespace(bundle: Bundle) -> None:
    """Root inside is nobody outside; devices and /sys work, files belong to the mapped root."""
    bundle.map_ids()
    got = bundle.sh(
        "id -u; cat /proc/self/uid_map; echo x > /dev/null && echo null; touch /made; ls -ln /made;"
        " mount | grep -c ' /proc '; ls /sys/class/net"
    )
    assert got.code == 0, got
    assert got.lines[0] == "0"
    assert got.lines[1].split() == ["0", "100000", "65536"]
    assert got.lines[2] == "null"
    assert os.stat(f"{bundle.path}/upper/made").st_uid == 100000
    assert got.lines[-1] == "lo"


@pytest.mark.parametrize("minor", [5, 77])
def test_device_of_a_user_namespace(bundle: Bundle, minor: int) -> None:
    """What is bound is the node of that number, whatever the machine has at that path."""
    bundle.map_ids()
    bundle.linux["devices"] = [{"path": "/dev/full", "type": "c", "major": 1, "minor": minor}]
    if minor == 77:
        with pytest.raises(RuntimeFailure, match="no node of char device 1:77"):
            bundle.sh("true")
        return
    got = bundle.sh("head -c 3 /dev/full | od -An -tx1")
    assert got.out.split() == ["00", "00", "00"], got


def test_time_namespace_offsets(bundle: Bundle) -> None:
    bundle.namespace("time")
    bundle.linux["timeOffsets"] = {"boottime": {"secs": 1000000}, "monotonic": {"secs": 5}}
    got = bundle.sh("cut -d. -f1 /proc/uptime")
    with open("/proc/uptime") as file:
        assert int(got.out) - float(file.read().split()[0]) > 999000


def test_capabilities_are_exactly_those_asked_for(bundle: Bundle) -> None:
    names = ["CAP_CHOWN", "CAP_NET_RAW"]
    bundle.process["capabilities"] = {
        "bounding": names,
        "effective": names,
        "permitted": names,
        "inheritable": ["CAP_NET_RAW"],
        "ambient": ["CAP_NET_RAW"],
    }
    got = bundle.sh("grep Cap /proc/self/status")
    values = dict(line.split(":\t") for line in got.lines)
    both, raw = capabilities.mask(names), capabilities.mask(["CAP_NET_RAW"])
    assert {key: int(value, 16) for key, value in values.items()} == {
        "CapInh": raw,
        "CapPrm": both,
        "CapEff": both,
        "CapBnd": both,
        "CapAmb": raw,
    }


def test_ambient_capabilities_reach_a_user(bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    names = ["CAP_NET_BIND_SERVICE"]
    kinds = ("bounding", "effective", "permitted", "inheritable", "ambient")
    bundle.process["capabilities"] = dict.fromkeys(kinds, names)
    got = bundle.sh("grep CapEff /proc/self/status")
    assert int(got.out.split()[1], 16) == capabilities.mask(names)


def test_missing_capability_is_left_out_with_a_warning(bundle: Bundle) -> None:
    """A machine whose bounding set lacks one still starts a privileged container."""
    everything = list(capabilities.NAMES)
    bundle.process["capabilities"] = dict.fromkeys(
        ("bounding", "effective", "permitted"), everything
    )
    reader, writer = os.pipe()
    poorer = os.fork()
    if poorer == 0:
        have = capabilities.bounding()
        capabilities.drop_bounding(have & ~capabilities.mask(["CAP_SYSLOG"]), have)
        identity._available = None
        got = bundle.sh("grep CapEff /proc/self/status")
        os.write(writer, f"{got.out.split()[1]} {got.warnings}".encode())
        os._exit(0)
    os.close(writer)
    effective, _, warnings = os.read(reader, 10000).decode().partition(" ")
    os.close(reader)
    os.waitpid(poorer, 0)
    missing = capabilities.mask(["CAP_SYSLOG"])
    assert int(effective, 16) == capabilities.bounding() & ~missing
    assert "CAP_SYSLOG" in warnings


def test_user_groups_umask_and_home(bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [29], "umask": 0o27}
    got = bundle.sh("id -u; id -G; umask; echo $HOME; touch /tmp/f; stat -c %a /tmp/f")
    assert got.lines == ["1000", "1000 29", "0027", "/home/user", "640"]


def test_user_by_name(bundle: Bundle) -> None:
    """`username` and `additionalGroups` are looked up in the container's own files."""
    bundle.process["user"] = {"username": "user", "additionalGroups": ["nogroup"]}
    got = bundle.sh("id -un; id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' '")
    assert got.lines[0] == "user"
    assert set(got.lines[1].split()) == {"1000", "29", "65534"}


def test_unknown_user_name(bundle: Bundle) -> None:
    bundle.process["user"] = {"username": "nobody-there"}
    with pytest.raises(RuntimeFailure, match="unable to find user nobody-there") as caught:
        bundle.create("true")
    assert caught.value.stage == "user"


def test_limits(bundle: Bundle) -> None:
    bundle.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    got = bundle.sh("ulimit -n; ulimit -Hn; ulimit -c")
    assert got.lines == ["50", "60", "0"]


def test_no_new_privileges(bundle: Bundle) -> None:
    bundle.process["noNewPrivileges"] = True
    assert bundle.sh("grep NoNewPrivs /proc/self/status").out.split()[1] == "1"


def test_oom_score(bundle: Bundle) -> None:
    bundle.process["oomScoreAdj"] = 321
    assert bundle.run("cat", "/proc/self/oom_score_adj").out == "321\n"


def test_sysctl(bundle: Bundle) -> None:
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmni": "77"}
    got = bundle.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni")
    assert got.lines == ["1", "77"]


def test_scheduler_and_io_priority(bundle: Bundle) -> None:
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 5}
    bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 7}
    container = bundle.start("sleep", "1000")
    assert os.sched_getscheduler(container.pid) == os.SCHED_BATCH
    assert os.getpriority(os.PRIO_PROCESS, container.pid) == 5


def test_domainname(bundle: Bundle) -> None:
    bundle.config["domainname"] = "example"
    assert bundle.run("cat", "/proc/sys/kernel/domainname").out == "example\n"


def test_working_directory_is_made(bundle: Bundle) -> None:
    bundle.process["cwd"] = "/made/here"
    assert bundle.run("pwd").out == "/made/here\n"


def test_environment(bundle: Bundle) -> None:
    bundle.process["env"] = ["PATH=/bin", "A=1", "A=2", "WITHOUT", "EMPTY="]
    got = bundle.run("cat", "/proc/self/environ").out.split("\0")
    assert got[:5] == ["PATH=/bin", "A=1", "A=2", "WITHOUT", "EMPTY="]


def test_no_descriptor_of_the_machine_is_inherited(bundle: Bundle) -> None:
    """Also an inheritable one: see CVE-2024-21626."""
    leaked = os.open("/", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        got = bundle.sh("ls /proc/self/fd")
    finally:
        os.close(leaked)
    assert got.out.split() == ["0", "1", "2", "3"]  # 3 is the directory that ls reads


def test_signals_start_with_their_defaults(bundle: Bundle) -> None:
    """Python ignores SIGPIPE; the container must not."""
    got = bundle.run("cat", "/proc/self/status")
    values = dict(line.split(":\t", 1) for line in got.lines if line.startswith("Sig"))
    assert values["SigIgn"] == values["SigBlk"] == values["SigCgt"] == "0" * 16


def test_terminal(bundle: Bundle) -> None:
    bundle.process["consoleSize"] = {"height": 33, "width": 101}
    container = bundle.start(
        "sh", "-c", "tty; stty size; test -c /dev/console && echo console", stdio=None
    )
    assert container.console_fd is not None
    assert _read_all(container.console_fd) == b"/dev/pts/0\r\n33 101\r\nconsole\r\n"
    assert bundle.end(container) == 0


def test_terminal_size_follows(bundle: Bundle) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done"
    container = bundle.start("sh", "-c", script, stdio=None)
    assert container.console_fd is not None
    assert os.read(container.console_fd, 100) == b"ready\r\n"
    pty.resize(container.console_fd, 11, 22)
    assert _read_all(container.console_fd) == b"11 22\r\n"


def _read_all(fd: int) -> bytes:
    data = b""
    while select.select([fd], [], [], 30)[0]:
        try:
            chunk = os.read(fd, 4096)
        except OSError as error:
            assert error.errno == errno.EIO
            return data
        data += chunk
    raise AssertionError(f"no end after {data!r}")


def test_reaper_forwards_and_reaps(bundle: Bundle) -> None:
    """With a reaper the program is no PID 1, gets signals, and orphans leave no zombie."""
    script = (
        "trap 'ls -d /proc/[0-9]* | wc -l; exit 9' TERM; (sleep 0.01 &); sleep 0.1; echo $$;"
        " while :; do sleep 0.01; done"
    )
    reader, writer = os.pipe2(os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    container = bundle.start("sh", "-c", script, stdio=(null, writer, writer), reaper=True)
    os.close(writer)
    os.close(null)
    assert os.read(reader, 100) == b"2\n"
    with open(f"/proc/{container.pid}/cmdline", "rb") as file:
        assert file.read().startswith(b"/sbin/docker-init\0--\0sh\0-c\0")
    with open(f"/proc/{container.pid}/comm", "rb") as file:
        assert file.read() == b"docker-init\n"
    pidfd.send_signal(container.pidfd, 15)
    assert bundle.end(container) == 9
    assert int(os.read(reader, 100)) <= 5
    os.close(reader)


def test_reaper_reports_a_program_that_cannot_run(bundle: Bundle) -> None:
    script = f"{bundle.path}/upper/broken"
    with open(script, "wb") as file:
        file.write(b"\0\1\2\3")
    os.chmod(script, 0o755)
    container = bundle.create("/broken", reaper=True)
    with pytest.raises(RuntimeFailure, match="exec format error"):
        container.start()
    bundle.running.clear()


def test_reaper_that_may_not_signal_its_child(bundle: Bundle) -> None:
    """The child is another user's and CAP_KILL is not there: the signal is lost, nothing else."""
    for names in bundle.process["capabilities"].values():
        names.remove("CAP_KILL")
    script = "echo ready; read word; exit 8"
    inside, answer = os.pipe2(os.O_CLOEXEC)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    container = bundle.start(
        *("/bin/busybox", "su", "-s", "/bin/sh", "user", "-c", script),
        stdio=(inside, writer, writer),
        reaper=True,
    )
    os.close(inside)
    os.close(writer)
    assert os.read(reader, 100) == b"ready\n"
    pidfd.send_signal(container.pidfd, signal.SIGTERM)
    os.write(answer, b"go\n")
    assert bundle.end(container) == 8
    os.close(reader)
    os.close(answer)


def test_reaper_under_dockers_filter(bundle: Bundle) -> None:
    """The default filter answers clone3(2) with ENOSYS; the reaper forks without it."""
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
    }
    got = bundle.sh("grep Seccomp: /proc/self/status; exit 6", reaper=True)
    assert (got.code, got.out.split()) == (6, ["Seccomp:", "2"])


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_seccomp_filter(bundle: Bundle, no_new_privileges: bool) -> None:
    """Loaded with and without no_new_privs, and for a user without any capability."""
    bundle.process["noNewPrivileges"] = no_new_privileges
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    kinds = ("bounding", "effective", "permitted")
    bundle.process["capabilities"] = {kind: [] for kind in kinds}
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 27}],
    }
    got = bundle.sh("mkdir /tmp/x; grep -E '^(CapPrm|CapEff|Seccomp:)' /proc/self/status")
    assert "File too large" in got.err
    assert got.out.split()[1::2] == ["0" * 16, "0" * 16, "2"]


def test_seccomp_agent(bundle: Bundle) -> None:
    """The agent that the profile names gets the filter's listener and the process's state."""
    path = f"{bundle.path}/agent.sock"
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "about",
        "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    }
    with pytest.raises(RuntimeFailure, match="failed to connect with seccomp agent"):
        bundle.create("true")
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(path)
        agent.listen()
        container = bundle.start("sleep", "1000")
        connection, _ = agent.accept()
        with connection:
            data, fds, _, _ = socket.recv_fds(connection, 65536, 1)
        document = json.loads(data)
        assert (document["pid"], document["metadata"]) == (container.pid, "about")
        assert document["state"]["id"] == bundle.name
        assert "seccomp" in os.readlink(f"/proc/self/fd/{fds[0]}")
        os.close(fds[0])


def test_start_waits(bundle: Bundle) -> None:
    """Between create and start the program has not run."""
    container = bundle.create("touch", "/ran")
    assert not os.path.exists(f"{bundle.path}/upper/ran")
    container.start()
    assert bundle.end(container) == 0
    assert os.path.exists(f"{bundle.path}/upper/ran")


def test_start_at_once(bundle: Bundle) -> None:
    container = bundle.create("touch", "/ran", wait_for_start=False)
    container.start()
    assert bundle.end(container) == 0


def test_container_dies_with_its_parent(bundle: Bundle) -> None:
    """The shim's end, however sudden, is the container's: also as another user."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    reader, writer = os.pipe()
    shim = os.fork()
    if shim == 0:
        container = bundle.start("sleep", "1000")
        os.write(writer, str(container.pid).encode())
        os.kill(os.getpid(), 9)
    os.close(writer)
    fd = os.pidfd_open(int(os.read(reader, 20)))
    os.close(reader)
    os.waitpid(shim, 0)
    assert pidfd.ended(fd, 10)
    os.close(fd)
    cgroup = open_cgroup(bundle.linux["cgroupsPath"])
    cgroup.delete()


@pytest.mark.parametrize("reaper", [True, False])
def test_helper_that_launches_for_its_parent(bundle: Bundle, reaper: bool) -> None:
    """The shim's way: a helper creates and ends, the container is the shim's child.

    What the helper forks for itself (hooks, ID mappings) stays its own.
    """
    bundle.config["hooks"] = {
        kind: [{"path": "/bin/true"}] for kind in ("createRuntime", "createContainer")
    }
    source = f"{bundle.path}/source"
    os.mkdir(source)
    bundle.mount("/data", "bind", source, "bind")
    if reaper:
        row = {"containerID": 0, "hostID": 0, "size": 1}
        bundle.config["mounts"][-1].update(uidMappings=[row], gidMappings=[row])
    reader, writer = os.pipe()
    helper = os.fork()
    if helper == 0:
        process.clone_for_parent()
        try:
            container = bundle.create("sh", "-c", "exit 5", reaper=reaper)
            container.start()
            os.write(writer, str(container.pid).encode())
        except RuntimeFailure as failure:
            os.write(writer, failure.message.encode())
        finally:
            os._exit(0)
    os.close(writer)
    said = os.read(reader, 1000).decode()
    os.close(reader)
    os.waitpid(helper, 0)
    if "no idmapped mounts" in said:
        pytest.skip(said)
    assert pidfd.exit_code(os.waitpid(int(said), 0)[1]) == 5
    open_cgroup(bundle.linux["cgroupsPath"]).delete()


def test_trace_names_the_stages(bundle: Bundle) -> None:
    trace = Trace()
    container = bundle.create("true", trace=trace)
    container.start()
    stages = [stage for stage, _ in trace.marks]
    assert {"plan", "clone", "cgroup", "init.rootfs", "init.pivot_root", "ready", "exec"} <= set(
        stages
    )
    assert [instant for _, instant in trace.marks] == sorted(i for _, i in trace.marks)


def test_cgroup_limits_hold(bundle: Bundle) -> None:
    bundle.linux["resources"]["pids"] = {"limit": 7}
    bundle.linux["resources"]["memory"] = {"limit": 30 << 20}
    container = bundle.start("sleep", "1000")
    assert container.cgroup is not None
    assert container.pid in container.cgroup.processes()
    got = bundle.execute(container, "cat", "/proc/self/cgroup")
    assert all(line.endswith(":/") for line in got.lines), got


def test_device_rules(bundle: Bundle) -> None:
    """Default devices work; a node of another can be made but not opened."""
    got = bundle.sh("echo x > /dev/null && echo null; mknod /tmp/kmsg c 1 11; cat /tmp/kmsg")
    assert got.lines == ["null"]
    assert "not permitted" in got.err


# -- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message", "number"),
    [
        (["nosuch"], 'exec: "nosuch": executable file not found in $PATH', errno.ENOENT),
        (["/nosuch"], 'exec: "/nosuch": stat /nosuch: no such file or directory', errno.ENOENT),
        (["/etc/passwd"], 'exec: "/etc/passwd": permission denied', errno.EACCES),
        (["/etc"], 'exec: "/etc": is a directory: permission denied', errno.EISDIR),
    ],
)
def test_program_that_cannot_run(
    bundle: Bundle, args: list[str], message: str, number: int
) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        bundle.create(*args)
    assert (caught.value.stage, caught.value.message, caught.value.errno) == (
        "exec",
        message,
        number,
    )


def _change(bundle: Bundle, what: str) -> None:
    if what == "mount":
        bundle.mount("/m", "bind", "/nosuch/source", "bind")
    elif what == "file system":
        bundle.mount("/m", "nosuchfs", "none")
    elif what == "cgroup":
        bundle.linux["resources"]["cpu"] = {"cpus": "9999"}
    elif what == "rlimit":
        bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 50}]
    elif what == "setns":
        bundle.namespace("network", "/proc/self/ns/uts")
    elif what == "sysctl":
        bundle.linux["sysctl"] = {"net.nosuch": "1"}
    elif what == "device":
        bundle.linux["devices"] = [{"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3}]
    elif what == "hook":
        bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    elif what == "uid_map":
        bundle.map_ids()
        bundle.linux["uidMappings"] = [bundle.linux["uidMappings"][0]] * 2
    elif what == "network":
        from sampan.linux.netlink import VethEndpoint

        return {"endpoints": [VethEndpoint(host_name="x" * 15, bridge="nosuchbridge",
            bridge_index=0, mac="02:00:00:00:00:01", addresses=["10.9.9.2/24"])]}  # fmt: skip
    return {}


@pytest.mark.parametrize(
    ("what", "stage"),
    [
        ("mount", "mount"),
        ("file system", "mount"),
        ("cgroup", "cgroup"),
        ("rlimit", "rlimit"),
        ("setns", "setns"),
        ("sysctl", "sysctl"),
        ("device", "device"),
        ("hook", "hook"),
        ("uid_map", "uid_map"),
        ("network", "network"),
    ],
)
def test_failure_names_its_stage_and_leaves_nothing(bundle: Bundle, what: str, stage: str) -> None:
    mounts = _mounts()
    descriptors = sorted(os.listdir("/proc/self/fd"))
    processes = children(os.getpid())  # the session's own engines
    more = _change(bundle, what)
    null = os.open("/dev/null", os.O_RDWR)
    with pytest.raises(RuntimeFailure) as caught:
        bundle.create("true", stdio=(null, null, null), **more)
    os.close(null)
    assert caught.value.stage == stage, caught.value.message
    assert _mounts() == mounts
    assert sorted(os.listdir("/proc/self/fd")) == descriptors
    assert children(os.getpid()) == processes
    cgroup = open_cgroup(bundle.linux["cgroupsPath"])
    assert not cgroup.exists()


def _mounts() -> list[str]:
    with open("/proc/self/mountinfo") as file:
        return sorted(line.split()[4] for line in file)


def test_init_killed_before_start(bundle: Bundle) -> None:
    container = bundle.create("true")
    pidfd.send_signal(container.pidfd, 9)
    wait_for(lambda: pidfd.ended(container.pidfd), "the end of init")
    with pytest.raises(RuntimeFailure, match="ended"):
        container.start()
    bundle.running.clear()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["process"].update(args=[]), "process.args must be set"),
        (lambda c: c.pop("root"), "root.path is missing"),
        (lambda c: c["linux"]["namespaces"].append({"type": "pid"}), "duplicated ns"),
        (lambda c: c["linux"]["namespaces"].append({"type": "nosuch"}), "does not exist"),
        (lambda c: c["linux"].update(sysctl={"kernel.panic": "1"}), "not in a separate"),
        (lambda c: c["linux"].update(uidMappings=[{}]), "USER namespace isn't enabled"),
        (lambda c: c["linux"].update(rootfsPropagation="odd"), "is not supported"),
        (lambda c: c["process"].update(rlimits=[{"type": "RLIMIT_ODD"}]), "invalid rlimit type"),
        (lambda c: c["linux"].update(intelRdt={"closID": "x"}), "intelRdt"),
        (lambda c: c.update(hooks={"poststop": [{"path": "rel"}]}), "is not absolute"),
    ],
)
def test_configuration_that_cannot_be_meant(bundle: Bundle, change: Any, message: str) -> None:
    change(bundle.config)
    with pytest.raises(RuntimeFailure, match=message) as caught:
        bundle.create()
    assert caught.value.stage == "config"


def test_sockets_for_a_name_server(bundle: Bundle) -> None:
    """What the program asks in its very first moment waits in them."""
    ask = "nslookup question 127.0.0.11; exec sleep 1000"
    container = bundle.create("sh", "-c", ask, resolver=True)
    udp, tcp = (socket.socket(fileno=fd) for fd in container.sockets)
    with udp, tcp:
        udp.settimeout(20)
        container.start()
        assert b"\x08question\x00" in udp.recvfrom(100)[0]
        assert tcp.getsockname() == udp.getsockname()
