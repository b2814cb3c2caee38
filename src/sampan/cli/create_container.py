"""Creating a container: the request, the pull of an image that is not there, the ID file."""

from __future__ import annotations

import os

from sampan.cli.client import query
from sampan.cli.failures import ApiError, CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

PULL_CHOICES = ("always", "missing", "never")


def check(call: Call) -> None:
    """Refuse what cannot be asked of any engine.

    Raises:
        CommandError: a flag's value is none of its choices, or the flag is not supported.
    """
    call.use_lease()
    pull = call.text("pull")
    if pull not in PULL_CHOICES:
        raise CommandError(
            f'invalid pull option: \'{pull}\': must be one of "always", "missing" or "never"'
        )
    if call.on("use-api-socket"):
        raise CommandError("--use-api-socket is not supported: bind mount the engine's socket")


def create(call: Call, body: dict[str, Any]) -> str:
    """Create the container that `body` describes; its ID.

    Raises:
        CommandError: the engine refused, or the ID file is taken.
    """
    pull = call.text("pull")
    cidfile = call.text("cidfile")
    if cidfile and os.path.exists(cidfile):
        raise CommandError(
            f"container ID file found, make sure the other container isn't running or delete {cidfile}"
        )
    if pull == "always":
        _pull(call, body["Image"])
    answer = _request(call, body, retry=pull == "missing")
    for warning in answer.get("Warnings") or ():
        call.complain(f"WARNING: {warning}")
    if cidfile:
        _write_cidfile(cidfile, answer["Id"])
    return str(answer["Id"])


def _request(call: Call, body: dict[str, Any], *, retry: bool) -> Any:
    platform = call.text("platform") or call.environ.get("DOCKER_DEFAULT_PLATFORM", "")
    path = f"/containers/create{query(name=call.text('name'), platform=platform)}"
    try:
        return call.client.call("POST", path, body)
    except ApiError as error:
        if error.code == 400:
            _say_bad_reference(body["Image"])
        if error.code != 404 or not retry or not _is_about_the_image(error.reason.lower()):
            raise
        from sampan.cli.references import familiar, is_identity

        if is_identity(body["Image"]):
            raise  # an ID is in no registry

    call.complain(f"Unable to find image '{familiar(body['Image'])}' locally")
    _pull(call, body["Image"])
    return call.client.call("POST", path, body)


def _say_bad_reference(image: str) -> None:
    """If that is what the engine refused, refuse it as docker does, which never asks the engine."""
    from sampan.cli import references

    if not references.is_identity(image):
        references.split(image)


def _is_about_the_image(reason: str) -> bool:
    """Whether a pull may help: there is no such image, or the one that there is is another platform's."""
    return "no such image" in reason or "the specified platform" in reason


def _pull(call: Call, image: str) -> None:
    """Fetch the image; progress goes to stderr, as standard output is the container's."""
    from sampan.cli import pulling, references

    repository, tag, digest = references.split(image)
    pulling.fetch(
        call,
        repository,
        digest or tag or "latest",
        platform=pulling.platform_of(call),
        fd=2,
        quiet=call.on("quiet"),
    )


def _write_cidfile(path: str, identifier: str) -> None:
    try:
        with open(path, "x", encoding="ascii") as file:
            file.write(identifier)
    except OSError as error:
        raise CommandError(f"failed to create the container ID file: {error}") from None
