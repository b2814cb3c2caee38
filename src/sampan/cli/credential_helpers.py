"""Credential helpers: programs `docker-credential-NAME` that keep passwords where the system does.

The verb is the argument, what it is about stands on standard input, the answer on standard output.
Source: the protocol of docker-credential-helpers.
"""

from __future__ import annotations

import errno
import os

from sampan.cli import jsontext
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PREFIX = "docker-credential-"
ANSWER_LIMIT = 1 << 20
# A helper's words for "I know nobody there"; no failure.
_UNKNOWN = "credentials not found in native keychain"
# A helper's user name for an identity token.
TOKEN_USER = "<token>"


class HelperError(CommandError):
    """A helper cannot be run, or says that it failed."""


def get(helper: str, server: str) -> dict[str, str] | None:
    """What a helper knows for a server, as docker's AuthConfig; None for nothing.

    Raises:
        HelperError: with docker's text.
    """
    status, output = _run(helper, "get", server)
    if status:
        if _UNKNOWN in output:
            return None
        raise HelperError(
            f"error getting credentials - err: exit status {status}, out: `{output.strip()}`"
        )
    try:
        answer = jsontext.decode(output)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, LookupError, TypeError):
        raise HelperError(f"error getting credentials - {PREFIX}{helper} gave no JSON") from None
    if user == TOKEN_USER:
        return {"identitytoken": secret, "serveraddress": server}
    return {"username": user, "password": secret, "serveraddress": server}


def store(helper: str, server: str, user: str, secret: str) -> None:
    """Have a helper keep a secret.

    Raises:
        HelperError: with docker's text.
    """
    value: dict[str, Any] = {"ServerURL": server, "Username": user, "Secret": secret}
    _do(helper, "store", jsontext.encode(value), "storing")


def erase(helper: str, server: str) -> None:
    """Have a helper forget a server; nothing happens where it knows none.

    Raises:
        HelperError: with docker's text.
    """
    _do(helper, "erase", server, "erasing")


def _do(helper: str, verb: str, given: str, doing: str) -> None:
    status, output = _run(helper, verb, given)
    if status and _UNKNOWN not in output:
        raise HelperError(
            f"error {doing} credentials - err: exit status {status}, out: `{output.strip()}`"
        )


def _run(helper: str, verb: str, given: str) -> tuple[int, str]:
    """Run a helper; its status and what it printed."""
    name = PREFIX + helper
    if "/" in helper:
        raise HelperError(f"the credential helper's name holds a slash: {helper!r}")
    input_end, our_end = os.pipe2(os.O_CLOEXEC)
    from_helper, output_end = os.pipe2(os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, input_end, 0), (os.POSIX_SPAWN_DUP2, output_end, 1)]
        try:
            pid = os.posix_spawnp(name, [name, verb], os.environ, file_actions=actions)
        except OSError as error:
            what = (
                "executable file not found in $PATH"
                if error.errno == errno.ENOENT
                else (error.strerror or str(error)).lower()
            )
            doing = {"get": "getting", "store": "storing", "erase": "erasing"}[verb]
            raise HelperError(
                f'error {doing} credentials - err: exec: "{name}": {what}, out: ``'
            ) from None
    except BaseException:
        os.close(our_end)
        os.close(from_helper)
        raise
    finally:
        os.close(input_end)
        os.close(output_end)
    try:
        _feed(our_end, given)
        output = _drain(from_helper)
    finally:
        os.close(from_helper)
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), output


def _feed(fd: int, given: str) -> None:
    """Write what is small enough for a pipe; a helper that does not read it is no failure."""
    try:
        os.write(fd, given.encode("utf-8", "surrogateescape"))
    except BrokenPipeError:
        return
    finally:
        os.close(fd)


def _drain(fd: int) -> str:
    data = b""
    while chunk := os.read(fd, 1 << 16):
        data = (data + chunk)[:ANSWER_LIMIT]
    return data.decode("utf-8", "replace")
