"""Who asked: the client on whose behalf something happens.

The API says so where a request begins; whatever the request starts inherits it, as context variables
do. Work that goes on by itself runs in a context of its own: nobody asked.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import msgspec

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Requester(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client. Of a unix socket: its user and process when it connected (SO_PEERCRED, unix(7));
    else its address, and the subject of its certificate where it showed one."""

    uid: int | None = None
    gid: int | None = None
    pid: int | None = None
    address: str = ""
    certificate: str = ""


current: contextvars.ContextVar[Requester | None] = contextvars.ContextVar("current", default=None)
"""Who asked for what runs now; None: nobody, the engine does it by itself."""


def by_nobody(
    function: Callable[Given, Result], *given: Given.args, **named: Given.kwargs
) -> Result:
    """Call a function whose work, and the tasks it starts, nobody asked for."""
    return contextvars.Context().run(function, *given, **named)
