"""`sampan run`: create, attach, start and wait."""

from __future__ import annotations

from sampan.cli import create_container, create_request, process, terminal
from sampan.cli.create_flags import FLAGS as CONTAINER_FLAGS
from sampan.cli.failures import ApiError, CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    *CONTAINER_FLAGS,
    ("detach", "d", "bool", "", "Run container in background and print container ID"),
    ("detach-keys", "", "string", "", "Override the key sequence for detaching a container"),
    ("sig-proxy", "", "bool", "true", "Proxy received signals to the process"),
    ("use-api-socket", "", "bool", "", ""),
)


def run(call: Call) -> int:
    """Run a command in a new container; the status is the command's."""
    detach = call.on("detach")
    if detach and call["attach"]:
        raise CommandError("conflicting options: cannot specify both --attach and --detach")
    try:
        create_container.check(call)
        body = create_request.body(call, detach=detach)
    except CommandError as error:
        raise process.as_run_failure(error, 125) from None
    if not detach:
        terminal.require_terminal(tty=body["Tty"], stdin=body["AttachStdin"])
    try:
        identifier = create_container.create(call, body)
    except CommandError as error:
        raise process.as_run_failure(error, 125) from None
    if detach:
        return _detached(call, identifier)
    return _attached(call, identifier, body)


def _detached(call: Call, identifier: str) -> int:
    call.say(identifier)
    _start(call, identifier)
    return 0


def _start(call: Call, identifier: str) -> None:
    try:
        process.start(call, identifier, call.text("detach-keys"))
    except ApiError as error:
        raise process.as_run_failure(error, process.start_status(error.reason)) from None


def _attached(call: Call, identifier: str, body: dict[str, Any]) -> int:
    stdin, tty = body["AttachStdin"], body["Tty"]
    shown = body["AttachStdout"] or body["AttachStderr"]
    try:
        connection = process.attach(
            call,
            identifier,
            stdin=stdin,
            stdout=body["AttachStdout"],
            stderr=body["AttachStderr"],
            keys=call.text("detach-keys"),
        )
        removed = body["HostConfig"]["AutoRemove"]
        waiting = process.wait(call, identifier, "removed" if removed else "next-exit")
    except CommandError as error:
        raise process.as_run_failure(error, 125) from None
    if not shown:
        call.say(identifier)
    attachment = process.Attachment(
        call,
        connection,
        path=f"/containers/{identifier}",
        tty=tty,
        stdin=stdin,
        keys=call.text("detach-keys"),
        proxied=identifier if call.on("sig-proxy") and not tty else "",
    )
    try:
        ended = attachment.run(lambda: _start(call, identifier))
    except CommandError:
        if removed:
            waiting.read()
        raise
    if not ended or not (shown or stdin):
        return 0
    return process.exit_status(waiting, call, identifier)
