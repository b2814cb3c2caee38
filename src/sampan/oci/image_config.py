"""The image config: rootfs and run defaults. Its digest is the image ID.

Source: OCI image-spec, config.md; `Healthcheck`, `OnBuild` and `Shell` are Docker's additions.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sampan.errors import InvalidArgument
from sampan.oci.digest import DiffID, parse_digest
from sampan.oci.documents import DAMAGED


class Healthcheck(msgspec.Struct, kw_only=True, omit_defaults=True, rename="pascal"):
    """Durations in nanoseconds, as Docker writes them."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class RunDefaults(msgspec.Struct, kw_only=True, omit_defaults=True, rename="pascal"):
    """The config's `config`: what a container gets where `create` does not say otherwise."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] | None = None
    env: list[str] | None = None
    cmd: list[str] | None = None
    entrypoint: list[str] | None = None
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    on_build: list[str] | None = None
    shell: list[str] | None = None
    args_escaped: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Docker's JSON shape, without what is unset."""
        result: dict[str, Any] = msgspec.to_builtins(self)
        return result


class RootFS(msgspec.Struct, kw_only=True):
    type: str = "layers"
    diff_ids: list[DiffID] = msgspec.field(default_factory=list)


class History(msgspec.Struct, kw_only=True, omit_defaults=True):
    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A decoded config; the raw bytes, which the image ID names, are kept by their owner."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    created: str = ""
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    config: RunDefaults = msgspec.field(default_factory=RunDefaults)
    rootfs: RootFS = msgspec.field(default_factory=RootFS)
    history: list[History] = msgspec.field(default_factory=list)


def parse_image_config(data: bytes) -> ImageConfig:
    """Decode a config as Go would: null means unset, unknown keys are ignored.

    Raises:
        InvalidArgument: it is no image config, naming the field.
    """
    try:
        plain = msgspec.json.decode(data)
        config = msgspec.convert(_without_nulls(plain), ImageConfig)
    except RecursionError as error:
        raise InvalidArgument("invalid image config: nested too deeply") from error
    except DAMAGED as error:
        raise InvalidArgument(f"invalid image config: {error}") from error
    if "rootfs" not in plain:
        raise InvalidArgument("invalid image JSON, no RootFS key")
    for diff_id in config.rootfs.diff_ids:
        parse_digest(diff_id)
    return config


def encode_image_config(config: ImageConfig) -> bytes:
    """The raw bytes of a new config."""
    return msgspec.json.encode(
        {**msgspec.to_builtins(config), "rootfs": msgspec.to_builtins(config.rootfs)}
    )


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
