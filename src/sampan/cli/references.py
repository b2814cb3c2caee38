"""Image references as the docker command reads them, before an engine is asked.

The distribution project's reference grammar and its normalisation, by hand: `re` would cost more than
the whole of `sampan run`. tests/cli/test_references.py compares it with `sampan.oci.reference`, and with
the real docker.
"""

from __future__ import annotations

from sampan.cli.failures import CommandError

_HEX = frozenset("0123456789abcdef")
_HEX_ANY = frozenset("0123456789abcdefABCDEF")
_DIGITS = frozenset("0123456789")
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_WORD = _LETTERS | _DIGITS
_TAG = _WORD | frozenset("_.-")
_DIGEST_SIZES = {"sha256": 64, "sha384": 96, "sha512": 128}
_PATH_MAX, _TAG_MAX, _DIGEST_MIN = 255, 128, 32
_INVALID = "invalid reference format"


def parse(text: str) -> tuple[str, str, str, str]:
    """Domain, path, tag and digest of a reference, "" for what it lacks.

    Raises:
        ValueError: what is wrong, in docker's words.
    """
    if len(text) == 64 and _HEX.issuperset(text):
        raise ValueError(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    domain, remainder = _split_domain(text)
    remote = remainder.partition(":")[0]
    if remote != remote.lower():
        raise ValueError(f"{_INVALID}: repository name ({remote}) must be lowercase")
    rest, at, digest = remainder.partition("@")
    path, colon, tag = rest.partition(":")
    if not (
        (_is_domain(domain) or _is_component(domain))
        and all(map(_is_component, path.split("/")))
        and (not colon or (len(tag) <= _TAG_MAX and tag[:1] not in ("", ".", "-") and _TAG.issuperset(tag)))
        and (not at or _is_digest_text(digest))
    ):  # fmt: skip
        raise ValueError(_INVALID)
    if len(path) > _PATH_MAX:
        raise ValueError("repository name must not be more than 255 characters")
    if at:
        _check_digest(digest)
    return domain, path, tag, digest


def split(text: str) -> tuple[str, str, str]:
    """Repository (as docker shows it), tag and digest of a reference, "" for what it lacks.

    Raises:
        CommandError: it is none.
    """
    try:
        domain, path, tag, digest = parse(text)
    except ValueError as error:
        raise CommandError(str(error)) from None
    return _familiar_name(domain, path), tag, digest


named = split


def repository_and_tag(text: str) -> tuple[str, str]:
    """Repository and tag of a new name, `latest` where there is no tag.

    Raises:
        CommandError: it is no reference, or has a digest.
    """
    repository, tag, digest = _of_tag(text)
    if digest:
        raise CommandError("refusing to create a tag with a digest reference")
    return repository, tag or "latest"


def check_source(text: str) -> None:
    """Check what `tag` is to give another name: a reference or an ID.

    Raises:
        CommandError: it is neither.
    """
    if not is_identity(text):
        _of_tag(text)


def is_identity(text: str) -> bool:
    """Whether a text is a whole ID, with `sha256:` or without."""
    text = text.removeprefix("sha256:")
    return len(text) == 64 and _HEX.issuperset(text)


def familiar(text: str) -> str:
    """A reference as docker shows it to people: with its tag, `latest` if it has neither.

    Raises:
        CommandError: it is none.
    """
    repository, tag, digest = split(text)
    if not digest:
        return f"{repository}:{tag or 'latest'}"
    return f"{repository}:{tag}@{digest}" if tag else f"{repository}@{digest}"


def full(repository: str, tag: str, digest: str) -> str:
    """A reference with all that docker leaves out: `docker.io/library/busybox:latest`."""
    domain, path = _split_domain(repository)
    tail = (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    return f"{domain}/{path}{tail}"


def _of_tag(text: str) -> tuple[str, str, str]:
    try:
        return split(text)
    except CommandError as error:
        from sampan.cli.units import quote

        raise CommandError(
            f"Error parsing reference: {quote(text)} is not a valid repository/tag: {error.message}"
        ) from None


# -- The grammar ------------------------------------------------------------------------------------


def _split_domain(text: str) -> tuple[str, str]:
    """The registry and the rest, with Docker Hub's own `library/`.

    What has no dot, colon or capital and is not localhost is no registry.
    """
    head, slash, rest = text.partition("/")
    is_host = "." in head or ":" in head or head == "localhost" or head != head.lower()
    domain, remainder = (head, rest) if slash and is_host else ("docker.io", text)
    if domain == "index.docker.io":
        domain = "docker.io"
    if domain == "docker.io" and "/" not in remainder:
        remainder = f"library/{remainder}"
    return domain, remainder


def _familiar_name(domain: str, path: str) -> str:
    if domain != "docker.io":
        return f"{domain}/{path}"
    official = path.removeprefix("library/")
    return official if "/" not in official else path


def _is_component(text: str) -> bool:
    """Lower-case words with one `.`, one or two `_`, or any number of `-` between them."""
    word = True
    separator = ""
    for letter in text:
        if letter in _LOWER:
            if separator not in ("", ".", "_", "__") and separator.strip("-"):
                return False
            word, separator = False, ""
        elif word:
            return False
        else:
            separator += letter
    return bool(text) and not separator


def _is_domain(text: str) -> bool:
    """A host's name or [IPv6 address], perhaps with a port."""
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or not address or not _HEX_ANY.issuperset(address.replace(":", "")):
            return False
        host, colon, port = "a", *rest.partition(":")[1:]
        if rest and not rest.startswith(":"):
            return False
    else:
        host, colon, port = text.partition(":")
    if colon and not (port and _DIGITS.issuperset(port)):
        return False
    return all(
        part and _WORD.issuperset(part[0] + part[-1]) and _WORD.issuperset(part.replace("-", ""))
        for part in host.split(".")
    )


def _is_digest_text(text: str) -> bool:
    algorithm, _, digits = text.partition(":")
    for mark in "+_-":
        algorithm = algorithm.replace(mark, ".")
    words = all(
        part and part[0] in _LETTERS and _WORD.issuperset(part) for part in algorithm.split(".")
    )
    return words and len(digits) >= _DIGEST_MIN and _HEX_ANY.issuperset(digits)


def _check_digest(text: str) -> None:
    algorithm, _, digits = text.partition(":")
    size = _DIGEST_SIZES.get(algorithm)
    if size is None:
        known = algorithm == algorithm.lower()
        raise ValueError(
            "unsupported digest algorithm" if known else "invalid checksum digest format"
        )
    if len(digits) != size:
        raise ValueError("invalid checksum digest length")
    if not _HEX.issuperset(digits):
        raise ValueError("invalid checksum digest format")
