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


def named(text: str) -> tuple[str, str, str]:
    """`split` for commands that name an image in a registry, with the words that docker has there.

    Raises:
        CommandError: the text is no reference.
    """
    try:
        repository, tag, digest = split(text)
    except CommandError:
        path = _path(text.partition("@")[0])
        if path != path.lower() and not any(letter.isspace() for letter in text):
            name = path.rpartition(":")[0] if ":" in path else path
            raise CommandError(
                f"invalid reference format: repository name ({name}) must be lowercase"
            ) from None
        raise CommandError("invalid reference format") from None
    if ("@" in text and not _is_digest(digest)) or not repository[:1].isalnum() or "//" in text:
        raise CommandError("invalid reference format")
    return repository, tag, digest


def full(repository: str, tag: str, digest: str) -> str:
    """A reference with all that docker leaves out: `docker.io/library/busybox:latest`."""
    domain, path = _domain(repository), _path(repository)
    tail = (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    return f"{domain}/{path}{tail}"


def _domain(repository: str) -> str:
    """The registry's host; what has no dot, colon or capital and is not localhost is none."""
    head, slash, _ = repository.partition("/")
    is_host = "." in head or ":" in head or head == "localhost" or head != head.lower()
    if not slash or not is_host or head == "index.docker.io":
        return "docker.io"
    return head


def _path(repository: str) -> str:
    """The repository in its registry, with Docker Hub's own `library/`."""
    head, slash, rest = repository.partition("/")
    is_host = "." in head or ":" in head or head == "localhost" or head != head.lower()
    path = rest if slash and is_host else repository
    return f"library/{path}" if _domain(repository) == "docker.io" and "/" not in path else path
