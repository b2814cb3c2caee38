"""Image references: `domain/path:tag@digest`, and Docker's short ("familiar") spelling of them.

Grammar: the distribution project's reference grammar; normalisation: what `docker` does with
`busybox` (→ `docker.io/library/busybox:latest`). The error texts are Docker's. Where its versions differ,
what the newest takes is taken: registries in capitals, IPv6 addresses, 255 characters of path.
tests/oci/references.json has what dockerd says to several hundred texts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sampan.errors import InvalidArgument
from sampan.oci.digest import BadDigest, Digest, is_hex64, parse_digest

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
OFFICIAL = "library"
DEFAULT_TAG = "latest"
PATH_LENGTH_MAX = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"((?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)(?::({_TAG}))?(?:@({_DIGEST}))?", re.ASCII
)
_TAG_ONLY = re.compile(_TAG, re.ASCII)


class BadReference(InvalidArgument):
    """The text is no image reference."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference; `repository` is `domain/path`, tag and digest may be missing."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def repository(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: `busybox`, `user/app`, `localhost:5000/app`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        head, slash, rest = self.path.partition("/")
        return rest if slash and head == OFFICIAL and "/" not in rest else self.path

    @property
    def familiar(self) -> str:
        return self.familiar_name + self._suffix()

    def __str__(self) -> str:
        return self.repository + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag

    def with_default_tag(self) -> Reference:
        """The same with `:latest`, unless it has a tag or a digest."""
        if self.tag or self.digest:
            return self
        return Reference(self.domain, self.path, DEFAULT_TAG)

    def without_tag(self) -> Reference:
        return Reference(self.domain, self.path, None, self.digest)


def parse_reference(text: str) -> Reference:
    """Parse what a user writes for an image.

    Raises:
        BadReference: Docker's text for what is wrong.
    """
    if is_hex64(text):
        raise BadReference(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    domain, remainder = _split_domain(text)
    path = remainder.partition(":")[0]
    if path.lower() != path:
        raise BadReference("invalid reference format: repository name must be lowercase")
    match = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    if match is None:
        raise BadReference("invalid reference format")
    full_name, tag, digest = match.groups()
    path = full_name[len(domain) + 1 :]
    if len(path) > PATH_LENGTH_MAX:
        raise BadReference("repository name must not be more than 255 characters")
    return Reference(domain, path, tag, _checked_digest(digest))


def is_tag(text: str) -> bool:
    return _TAG_ONLY.fullmatch(text) is not None


def _checked_digest(text: str | None) -> Digest | None:
    """A digest of the grammar, if it is one that can be verified: Docker knows sha384 and sha512, too."""
    try:
        return parse_digest(text) if text is not None else None
    except BadDigest as error:
        raise BadReference(error.message) from None


def _split_domain(text: str) -> tuple[str, str]:
    """Split the registry off; a first part without dot, colon or capitals is no domain."""
    head, slash, rest = text.partition("/")
    is_domain = slash and (
        "." in head or ":" in head or head == "localhost" or head.lower() != head
    )
    domain, remainder = (head, rest) if is_domain else (DEFAULT_DOMAIN, text)
    if domain == LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = f"{OFFICIAL}/{remainder}"
    return domain, remainder
