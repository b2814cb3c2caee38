"""Starting a created container, and being its terminal: what `run`, `start -a` and `attach` share."""

from __future__ import annotations

from sampan.cli import streams, terminal
from sampan.cli.client import query, quote
from sampan.cli.failures import ApiError, CommandError, ConnectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.cli.call import Call
    from sampan.cli.client import Connection, Response

ATTEMPTS = 4
NOT_FOUND = ("executable file not found", "no such file or directory")
NOT_EXECUTABLE = ("permission denied", "is a directory")


def start_status(message: str) -> int:
    """The exit status of a container that could not be started: 126, 127 or 125, as docker has it."""
    lowered = message.lower()
    if any(text in lowered for text in NOT_FOUND):
        return 127
    if any(text in lowered for text in NOT_EXECUTABLE):
        return 126
    return 125


def attach(
    call: Call, identifier: str, *, stdin: bool, stdout: bool, stderr: bool, keys: str = ""
) -> Connection:
    """A hijacked stream of the container's stdio."""
    values = query(stderr=stderr, stdin=stdin, stdout=stdout, stream=True, detachKeys=keys)
    return call.client.hijack(f"/containers/{quote(identifier)}/attach{values}")


def wait(call: Call, identifier: str, condition: str) -> Response:
    """A request that is answered when the container ends; when this returns it is registered."""
    values = query(condition=condition)
    return call.client.open("POST", f"/containers/{quote(identifier)}/wait{values}", fresh=True)


def exit_status(response: Response, call: Call, identifier: str) -> int:
    """The container's exit code from the answer of `wait`.

    An engine that ends while the container runs does not end the container, nor the streams, which
    its shim holds. So whichever engine answers next is asked for what became of it.
    """
    try:
        answer = next(response.values(), None)
    except ConnectError:
        answer = None
    if answer is None:
        answer = _ask_again(call, f"/containers/{quote(identifier)}/wait")
    problem = (answer.get("Error") or {}).get("Message")
    if problem:
        call.complain(f"Error waiting for container: {problem}")
        return 125
    return int(answer["StatusCode"])


def start(call: Call, identifier: str, keys: str = "") -> None:
    """Start a created container."""
    values = query(detachKeys=keys)
    call.client.call("POST", f"/containers/{quote(identifier)}/start{values}")


def _ask_again(call: Call, path: str) -> Any:
    """Ask the engine that answers next; one that is about to end may take a connection yet."""
    for _ in range(ATTEMPTS - 1):
        try:
            return call.renewed_client().call("POST", path)
        except ConnectError:
            continue
    return call.renewed_client().call("POST", path)


class Attachment:
    """A hijacked stream with what belongs to it: detach keys, window size, forwarded signals.

    `path` is what is resized, `/containers/ID` or `/exec/ID`; `proxied` the container that signals
    are sent on to, "" for none.
    """

    def __init__(
        self,
        call: Call,
        connection: Connection,
        *,
        path: str,
        tty: bool,
        stdin: bool,
        keys: str = "",
        proxied: str = "",
    ) -> None:
        self._side: Any = None
        self._call = call
        self._path = path
        self._proxied = proxied
        self._session = streams.Session(
            connection,
            tty=tty,
            stdin=stdin,
            keys=streams.detach_keys(keys) if tty else b"",
            caught=terminal.FORWARDED if proxied else (),
            on_signal=self._forward if proxied else None,
            on_resize=self._resize if tty and terminal.window_size(1) is not None else None,
        )

    def run(self, started: Callable[[], None] | None = None) -> bool:
        """Copy until the end (True) or until the user detaches (False)."""
        return self._session.run(started)

    def _request(self, path: str) -> None:
        """A request beside the stream; that process or engine have just ended is no failure."""
        if self._side is None:
            self._side = self._call.fresh_client()
        try:
            self._side.call("POST", path)
        except (ApiError, ConnectError):
            return

    def _resize(self, rows: int, columns: int) -> None:
        self._request(f"{self._path}/resize{query(h=str(rows), w=str(columns))}")

    def _forward(self, number: int) -> None:
        values = query(signal=str(number))
        self._request(f"/containers/{quote(self._proxied)}/kill{values}")


def as_run_failure(error: CommandError, status: int) -> CommandError:
    """A failure of `run` or `create` under the program's name."""
    return CommandError(error.message, status=status, hint=error.hint, prefix=True)
