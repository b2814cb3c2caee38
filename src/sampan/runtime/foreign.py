"""Containers made by another OCI runtime: runc, crun, whatever has runc's command line.

    made = create(["/usr/sbin/runc"], container_id=…, bundle=…, rootfs_mounts=…, stdio=(0, 1, 2), …)

The calling process is there for this alone: it gets a mount namespace of its own, in which the root file
system is mounted for the runtime to find. What the runtime leaves behind, and its own state, is below
`<bundle>/runtime`. Names of users are looked up here, which an OCI runtime does not do.
Source: OCI runtime-spec, runtime.md; runc(8), "create", "--console-socket".
"""

from __future__ import annotations

import errno
import json
import os
import socket

from sampan.errors import RuntimeFailure
from sampan.linux import mounts, netlink
from sampan.linux import syscalls as sys
from sampan.linux.cgroups.manager import open_cgroup
from sampan.runtime import users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

DIRECTORY = "runtime"
OCI_VERSION = "1.0.2"  # what old ones take; what we say is the same in both


class Made:
    """A container that runs; the caller owns the descriptors and reaps the process."""

    __slots__ = ("console_fd", "pid", "pidfd", "sockets")

    def __init__(self, pid: int, pidfd: int, console_fd: int | None) -> None:
        self.pid, self.pidfd, self.console_fd = pid, pidfd, console_fd
        self.sockets: list[int] = []

    def descriptors(self) -> list[int]:
        return [self.pidfd, *self.sockets, *([] if self.console_fd is None else [self.console_fd])]


def create(
    command: Sequence[str],
    *,
    container_id: str,
    bundle: str,
    rootfs_mounts: Sequence[mounts.Mount],
    endpoints: Sequence[netlink.VethEndpoint],
    stdio: Sequence[int] | None,
    console_path: str,
    console_size: Sequence[int] | None,
    cgroup_path: str,
    resolver: bool,
) -> Made:
    """Make the container and start its program; without `stdio` it has a terminal, whose other end is
    asked for at `console_path`.

    Raises:
        RuntimeFailure: stage `mount`, `user`, `network`, `exec` or `runtime`, with the runtime's own words; all
            that was made is gone.
    """
    place = f"{bundle}/{DIRECTORY}"
    os.makedirs(place, mode=0o700)
    sys.unshare(sys.CLONE_NEWNS)
    sys.mount(None, "/", None, sys.MS_SLAVE | sys.MS_REC)
    _mount(rootfs_mounts)
    program = _write_config(bundle, place, console_size)
    runtime = _Runtime(command, place, container_id, program)
    console = None if stdio is not None else _listen(console_path)
    try:
        runtime.create(stdio, console_path if console is not None else None)
        with open(f"{place}/pid", encoding="ascii") as file:
            pid = int(file.read())
        made = Made(pid, sys.pidfd_open(pid), None if console is None else _receive(console))
        try:
            _connect(made, endpoints, resolver=resolver)
            runtime.start()
        except BaseException:
            for fd in made.descriptors():
                os.close(fd)
            raise
    except OSError as error:
        _undo(runtime, endpoints, cgroup_path)
        raise RuntimeFailure("runtime", str(error), errno=error.errno) from error
    except BaseException:
        _undo(runtime, endpoints, cgroup_path)
        raise
    finally:
        if console is not None:
            console.close()
            os.unlink(console_path)
    return made


def _connect(made: Made, endpoints: Sequence[netlink.VethEndpoint], *, resolver: bool) -> None:
    """Its network devices, and the sockets by which names are served to it. This process is in its
    network namespace then."""
    for endpoint in endpoints:
        netlink.create_veth(endpoint, netns_pid=made.pid)
    if not (endpoints or resolver):
        return
    sys.setns(made.pidfd, sys.CLONE_NEWNET)
    netlink.configure_inside(endpoints)
    if resolver:
        from sampan.linux import dns_sockets

        made.sockets = [each.detach() for each in dns_sockets.open_sockets()]


class _Runtime:
    """The command, with what it always gets."""

    def __init__(self, command: Sequence[str], place: str, container_id: str, program: str) -> None:
        self._id, self._place, self._program = container_id, place, program
        self._log = f"{place}/log"
        options = ["--root", f"{place}/state", "--log", self._log, "--log-format", "json"]
        self._command = [*command, *options]

    def create(self, stdio: Sequence[int] | None, console_path: str | None) -> None:
        options = ["--bundle", self._place, "--pid-file", f"{self._place}/pid"]
        if console_path is not None:
            options += ["--console-socket", console_path]
        self._run(["create", *options, self._id], stdio)

    def start(self) -> None:
        self._run(["start", self._id], None)

    def delete(self) -> None:
        """Whatever there is of the container; without effect when there is nothing."""
        self._call(["delete", "--force", self._id], None)

    def _run(self, arguments: list[str], stdio: Sequence[int] | None) -> None:
        if self._call(arguments, stdio):
            raise _failure(self._said() or f"{self._command[0]} failed", self._program)

    def _call(self, arguments: list[str], stdio: Sequence[int] | None) -> int:
        """Its exit status."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            actions = [
                (os.POSIX_SPAWN_DUP2, fd, number)
                for number, fd in enumerate(stdio or (null, null, null))
            ]
            path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            pid = os.posix_spawn(
                self._command[0],
                [*self._command, *arguments],
                {"PATH": path},
                file_actions=actions,
                setsigmask=(),
                setsigdef=range(1, 32),
            )
        finally:
            os.close(null)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _said(self) -> str:
        """Its last error."""
        try:
            with open(self._log, encoding="utf-8", errors="replace") as file:
                entries = [json.loads(line) for line in file if line.startswith("{")]
        except (OSError, ValueError):
            return ""
        errors = [entry["msg"] for entry in entries if entry.get("level") in ("error", "fatal")]
        return str(errors[-1]) if errors else ""


def _failure(said: str, program: str) -> RuntimeFailure:
    """What the runtime said, as a failure of the program where dockerd takes it as one.

    Clients know by the words, in the spelling of Go, that it is the command which is wrong.
    """
    for number, names_it in ((errno.ENOENT, program in said), (errno.EACCES, True)):
        spelled = os.strerror(number)
        if names_it and spelled.lower() in said.lower():
            said = said.replace(spelled, spelled.lower())
            return RuntimeFailure("exec", said, path=program, errno=number)
    return RuntimeFailure("runtime", said)


def _mount(rootfs_mounts: Sequence[mounts.Mount]) -> None:
    for mount in rootfs_mounts:
        try:
            mounts.perform(mount)
        except OSError as error:
            raise RuntimeFailure(
                "mount", f"mounting {mount.target} failed: {error.strerror}", errno=error.errno
            ) from error


def _write_config(bundle: str, place: str, console_size: Sequence[int] | None) -> str:
    """The bundle's configuration with numbers for names and the absolute path of its root.

    Returns the program's name.
    """
    with open(f"{bundle}/config.json", "rb") as file:
        config: dict[str, Any] = json.loads(file.read())
    root = f"{bundle}/{config['root']['path']}"
    config["root"]["path"] = root
    config["ociVersion"] = OCI_VERSION
    process = config["process"]
    if console_size:
        process["consoleSize"] = {"height": console_size[0], "width": console_size[1]}
    process["user"] = _user(process.get("user") or {}, root)
    with open(f"{place}/config.json", "w", encoding="utf-8") as out:
        json.dump(config, out)
    return str(process["args"][0])


def _user(user: dict[str, Any], root: str) -> dict[str, Any]:
    name, groups = user.get("username") or str(user.get("uid", 0)), user.get("additionalGroups")
    opened: list[int] = []
    try:
        found = users.resolve(
            name,
            [str(group) for group in groups or ()],
            passwd_path=_inside(root, "etc/passwd", opened),
            group_path=_inside(root, "etc/group", opened),
        )
    finally:
        for fd in opened:
            os.close(fd)
    return {"uid": found.uid, "gid": found.gid, "additionalGids": found.additional_gids}


def _inside(root: str, path: str, opened: list[int]) -> str:
    """A path that leads to a file of the container; links in an image lead nowhere else."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve = sys.RESOLVE_IN_ROOT | sys.RESOLVE_NO_MAGICLINKS
        opened.append(sys.openat2(directory, path, os.O_PATH | os.O_CLOEXEC, resolve=resolve))
    except OSError:
        return "/nonexistent"
    finally:
        os.close(directory)
    return f"/proc/self/fd/{opened[-1]}"


def _listen(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.bind(path)
    sock.listen(1)
    return sock


def _receive(console: socket.socket) -> int:
    """The terminal's other end, which the runtime sends when the container is made."""
    console.settimeout(10)
    connection, _ = console.accept()
    with connection:
        _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
    if not fds:
        raise RuntimeFailure("runtime", "the runtime sent no terminal")
    os.set_inheritable(fds[0], False)
    return fds[0]


def _undo(runtime: _Runtime, endpoints: Sequence[netlink.VethEndpoint], cgroup_path: str) -> None:
    runtime.delete()
    for endpoint in endpoints:
        try:
            netlink.delete_link(endpoint.host_name)
        except OSError:
            pass  # it was not made yet, or went with the namespace
    try:
        open_cgroup(cgroup_path).delete()
    except (OSError, RuntimeFailure):
        pass  # a runtime removes its own
