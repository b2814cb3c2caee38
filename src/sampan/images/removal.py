"""When an image may go, and what to say when not: the rules and the texts of dockerd."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sampan.errors import Conflict
from sampan.images.image import Image
from sampan.oci.digest import short_id
from sampan.oci.reference import Reference

Users = Sequence[tuple[str, bool]]
"""The containers of an image: their IDs, and whether they are running."""
InUse = Callable[[str], Users]
"""The containers of an image ID."""


def is_single_reference(references: Sequence[Reference]) -> bool:
    """Whether they are one name: one tag, with digests of the same repository at most."""
    if len(references) <= 1:
        return len(references) == 1
    tags = [reference for reference in references if not reference.digest]
    digested = {reference.repository for reference in references if reference.digest}
    if len(tags) > 1:
        return False
    single = tags[0] if tags else references[0]
    return digested == {single.repository}


def check_untag(image: Image, text: str, users: Users) -> None:
    """Refuse to take the last name away from an image in use.

    Raises:
        Conflict: dockerd's text.
    """
    if users and is_single_reference(image.references):
        raise Conflict(
            f'conflict: unable to remove repository reference "{text}" (must force) - container '
            f"{short_id(users[0][0])} is using its referenced image {short_id(image.id)}"
        )


def check_delete(
    image: Image, users: Users, *, force: bool, referenced: bool, children: bool = False
) -> None:
    """Refuse to delete an image that something needs.

    Images that were committed on it and running containers always do; with `force`, stopped ones
    and other references do not.

    Raises:
        Conflict: dockerd's text.
    """
    if children:
        raise _conflict(image, "cannot be forced", "image has dependent child images")
    running = [identity for identity, is_running in users if is_running]
    if running:
        reason = f"image is being used by running container {short_id(running[0])}"
        raise _conflict(image, "cannot be forced", reason)
    if force:
        return
    if referenced:
        raise _conflict(image, "must be forced", "image is referenced in multiple repositories")
    if users:
        reason = f"image is being used by stopped container {short_id(users[0][0])}"
        raise _conflict(image, "must be forced", reason)


def _conflict(image: Image, how: str, reason: str) -> Conflict:
    return Conflict(f"conflict: unable to delete {short_id(image.id)} ({how}) - {reason}")
