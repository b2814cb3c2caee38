"""How a command ends other than well: a message, perhaps a next step, and an exit status.

Only `sampan.cli.main` prints these. The statuses are docker's: 1 for what the engine or the
arguments refuse, 125 for flags that cannot be read and for a `run` that did not get as far as the
container, 126 and 127 for a command that cannot be executed or found.
"""


class CommandError(Exception):
    """The command ends here with `status`; `message` is one line for stderr, `hint` the next step.

    An empty message says nothing: the streams have told the story already.
    """

    def __init__(
        self, message: str, *, status: int = 1, hint: str = "", prefix: bool = False
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.hint = hint
        self.prefix = prefix


class FlagError(CommandError):
    """A flag is unknown or its value cannot be read (status 125)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=125)


class ApiError(CommandError):
    """The engine answered with an error; `code` is the HTTP status, `reason` its own words."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"Error response from daemon: {reason}")
        self.code = code
        self.reason = reason


class ConnectError(CommandError):
    """No engine answers at the address."""
