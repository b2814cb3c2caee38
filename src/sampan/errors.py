"""The few kinds of failure.

A kind says what went wrong for the user; `sampan.api.errors` turns kinds into HTTP statuses in one
table. A message names the object, the refusal and the reason. Where a real client matches on
dockerd's text, the text is dockerd's.
"""


class SampanError(Exception):
    """A failure with a message fit for the user.

    `hint` is the next step, where there is one; it is shown on a line of its own by the CLI.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidArgument(SampanError):
    """The request cannot be meant: a bad value, shape or combination."""


class NotFound(SampanError):
    """The named object does not exist."""


class Conflict(SampanError):
    """The object's state or another object forbids it."""


class NotModified(SampanError):
    """The object already is as asked for."""


class Unauthorized(SampanError):
    """Credentials are missing or wrong."""


class Forbidden(SampanError):
    """Credentials are fine and do not allow it."""


class Unsupported(SampanError):
    """This engine, kernel or machine cannot do it."""


class Unavailable(SampanError):
    """It cannot be done now, and may be later."""


class RuntimeFailure(SampanError):
    """A stage between the request and the container's first instruction failed.

    `stage` is the step in the words of the kernel or the spec (`mount`, `pivot_root`, `exec`,
    `cgroup` …), `path` the file it was about, `errno` the kernel's number, if it was the kernel.
    """

    def __init__(
        self,
        stage: str,
        message: str,
        *,
        path: str | None = None,
        errno: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.stage = stage
        self.path = path
        self.errno = errno
