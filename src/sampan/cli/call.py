"""What a command's function is given: its flags and arguments, and the engine."""

from __future__ import annotations

import sys

from sampan.cli.address import parse_address
from sampan.cli.client import Client
from sampan.cli.failures import CommandError, ConnectError
from sampan.cli.roots import exec_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Parsed


class Call:
    """One invocation: `call["quiet"]` is a flag's value, `call.args` the arguments."""

    def __init__(self, program: str, name: str, parsed: Parsed, environ: dict[str, str]) -> None:
        self.program = program
        self.name = name
        self.args = parsed.args
        self.changed = parsed.changed
        self.environ = environ
        self.hosts: list[str] = []
        self._values = parsed.values
        self._client: Client | None = None
        self.lease = environ.get("SAMPAN_LEASE", "")

    def __getitem__(self, flag: str) -> object:
        return self._values[flag]

    def text(self, flag: str) -> str:
        """A string flag's value."""
        return str(self._values[flag])

    def number(self, flag: str) -> int:
        """An integer flag's value."""
        return int(self._values[flag])

    def on(self, flag: str) -> bool:
        """A boolean flag's value."""
        return bool(self._values[flag])

    def items(self, flag: str) -> list[str]:
        """A repeated flag's values."""
        return list(self._values[flag])

    def values(self, flag: str) -> list[dict[str, Any]]:
        """A repeated flag's values, read into objects of the API."""
        return list(self._values[flag])

    def pairs(self, flag: str) -> list[tuple[str, str]]:
        """A repeated name=value flag's values."""
        return list(self._values[flag])

    @property
    def address_url(self) -> str:
        """Where the engine is looked for: -H, SAMPAN_HOST, DOCKER_HOST, or the usual socket.

        Raises:
            CommandError: -H was given more than once.
        """
        if len(self.hosts) > 1:
            raise CommandError("specify only one -H")
        if self.hosts:
            return self.hosts[0]
        environ = self.environ
        return environ.get("SAMPAN_HOST") or environ.get("DOCKER_HOST") or self.default_url

    @property
    def default_url(self) -> str:
        """The socket of the engine that belongs to this machine, or to SAMPAN_EXEC_ROOT."""
        return f"unix://{exec_root(self.environ)}/sampan.sock"

    def running_client(self) -> Client:
        """The engine's client, if an engine answers; none is started.

        Raises:
            ConnectError: none does.
        """
        client = self._new_client()
        client.idle = client.connect()
        return client

    def _new_client(self) -> Client:
        version = self.environ.get("DOCKER_API_VERSION", "").removeprefix("v")
        return Client(parse_address(self.address_url), version, self.lease)

    @property
    def client(self) -> Client:
        """The engine's client. Where no engine listens at the usual socket, one is started.

        Raises:
            ConnectError: nothing answers at an address the user gave, or the start failed.
        """
        if self._client is None:
            client = self._new_client()
            try:
                client.idle = client.connect()
            except ConnectError as error:
                if self.address_url != self.default_url or error.hint:
                    raise
                from sampan.cli import autostart

                autostart.start_engine(self, client.address)
                client.idle = client.connect()
            self._client = client
        return self._client

    def renewed_client(self) -> Client:
        """The client of an engine that may be another than before.

        Raises:
            ConnectError: see `client`.
        """
        self._client = None
        return self.client

    def use_lease(self) -> None:
        """Have what the command makes belong to the lease of `--lease`."""
        name = self.text("lease")
        if name:
            if not name.isprintable() or not name.isascii():
                raise CommandError(f"invalid lease name {name!r}")
            self.lease = name

    def fresh_client(self) -> Client:
        """A further client of the same engine, for a request beside another."""
        return Client(self.client.address, self.client.version)

    def say(self, text: str) -> None:
        """A line to standard output."""
        sys.stdout.write(text + "\n")

    def complain(self, text: str) -> None:
        """A line to standard error, behind what standard output has been told."""
        complain(text)


def complain(text: str) -> None:
    """`Call.complain` for what is not given a call."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
