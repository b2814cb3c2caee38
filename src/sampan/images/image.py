"""An image: its config, what names it, and what a container of it stands on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sampan.oci.digest import ChainID, DiffID, Digest, chain_ids
from sampan.oci.go_time import format_time, parse_time
from sampan.oci.image_config import ImageConfig, RunDefaults, parse_image_config
from sampan.oci.reference import Reference
from sampan.snapshots.overlay import SCRATCH
from sampan.state.images import ImageRecord


class Image:
    """A stored image, or the `host` image.

    `id` is the config's digest, `size` the sum of the layers' files in bytes, `parent` what
    `Snapshotter.prepare` takes. Only `references` changes, by the catalog's hand.
    """

    __slots__ = (
        "architecture",
        "author",
        "comment",
        "config",
        "created",
        "created_ns",
        "document",
        "id",
        "layers",
        "os",
        "os_version",
        "parent",
        "record",
        "references",
        "size",
        "variant",
    )

    def __init__(
        self,
        raw_config: bytes,
        identity: Digest,
        record: ImageRecord,
        *,
        size: int = 0,
        parent: str | None = None,
    ) -> None:
        document = parse_image_config(raw_config)
        self.id: Digest = identity
        self.record = record
        self.document: ImageConfig = document
        self.config: RunDefaults = document.config
        self.references: list[Reference] = []
        self.created: str = document.created
        self.created_ns: int = _time_or_zero(document.created)
        self.size = size
        self.architecture = document.architecture
        self.os = document.os
        self.os_version = document.os_version
        self.variant = document.variant
        self.author = document.author
        self.comment = document.comment
        self.layers: list[DiffID] = document.rootfs.diff_ids
        self.parent: str = (self.chain_id or SCRATCH) if parent is None else parent

    @property
    def chain_id(self) -> ChainID | None:
        """The chain ID of the whole stack; None for an image without layers."""
        return chain_ids(self.layers)[-1] if self.layers else None

    @property
    def repo_tags(self) -> list[str]:
        """`name:tag` as people write them."""
        return [reference.familiar for reference in self.references if not reference.digest]

    @property
    def repo_digests(self) -> list[str]:
        """`name@digest` as people write them."""
        return [reference.familiar for reference in self.references if reference.digest]

    def summary(self, references: Sequence[Reference] | None = None) -> dict[str, Any]:
        """Docker's `ImageSummary`, with these of its references (None: all)."""
        shown = self.references if references is None else references
        return {
            "Id": self.id,
            "ParentId": "",
            "RepoTags": [reference.familiar for reference in shown if not reference.digest],
            "RepoDigests": [reference.familiar for reference in shown if reference.digest],
            "Created": self.created_ns // 1_000_000_000,
            "Size": self.size,
            "VirtualSize": self.size,
            "SharedSize": -1,
            "Labels": self.config.labels or None,
            "Containers": -1,
        }

    def inspect(self) -> dict[str, Any]:
        """Docker's `ImageInspect`."""
        return {
            "Id": self.id,
            "RepoTags": self.repo_tags,
            "RepoDigests": self.repo_digests,
            "Parent": "",
            "Comment": self.comment or self._last_comment(),
            "Created": self.created or "0001-01-01T00:00:00Z",
            "DockerVersion": self.document.docker_version,
            "Author": self.author,
            "Config": _full_config(self.config),
            "Architecture": self.architecture,
            **({"Variant": self.variant} if self.variant else {}),
            "Os": self.os,
            **({"OsVersion": self.os_version} if self.os_version else {}),
            "Size": self.size,
            "VirtualSize": self.size,
            "GraphDriver": {"Name": "overlay2", "Data": {}},
            "RootFS": {"Type": "layers", "Layers": list(self.layers)},
            "Metadata": {"LastTagTime": self._last_tag_time()},
        }

    def _last_comment(self) -> str:
        """What a commit was given as message stands in the history."""
        history = self.document.history
        return history[-1].comment if history else ""

    def _last_tag_time(self) -> str:
        tagged_ns = self.record.tagged_ns
        return format_time(tagged_ns) if tagged_ns else "0001-01-01T00:00:00Z"


def _full_config(config: RunDefaults) -> dict[str, Any]:
    """The run defaults with the keys that Docker always shows."""
    always: dict[str, Any] = {
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": None,
        "Cmd": None,
        "Image": "",
        "Volumes": None,
        "WorkingDir": "",
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": None,
    }
    return always | config.to_dict()


def _time_or_zero(text: str) -> int:
    try:
        return parse_time(text)
    except ValueError:
        return parse_time("")
