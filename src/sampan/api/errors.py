"""Kinds of failure as HTTP answers: the one table."""

from __future__ import annotations

from sampan import errors
from sampan.images.distribution.failures import Temporary

STATUSES: dict[type[errors.SampanError], int] = {
    errors.InvalidArgument: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.NotModified: 304,
    errors.RuntimeFailure: 500,
    errors.Unsupported: 501,
    errors.Unavailable: 503,
    Temporary: 500,  # of a registry, not of this engine: what dockerd answers
}

# A start that fails because of what the client asked to run is the client's mistake; dockerd tells
# by the text of runc's message, as `docker run` does for its exit codes 126 and 127.
STAGES_OF_THE_CLIENT = frozenset({"exec"})


def status_of(failure: errors.SampanError) -> int:
    """The HTTP status of a failure; 500 for a kind without a place in the table."""
    if isinstance(failure, errors.RuntimeFailure) and failure.stage in STAGES_OF_THE_CLIENT:
        return 400
    for kind in type(failure).__mro__:
        if (status := STATUSES.get(kind)) is not None:
            return status
    return 500


def text_of(failure: errors.SampanError) -> str:
    """The message for the client, with the next step where there is one."""
    return f"{failure.message} ({failure.hint})" if failure.hint else failure.message
