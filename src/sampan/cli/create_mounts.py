"""`--mount type=…,src=…,dst=…` as the API's Mount, and `--gpus` as its DeviceRequest."""

from __future__ import annotations

from sampan.cli.flags import convert

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PLAIN = {
    "type": "Type",
    "source": "Source",
    "src": "Source",
    "target": "Target",
    "dst": "Target",
    "destination": "Target",
    "consistency": "Consistency",
}
_FLAGS = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive")


def parse(text: str) -> dict[str, Any]:
    """The mount that a comma-separated list of fields describes.

    Raises:
        ValueError: in docker's words.
    """
    fields: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for field in _fields(text):
        name, mark, value = field.partition("=")
        name = name.lower()
        if not mark and name not in _FLAGS:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        if name in _PLAIN:
            fields[_PLAIN[name]] = value.lower() if name == "type" else value
        elif name in ("readonly", "ro"):
            fields["ReadOnly"] = _boolean(text, name, mark, value)
        else:
            _option(text, groups, name, mark, value)
    kind = fields.setdefault("Type", "volume")
    if not fields.get("Target"):
        raise ValueError("target is required")
    if not fields.get("ReadOnly", True):
        del fields["ReadOnly"]
    for group in groups:
        if group != kind and not (group == "volume" and kind == "volume"):
            raise ValueError(f"cannot mix '{group}-*' options with mount type '{kind}'")
    order = ("Type", "Source", "Target", "ReadOnly", "Consistency")
    mount = {name: fields[name] for name in order if name in fields}
    for group, options in groups.items():
        mount[f"{group.capitalize()}Options"] = options
    return mount


def _fields(text: str) -> list[str]:
    """The fields of a CSV line; a quoted one may hold commas."""
    if '"' not in text:
        return text.split(",")
    import csv

    return next(iter(csv.reader([text])))


def _boolean(text: str, name: str, mark: str, value: str) -> bool:
    if not mark:
        return True
    try:
        return bool(convert("bool", value))
    except ValueError:
        raise ValueError(f"invalid value for {name}: {value}") from None


def _option(text: str, groups: dict[str, dict[str, Any]], name: str, mark: str, value: str) -> None:
    group, _, rest = name.partition("-")
    if group == "bind" and rest == "propagation":
        groups.setdefault("bind", {})["Propagation"] = value.lower()
    elif group == "bind" and rest in ("nonrecursive", "recursive"):
        groups.setdefault("bind", {}).update(_recursion(text, rest, mark, value))
    elif group == "volume" and rest == "nocopy":
        groups.setdefault("volume", {})["NoCopy"] = _boolean(text, name, mark, value)
    elif group == "volume" and rest == "subpath":
        groups.setdefault("volume", {})["Subpath"] = value
    elif group == "volume" and rest == "label":
        label, _, setting = value.partition("=")
        groups.setdefault("volume", {}).setdefault("Labels", {})[label] = setting
    elif group == "volume" and rest in ("driver", "opt"):
        driver = groups.setdefault("volume", {}).setdefault("DriverConfig", {})
        if rest == "driver":
            driver["Name"] = value
        else:
            option, _, setting = value.partition("=")
            driver.setdefault("Options", {})[option] = setting
    elif group == "image" and rest == "subpath":
        groups.setdefault("image", {})["Subpath"] = value
    elif group == "tmpfs" and rest in ("size", "mode"):
        groups.setdefault("tmpfs", {}).update(_tmpfs(text, rest, value))
    else:
        raise ValueError(f"unexpected key '{name}' in '{name}{mark}{value}'")


def _recursion(text: str, rest: str, mark: str, value: str) -> dict[str, bool]:
    if rest == "nonrecursive":
        return {"NonRecursive": _boolean(text, "bind-nonrecursive", mark, value)}
    choices = {
        "enabled": {},
        "disabled": {"NonRecursive": True},
        "writable": {"ReadOnlyNonRecursive": True},
        "readonly": {"ReadOnlyForceRecursive": True},
    }
    if value not in choices:
        raise ValueError(
            f"invalid value for bind-recursive: {value}"
            ' (must be "enabled", "disabled", "writable", or "readonly")',
        )
    return choices[value]


def _tmpfs(text: str, rest: str, value: str) -> dict[str, int]:
    try:
        if rest == "size":
            return {"SizeBytes": int(convert("bytes", value))}
        return {"Mode": int(value, 8)}
    except ValueError:
        raise ValueError(f"invalid value for tmpfs-{rest}: {value}") from None


def gpus(text: str) -> dict[str, Any]:
    """The device request that `--gpus` stands for: `all`, a count, or fields.

    Raises:
        ValueError: in docker's words.
    """
    if not text:
        raise ValueError("EOF")
    request: dict[str, Any] = {
        "Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {},
    }  # fmt: skip
    for field in _fields(text):
        name, mark, value = field.partition("=")
        if not mark:
            name, value = "count", name
        if name == "device":
            request["DeviceIDs"] = value.split(",")
        elif name == "driver":
            request["Driver"] = value
        elif name == "count" and (value == "all" or value.lstrip("-").isdecimal()):
            request["Count"] = -1 if value == "all" else int(value)
        else:
            raise ValueError(f"unexpected key '{name}' in '{field}'")
    return request
