"""Images: Docker's answers with the fields that older versions had."""

from __future__ import annotations

from typing import Any

# The image's config was shown as a container's: these are always empty.
CONTAINER_FIELDS: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Image": "",
}
UNSET_CONFIG: dict[str, Any] = {
    "User": "",
    "Env": None,
    "Cmd": None,
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}


def inspected(newest: dict[str, Any]) -> dict[str, Any]:
    """`GET /images/{name}/json`: the newest shape with all that versions took away since."""
    return {
        "Id": newest["Id"],
        "RepoTags": newest["RepoTags"],
        "RepoDigests": newest["RepoDigests"],
        "Parent": "",
        "Comment": "",
        "Created": newest.get("Created", ""),
        "Container": "",
        "ContainerConfig": {**CONTAINER_FIELDS, **UNSET_CONFIG},
        "DockerVersion": "",
        "Author": "",
        **newest,
        "Config": {**CONTAINER_FIELDS, **UNSET_CONFIG, **(newest.get("Config") or {})},
        "VirtualSize": newest.get("Size", 0),
    }


def summary(newest: dict[str, Any]) -> dict[str, Any]:
    """An entry of `GET /images/json`, likewise."""
    return {**newest, "VirtualSize": newest.get("Size", 0)}
