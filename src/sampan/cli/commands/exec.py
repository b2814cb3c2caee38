"""`sampan exec`: a further process in a running container."""

from __future__ import annotations

from sampan.cli import create_request, process, terminal
from sampan.cli.client import quote
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("detach", "d", "bool", "", "Detached mode: run command in the background"),
    ("detach-keys", "", "string", "", "Override the key sequence for detaching a container"),
    ("env", "e", "envs", "", "Set environment variables"),
    ("env-file", "", "list", "", "Read in a file of environment variables"),
    ("interactive", "i", "bool", "", "Keep STDIN open even if not attached"),
    ("lease", "", "string", "", "Lease that the command ends with"),
    ("privileged", "", "bool", "", "Give extended privileges to the command"),
    (
        "timeout",
        "",
        "duration",
        "0s",
        "How long the command may run; then it ends with all it started, status 124",
    ),
    ("tty", "t", "bool", "", "Allocate a pseudo-TTY"),
    ("user", "u", "string", "", 'Username or UID (format: "<name|uid>[:<group|gid>]")'),
    ("workdir", "w", "string", "", "Working directory inside the container"),
)


def run(call: Call) -> int:
    """Execute a command in a container; the status is the command's."""
    detach, tty = call.on("detach"), call.on("tty")
    stdin = call.on("interactive") and not detach
    call.use_lease()
    body: dict[str, Any] = {
        "User": call.text("user"),
        "Privileged": call.on("privileged"),
        "Tty": tty,
        "AttachStdin": stdin,
        "AttachStderr": not detach,
        "AttachStdout": not detach,
        "Detach": detach,
        "DetachKeys": call.text("detach-keys"),
        "Env": create_request.environment(call),
        "WorkingDir": call.text("workdir"),
        "Cmd": call.args[1:],
    }
    if call.number("timeout"):
        body["Timeout"] = call.number("timeout")
    if not detach:
        terminal.require_terminal(tty=tty, stdin=stdin)
    size = terminal.window_size(1) if tty and not detach else None
    if size is not None:
        body["ConsoleSize"] = list(size)
    identifier = call.client.call("POST", f"/containers/{quote(call.args[0])}/exec", body)["Id"]
    start: dict[str, Any] = {"Detach": detach, "Tty": tty}
    if size is not None:
        start["ConsoleSize"] = list(size)
    if detach:
        call.client.call("POST", f"/exec/{identifier}/start", start)
        return 0
    return _attached(call, identifier, start, stdin=stdin)


def _attached(call: Call, identifier: str, start: dict[str, Any], *, stdin: bool) -> int:
    try:
        connection = call.client.hijack(f"/exec/{identifier}/start", start)
    except CommandError as error:
        error.status = process.start_status(error.message) if _is_exec_failure(error) else 1
        raise
    attachment = process.Attachment(
        call,
        connection,
        path=f"/exec/{identifier}",
        tty=start["Tty"],
        stdin=stdin,
        keys=call.text("detach-keys"),
    )
    attachment.run()
    return int(call.client.call("GET", f"/exec/{identifier}/json")["ExitCode"] or 0)


def _is_exec_failure(error: CommandError) -> bool:
    return process.start_status(error.message) != 125
