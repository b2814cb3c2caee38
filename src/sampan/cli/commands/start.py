"""`sampan start`: start containers that are stopped."""

from __future__ import annotations

from sampan.cli import process, terminal
from sampan.cli.client import quote
from sampan.cli.failures import ApiError, CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    ("attach", "a", "bool", "", "Attach STDOUT/STDERR and forward signals"),
    ("checkpoint", "", "string", "", ""),
    ("checkpoint-dir", "", "string", "", ""),
    ("detach-keys", "", "string", "", "Override the key sequence for detaching a container"),
    ("interactive", "i", "bool", "", "Attach container's STDIN"),
)


def run(call: Call) -> int:
    """Start containers; with -a or -i one of them, attached."""
    if call.text("checkpoint") or call.text("checkpoint-dir"):
        raise CommandError("checkpoints are not supported")
    if call.on("attach") or call.on("interactive"):
        if len(call.args) > 1:
            raise CommandError("you cannot start and attach multiple containers at once")
        return _attached(call, call.args[0])
    failed = []
    for name in call.args:
        try:
            process.start(call, name)
        except CommandError as error:
            call.complain(error.message)
            failed.append(name)
            continue
        call.say(name)
    if failed:
        raise CommandError(f"Error: failed to start containers: {', '.join(failed)}")
    return 0


def _attached(call: Call, name: str) -> int:
    container = call.client.call("GET", f"/containers/{quote(name)}/json")
    identifier, config = container["Id"], container["Config"]
    stdin = call.on("interactive") and config["OpenStdin"]
    terminal.require_terminal(tty=config["Tty"], stdin=stdin)
    keys = call.text("detach-keys")
    connection = process.attach(call, identifier, stdin=stdin, stdout=True, stderr=True, keys=keys)
    removed = container["HostConfig"]["AutoRemove"]
    waiting = process.wait(call, identifier, "removed" if removed else "next-exit")
    attachment = process.Attachment(
        call,
        connection,
        path=f"/containers/{identifier}",
        tty=config["Tty"],
        stdin=stdin,
        keys=keys,
        proxied="" if config["Tty"] else identifier,
    )

    def begin() -> None:
        try:
            process.start(call, identifier, keys)
        except ApiError as error:
            raise CommandError(error.message) from None

    if not attachment.run(begin):
        return 0
    return process.exit_status(waiting, call, identifier)
