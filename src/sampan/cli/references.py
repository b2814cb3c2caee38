"""Image references, no more of them than a client must take apart; the engine checks the rest."""

from __future__ import annotations

from sampan.cli.failures import CommandError

_HEX = frozenset("0123456789abcdef")


def repository_and_tag(text: str) -> tuple[str, str]:
    """`name[:tag]` as repository and tag, `latest` where there is none.

    Raises:
        CommandError: in docker's words, when the text cannot be a reference.
    """
    repository, tag, digest = split(text)
    if digest and not _is_digest(digest):
        raise _invalid(text)
    if digest:
        raise CommandError("refusing to create a tag with a digest reference")
    return repository, tag or "latest"


def split(text: str) -> tuple[str, str, str]:
    """Repository, tag and digest of a reference, "" for what it lacks.

    Raises:
        CommandError: in docker's words.
    """
    rest, _, digest = text.partition("@")
    slash = rest.rfind("/")
    colon = rest.find(":", slash + 1)
    repository, tag = (rest[:colon], rest[colon + 1 :]) if colon >= 0 else (rest, "")
    path = repository[slash + 1 :] if slash >= 0 else repository
    if not path or (colon >= 0 and not tag) or any(letter.isspace() for letter in text):
        raise _invalid(text)
    if path != path.lower():
        full = repository if slash >= 0 else f"library/{repository}"
        raise _invalid(text, f": repository name ({full}) must be lowercase")
    return repository, tag, digest


def _is_digest(text: str) -> bool:
    algorithm, _, digits = text.partition(":")
    return bool(algorithm) and len(digits) >= 32 and _HEX.issuperset(digits)


def _invalid(text: str, detail: str = "") -> CommandError:
    return CommandError(
        f'Error parsing reference: "{text}" is not a valid repository/tag:'
        f" invalid reference format{detail}"
    )


def familiar(text: str) -> str:
    """A reference as docker shows it to people: with its tag, `latest` if it has neither."""
    repository, tag, digest = split(text)
    if digest:
        return text
    return f"{repository}:{tag or 'latest'}"
