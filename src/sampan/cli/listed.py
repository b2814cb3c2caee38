"""The same request for each of several objects, at once: what `stop a b c` and `rm a b c` do.

Requests go out on a connection each, at most 50 at a time as docker has it; answers are told in the
order of the arguments, failures on stderr in docker's order, and the status is 1 if any failed.
"""

from __future__ import annotations

from sampan.cli.client import Response, broken, checked
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sampan.cli.call import Call
    from sampan.cli.client import Client, Connection

AT_ONCE = 50


def for_each(
    call: Call,
    method: str,
    path: Callable[[str], str],
    *,
    names: Sequence[str] | None = None,
    done: Callable[[str, bytes], str] | None = None,
    failed: Callable[[str, CommandError], str] | None = None,
) -> int:
    """Send `method path(name)` for each name; print each name, or what `done` makes of the answer."""
    names = call.args if names is None else names
    failures: list[str] = []
    for start in range(0, len(names), AT_ONCE):
        batch = names[start : start + AT_ONCE]
        for name, outcome in zip(batch, _exchange(call, method, path, batch), strict=True):
            if isinstance(outcome, CommandError):
                failures.append(failed(name, outcome) if failed else outcome.message)
            else:
                call.say(done(name, outcome) if done else name)
    for failure in failures:
        if failure:
            call.complain(failure)
    return 1 if failures else 0


def _exchange(
    call: Call, method: str, path: Callable[[str], str], names: Sequence[str]
) -> Iterator[bytes | CommandError]:
    """All requests first, then the answers, each as soon as it and those before it are there."""
    client = call.client
    sent = [_send(client, method, path(name), index > 0) for index, name in enumerate(names)]
    for connection in sent:
        yield _receive(connection, method)


def _send(client: Client, method: str, path: str, fresh: bool) -> Connection | CommandError:
    try:
        return client.send(method, path, fresh=fresh)
    except CommandError as error:
        return error
    except OSError as error:
        return broken(error)


def _receive(connection: Connection | CommandError, method: str) -> bytes | CommandError:
    if isinstance(connection, CommandError):
        return connection
    try:
        return checked(Response(connection, method, None)).read()
    except CommandError as error:
        return error
    except OSError as error:
        return broken(error)
