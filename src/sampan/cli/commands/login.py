"""`sampan login`: try credentials at a registry, and keep them."""

from __future__ import annotations

import os
import sys

from sampan.cli import credentials
from sampan.cli.failures import ApiError, CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("password", "p", "string", "", "Password or Personal Access Token (PAT)"),
    (
        "password-stdin",
        "",
        "bool",
        "",
        "Take the Password or Personal Access Token (PAT) from stdin",
    ),
    ("username", "u", "string", "", "Username"),
)
_NO_TERMINAL = "Error: Cannot perform an interactive login from a non TTY device"
_PASSWORD_LIMIT = 1 << 20


def run(call: Call) -> int:
    """Log in to a registry, Docker Hub when none is named."""
    _check(call)
    server = credentials.server_named(call.args[0] if call.args else "")
    user, password = call.text("username"), _password(call)
    answer = None
    if not user and not password:
        answer = _with_kept(call, server)
    if answer is None:
        if not user or not password:
            user, password = _asked(call, server, user, password)
        config = {"username": user, "password": password, "serveraddress": server}
        answer = _login(call, config)
        _keep(call, server, config, answer)
    if answer.get("Status"):
        call.say(str(answer["Status"]))
    return 0


def _check(call: Call) -> None:
    if "username" in call.changed and not call.text("username"):
        raise CommandError("username is empty")
    if call.text("password"):
        call.complain("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
        if call.on("password-stdin"):
            raise CommandError(
                "conflicting options: cannot specify both --password and --password-stdin"
            )
    if call.on("password-stdin") and not call.text("username"):
        raise CommandError("the --password-stdin option requires --username to be set")


def _password(call: Call) -> str:
    if not call.on("password-stdin"):
        return call.text("password")
    data = b""
    while len(data) < _PASSWORD_LIMIT and (chunk := os.read(0, 1 << 16)):
        data += chunk
    return data.decode("utf-8", "surrogateescape").rstrip("\r\n")


def _with_kept(call: Call, server: str) -> dict[str, Any] | None:
    """Log in with what is kept; None where nothing is, or it is not good any more."""
    try:
        config = credentials.kept(server, call.environ)
    except CommandError as error:
        call.complain(f"WARNING: {error.message}")
        return None
    if config is None:
        return None
    user = config.get("username", "")
    shown = f" [Username: {user}]" if user else ""
    call.complain(
        f"Authenticating with existing credentials...{shown}\n\n"
        f" Info -> To login with a different account, run '{call.program} logout' followed by "
        f"'{call.program} login'\n\n"
    )
    try:
        answer = _login(call, config)
    except ApiError as error:
        if error.code == 401:
            call.complain("Stored credentials invalid or expired")
        else:
            call.complain(f"Login did not succeed, error: {error.message}")
        return None
    _keep(call, server, config, answer)
    return answer


def _login(call: Call, config: dict[str, str]) -> dict[str, Any]:
    answer = call.client.call("POST", "/auth", config)
    return answer if isinstance(answer, dict) else {}


def _keep(call: Call, server: str, config: dict[str, str], answer: dict[str, Any]) -> None:
    """Keep the identity token that was given, else the password."""
    token = answer.get("IdentityToken")
    kept = {**config, "password": "", "identitytoken": str(token)} if token else config
    credentials.keep(server, kept, call.environ)


def _asked(call: Call, server: str, user: str, password: str) -> tuple[str, str]:
    """Ask at the terminal for what is missing."""
    if not os.isatty(0):
        raise CommandError(_NO_TERMINAL)
    if server == credentials.HUB_SERVER and not user:
        call.say(
            "Log in with your Docker ID or email address to push and pull images from Docker Hub. "
            "If you don't have a Docker ID, head over to https://hub.docker.com/ to create one.\n"
            "You can log in with your password or a Personal Access Token (PAT).\n"
        )
    user = user or _line("Username: ").strip()
    if not user:
        raise CommandError("Error: Non-null Username Required")
    password = password or _hidden_line("Password: ")
    if not password:
        raise CommandError("Error: Password Required")
    return user, password


def _line(prompt: str) -> str:
    sys.stdout.write(prompt)
    sys.stdout.flush()
    answer = b""
    while not answer.endswith(b"\n") and (data := os.read(0, 1)):
        answer += data
    return answer.decode("utf-8", "surrogateescape").rstrip("\r\n")


def _hidden_line(prompt: str) -> str:
    """A line that the terminal does not show."""
    import termios

    before = termios.tcgetattr(0)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(0, termios.TCSAFLUSH, silent)
    try:
        return _line(prompt)
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, before)
        sys.stdout.write("\n")
        sys.stdout.flush()
