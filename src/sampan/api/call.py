"""One request, as a handler sees it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from typing import TypeVar
from urllib.parse import parse_qs

from aiohttp.web_request import BaseRequest

from sampan.api import codec, versions
from sampan.api.connection import Connection
from sampan.api.versions import NEWEST, Version
from sampan.errors import InvalidArgument

Value = TypeVar("Value")

FALSE_WORDS = frozenset({"", "0", "no", "false", "none"})

_LONGEST_INTEGER = 40  # leading zeros are fine, thousands of digits are not Python's either
_INTEGER = re.compile(r"[+-]?[0-9]+")


class Call:
    """A request: what it asks for, in which version, and its body.

    `version` is None for a path without one. `parameters` are the path's placeholders in order.
    `answer_headers` stand in every answer; `begun` is true once a head that cannot be taken back
    was sent. `warnings` are what there is to say of a request of its version.
    """

    def __init__(self, request: BaseRequest, answer_headers: Mapping[str, str]) -> None:
        self.request = request
        self.answer_headers = answer_headers
        self.begun = False
        self.version: Version | None = None
        self.parameters: list[str] = []
        self.query_text = ""
        self.warnings: list[str] = []

    @property
    def effective_version(self) -> Version:
        return self.version or NEWEST

    @property
    def connection(self) -> Connection:
        connection = self.request.protocol
        assert isinstance(connection, Connection)
        return connection

    def header(self, name: str) -> str:
        return self.request.headers.get(name, "")

    # The query

    @cached_property
    def query(self) -> Mapping[str, list[str]]:
        if not self.query_text:
            return {}
        return parse_qs(self.query_text, keep_blank_values=True, errors="replace")

    def text(self, name: str, default: str = "") -> str:
        """A parameter's first value."""
        values = self.query.get(name)
        return values[0] if values else default

    def texts(self, name: str) -> list[str]:
        """All values of a parameter."""
        return self.query.get(name, [])

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean as dockerd reads it: anything but nothing, 0, no, false and none is true."""
        if name not in self.query:
            return default
        return self.text(name).strip().lower() not in FALSE_WORDS

    def integer(self, name: str) -> int | None:
        """A number, None when it is not given or empty.

        Raises:
            InvalidArgument: it is no number; with Go's text.
        """
        text = self.text(name)
        if not text:
            return None
        if _INTEGER.fullmatch(text) is None:
            raise InvalidArgument(f'strconv.Atoi: parsing "{text}": invalid syntax')
        if len(text) > _LONGEST_INTEGER:
            raise InvalidArgument(f'strconv.Atoi: parsing "{text[:40]}…": value out of range')
        number = int(text)
        if not codec.INT64_MIN <= number <= codec.INT64_MAX:
            raise InvalidArgument(f'strconv.Atoi: parsing "{text}": value out of range')
        return number

    def needed_integer(self, name: str) -> int:
        """A number that has to be given; see `integer`."""
        number = self.integer(name)
        if number is None:
            raise InvalidArgument('strconv.Atoi: parsing "": invalid syntax')
        return number

    def filters(self) -> dict[str, list[str]]:
        """The parameter `filters`: `{"status": {"running": true}}`, or the old `{"status": [..]}`.

        Raises:
            InvalidArgument: it is neither.
        """
        text = self.text("filters")
        if not text:
            return {}
        value = codec.parse(text.encode())
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InvalidArgument(f"invalid filter: {text[:200]}")
        return {name: _filter_values(name, wanted) for name, wanted in value.items()}

    # The body

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            InvalidArgument: more than a JSON body can be; what is over is not kept.
        """
        declared = self.request.content_length
        if declared is not None and declared > codec.BODY_LIMIT_BYTES:
            raise InvalidArgument(_TOO_LARGE)
        parts, size = [], 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > codec.BODY_LIMIT_BYTES:
                raise InvalidArgument(_TOO_LARGE)
            parts.append(chunk)
        return b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes; reading slowly slows the client."""
        if self.header("Expect").lower() == "100-continue" and self.request.transport is not None:
            self.request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        async for chunk in self.request.content.iter_any():
            yield chunk

    async def json(self, type: type[Value], kind: str = "") -> Value:
        """The body as a value of `type`; of a `kind` of request that older versions had otherwise.

        Raises:
            InvalidArgument: the Content-Type is not JSON's, or see `codec.decode`.
        """
        self.check_json()
        return self._decoded(await self.body(), type, kind)

    async def optional_json(self, type: type[Value], kind: str = "") -> Value | None:
        """The body as a value, None when there is none."""
        self.check_json()
        body = await self.body()
        return self._decoded(body, type, kind) if body.strip() else None

    def _decoded(self, body: bytes, type: type[Value], kind: str) -> Value:
        if not kind:
            return codec.decode(body, type)
        value = codec.decode(
            body, type, lambda document: versions.moved(kind, document, self.version)
        )
        self.warnings += versions.request(kind, value, self.version)
        return value

    def check_json(self) -> None:
        """Refuse a Content-Type other than JSON's, as dockerd does; none is fine without a body."""
        declared = self.header("Content-Type")
        if not declared and not self.request.can_read_body:
            return
        if declared.partition(";")[0].strip().lower() != "application/json":
            raise InvalidArgument(
                f"unsupported Content-Type header ({declared}): must be 'application/json'"
            )


_TOO_LARGE = f"the request's body is larger than {codec.BODY_LIMIT_BYTES >> 20} MiB"


def _filter_values(name: str, wanted: object) -> list[str]:
    if isinstance(wanted, dict):
        return [value for value, given in wanted.items() if given]
    if isinstance(wanted, list) and all(isinstance(value, str) for value in wanted):
        return list(wanted)
    raise InvalidArgument(f"invalid filter '{name}'")
