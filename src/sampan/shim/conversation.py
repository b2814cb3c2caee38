"""The daemon's end of a control connection: requests and their answers, and streams handed over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sampan.errors import Unavailable
from sampan.shim import protocol
from sampan.shim.channel import Channel

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from sampan.shim.protocol import Message
    from sampan.shim.streams import ClientStream


class NotBegun(Exception):
    """The request never reached a shim: nothing was done, it can be made again."""


class Conversation:
    """What the connections to a container's shim and to an exec's keeper have in common.

    `started` is resolved when the process has exec'd, or fails: RuntimeFailure of a stage, NotBegun, or
    Unavailable when the peer died on the way. `name` is for the user: "the shim of …".
    """

    def __init__(self, sock: socket.socket, name: str) -> None:
        self.name = name
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begun = False
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._streams: dict[int, ClientStream] = {}
        self._last_number = 0
        self._channel = Channel(sock, on_message=self._receive, on_closed=self._lost)

    async def request(self, kind: str, fds: Sequence[int] = (), **body: Any) -> Message:
        """One request and its answer.

        Raises:
            RuntimeFailure: the peer refused or failed.
            Unavailable: the peer is gone.
        """
        number = self._next_number()
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            await self._channel.send({"type": kind, "seq": number, **body}, fds)
            return await answer
        except OSError as error:
            raise self._unavailable() from error
        finally:
            self._answers.pop(number, None)

    async def close(self) -> None:
        """Stop watching; who is at the other end goes on."""
        self._channel.close()
        self._fail_requests()

    def adopt_streams(self, streams: Sequence[ClientStream]) -> list[dict[str, Any]]:
        """Number streams that go with the first request; their options for its message."""
        return [self._register(stream) for stream in streams]

    def _register(self, stream: ClientStream) -> dict[str, Any]:
        number = self._next_number()
        self._streams[number] = stream
        return stream.options(number).to_dict()

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    # What the peer says

    def _receive(self, message: Message, fds: list[int]) -> None:
        kind = message.get("type")
        if kind == "answer":
            self._answer(message["seq"], message)
        elif kind == "failed":
            self._failed(message)
        elif kind == "begun":
            self._begun = True
        elif kind == "started":
            self._take_started(message["started"], fds)
            if not self.started.done():
                self.started.set_result(None)
        elif kind == "stream_end":
            self._end_stream(message["stream"], message["reason"])
        else:
            self._event(message, fds)

    def _take_started(self, data: Message, fds: list[int]) -> None:
        """Note the news of the process; takes descriptors out of `fds` that it keeps."""
        raise NotImplementedError

    def _event(self, message: Message, fds: list[int]) -> None:
        """Whatever else the peer says; `fds` as for `_take_started`."""
        raise NotImplementedError

    def _end(self) -> None:
        """The peer is gone; all that waited for it has been told."""
        raise NotImplementedError

    def _answer(self, number: int, message: Message) -> None:
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _failed(self, message: Message) -> None:
        failure = protocol.failure_from_dict(message)
        number = message.get("seq")
        waiter: asyncio.Future[Any] | None = self.started
        if number is not None:
            waiter = self._answers.get(number)
        if waiter is not None and not waiter.done():
            waiter.set_exception(failure)

    def _end_stream(self, number: int, reason: str) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None and stream.on_end is not None:
            stream.on_end(reason)

    def _lost(self) -> None:
        self._fail_requests()
        if not self._begun:
            self._streams.clear()  # still the caller's
        for number in list(self._streams):
            self._end_stream(number, protocol.CLOSED)
        if not self.started.done():
            self.started.set_exception(self._unavailable() if self._begun else NotBegun())
        self._end()

    def _fail_requests(self) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(self._unavailable())
        self._answers.clear()

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"{self.name} is gone")
