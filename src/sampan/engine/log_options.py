"""`--log-driver` and `--log-opt`: checks, and what of a container goes into its log's entries.

Source: docs.docker.com "JSON File logging driver", "Customize log driver output"; dockerd 20.10 asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from sampan.engine.container import Record
from sampan.engine.model import LogConfig
from sampan.errors import InvalidArgument
from sampan.logs.drivers import DRIVERS
from sampan.logs.options import JSONFileOptions, parse_size

JSON_FILE = "json-file"
OURS = "attrs"  # how the attributes get to the driver; nobody's option
DAEMON = "docker"

_TAG = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")
_TAG_FIELDS: dict[str, Callable[[Record], str]] = {
    "ID": lambda record: record.id[:12],
    "FullID": lambda record: record.id,
    "Name": lambda record: record.name,
    "ImageID": lambda record: record.image_id[:12],
    "ImageFullID": lambda record: record.image_id,
    "ImageName": lambda record: record.image_reference,
    "DaemonName": lambda _: DAEMON,
}


def check_log_config(config: LogConfig) -> None:
    """Refuse a driver that there is not and options that it does not take.

    Raises:
        InvalidArgument: with dockerd's texts.
    """
    driver = config.type or JSON_FILE
    if driver not in DRIVERS:
        raise InvalidArgument(f"logger: no log driver named '{driver}' is registered")
    options = config.config
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
            )
        parse_size(options["max-buffer-size"])
    if driver != JSON_FILE:
        return
    if OURS in options:
        raise InvalidArgument(f"unknown log opt '{OURS}' for json-file log driver")
    JSONFileOptions(options)
    for name in ("labels-regex", "env-regex"):
        _pattern(name, options)
    if bad := re.search(r"\{\{[^}]*\}?\}?", _TAG.sub("", options.get("tag", ""))):
        raise InvalidArgument(f"log opt tag: {bad[0]} is not one of the fields that a tag can have")
    for field in _TAG.findall(options.get("tag", "")):
        if field not in _TAG_FIELDS:
            raise InvalidArgument(
                f"log opt tag: no field {field}; there are {', '.join(_TAG_FIELDS)}"
            )


def driver_options(record: Record) -> dict[str, str]:
    """The options for the container's log driver, the attributes of its entries among them."""
    options = dict(record.host_config.log_config.config)
    attributes = _attributes(record, options)
    if attributes:
        options[OURS] = json.dumps(
            attributes, ensure_ascii=False, sort_keys=True, separators=(",", ":")
        )
    return options


def _attributes(record: Record, options: dict[str, str]) -> dict[str, str]:
    """Labels and variables that the options name, and the tag."""
    environment = dict(entry.split("=", 1) for entry in record.config.env if "=" in entry)
    found = _chosen("labels", record.config.labels, options)
    found |= _chosen("env", environment, options)
    if tag := options.get("tag"):
        found["tag"] = _TAG.sub(lambda match: _TAG_FIELDS[match[1]](record), tag)
    return found


def _chosen(kind: str, values: dict[str, str], options: dict[str, str]) -> dict[str, str]:
    named = options.get(kind, "").split(",")
    pattern = _pattern(f"{kind}-regex", options)
    return {
        name: value
        for name, value in values.items()
        if name in named or (pattern is not None and pattern.search(name))
    }


def _pattern(name: str, options: dict[str, str]) -> re.Pattern[str] | None:
    if not options.get(name):
        return None
    try:
        return re.compile(options[name])
    except re.error as error:
        raise InvalidArgument(f"log opt {name}: {error}") from error
