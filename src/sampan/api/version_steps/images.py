"""Answers about images: inspect and list."""

from __future__ import annotations

from sampan.api.version_steps.step import (
    AnswerSteps,
    Before,
    Document,
    Since,
    drop,
    drop_empty,
)

NOT_OF_AN_IMAGE = (
    "Hostname",
    "Domainname",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "Image",
    "NetworkDisabled",
    "MacAddress",
    "StopTimeout",
)
OMITTED_WHEN_UNSET = (
    "Cmd",
    "Entrypoint",
    "Env",
    "Labels",
    "OnBuild",
    "User",
    "Volumes",
    "WorkingDir",
)
_NEVER = "0001-01-01T00:00:00Z"


# GET /images/{name}/json


def without_empty_fields(document: Document) -> None:
    drop_empty(document["Config"], *OMITTED_WHEN_UNSET)
    drop_empty(document, "Parent", "Comment", "DockerVersion", "Author")


def config_without_container_fields(document: Document) -> None:
    drop(document["Config"], *NOT_OF_AN_IMAGE)


def without_manifests(document: Document) -> None:
    drop(document, "Descriptor", "Manifests")


def without_container(document: Document) -> None:
    drop(document, "Container", "ContainerConfig")


def without_virtual_size(document: Document) -> None:
    drop(document, "VirtualSize")


def without_unknown_creation(document: Document) -> None:
    """Since 1.44 what is not known is not said."""
    if document.get("Created") == _NEVER:
        drop(document, "Created")


def without_names(document: Document) -> None:
    drop(document, "RepoTags", "RepoDigests")


# GET /images/json


def summary_without_container_count(document: Document) -> None:
    document["Containers"] = -1


def summary_without_descriptor(document: Document) -> None:
    drop(document, "Descriptor")


def summary_without_manifests(document: Document) -> None:
    drop(document, "Manifests")


def summary_with_placeholders(document: Document) -> None:
    """Clients of old leave out an image that has neither names nor these."""
    if not document["RepoTags"] and not document["RepoDigests"]:
        document["RepoTags"] = ["<none>:<none>"]
        document["RepoDigests"] = ["<none>@<none>"]


def summary_without_digests(document: Document) -> None:
    drop(document, "RepoDigests")


def summary_without_labels(document: Document) -> None:
    drop(document, "Labels")


ANSWERS: AnswerSteps = {
    "image": (
        Since((1, 52), without_empty_fields),
        Since((1, 50), config_without_container_fields),
        Before((1, 48), without_manifests),
        Since((1, 45), without_container),
        Since((1, 44), without_virtual_size),
        Since((1, 44), without_unknown_creation),
        Before((1, 21), without_names),
    ),
    "image summary": (
        Before((1, 51), summary_without_container_count),
        Before((1, 48), summary_without_descriptor),
        Before((1, 47), summary_without_manifests),
        Since((1, 44), without_virtual_size),
        Before((1, 43), summary_with_placeholders),
        Before((1, 18), summary_without_digests),
        Before((1, 17), summary_without_labels),
    ),
}
