"""What a registry can do wrong, for `support.faulty_proxy`: orders, each about one request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Cut:
    """The answer's head, `after` bytes of its body, then the end of the connection.

    With `reset` it ends by a reset, and of the last bytes some may not arrive.
    """

    after: int = 0
    reset: bool = False


@dataclass
class CutUpload:
    """`after` bytes of the request's body reach the registry, then both connections end.

    With `end`, the registry gets all, and the client the end in place of the answer.
    """

    after: int = 0
    end: bool = False


@dataclass
class StallUpload:
    """`after` bytes of the request's body are read, then no more until `proxy.release()`."""

    after: int = 0


@dataclass
class Stall:
    """The answer's head, `after` bytes of its body, then nothing until `proxy.release()`."""

    after: int = 0


@dataclass
class StallHead:
    """Nothing at all until `proxy.release()`; then the true answer."""


@dataclass
class Corrupt:
    """The true answer with its byte at `offset` changed: the wrong digest."""

    offset: int = 0


@dataclass
class WrongLength:
    """A Content-Length that is off by `by`; what it promises too much never comes."""

    by: int


@dataclass
class Header:
    """The true answer with these headers set; None takes one away."""

    headers: Mapping[str, str | None]


@dataclass
class Answer:
    """This answer, without asking the registry."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Redirect:
    """307 to the same path below another URL; to the proxy itself (a circle) without one."""

    url: str = ""
    status: int = 307


@dataclass
class IgnoreRange:
    """The whole body with 200, whatever part was asked for."""


Fault = (
    Cut
    | CutUpload
    | StallUpload
    | Stall
    | StallHead
    | Corrupt
    | WrongLength
    | Header
    | Answer
    | Redirect
    | IgnoreRange
)
