"""`sampan logout`: forget a registry's credentials."""

from __future__ import annotations

from sampan.cli import credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.call import Call

FLAGS = ()


def run(call: Call) -> int:
    """Erase credentials from the configuration file and the credential helper."""
    server = credentials.server_named(call.args[0] if call.args else "")
    call.say(f"Removing login credentials for {server}")
    failures = credentials.forget(server, call.environ)
    if failures:
        call.complain("WARNING: could not erase credentials:\n" + "\n".join(failures))
    return 0
