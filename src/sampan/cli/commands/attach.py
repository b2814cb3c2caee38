"""`sampan attach`: this terminal becomes that of a running container."""

from __future__ import annotations

from sampan.cli import process, terminal
from sampan.cli.client import quote
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = (
    ("detach-keys", "", "string", "", "Override the key sequence for detaching a container"),
    ("no-stdin", "", "bool", "", "Do not attach STDIN"),
    ("sig-proxy", "", "bool", "true", "Proxy all received signals to the process"),
)


def run(call: Call) -> int:
    """Attach to a container; the status is the one it ends with."""
    container = call.client.call("GET", f"/containers/{quote(call.args[0])}/json")
    state, config = container["State"], container["Config"]
    if not state["Running"]:
        raise CommandError("You cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise CommandError("You cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise CommandError("You cannot attach to a restarting container, wait until it is running")
    identifier = container["Id"]
    stdin = not call.on("no-stdin") and config["OpenStdin"]
    terminal.require_terminal(tty=config["Tty"], stdin=stdin)
    keys = call.text("detach-keys")
    waiting = process.wait(call, identifier, "not-running")
    connection = process.attach(call, identifier, stdin=stdin, stdout=True, stderr=True, keys=keys)
    attachment = process.Attachment(
        call,
        connection,
        path=f"/containers/{identifier}",
        tty=config["Tty"],
        stdin=stdin,
        keys=keys,
        proxied=identifier if call.on("sig-proxy") and not config["Tty"] else "",
    )
    if not attachment.run():
        return 0
    return process.exit_status(waiting, call, identifier)
