"""`--change` of import (and commit): Dockerfile instructions that edit an image's run defaults.

Source: docker import --help, "Supported Dockerfile instructions"; Dockerfile reference.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence

import msgspec

from sampan.errors import InvalidArgument
from sampan.images.making import words
from sampan.oci.go_time import parse_duration
from sampan.oci.image_config import Healthcheck, RunDefaults

_LEAST_INTERVAL_NS = 1_000_000
_strings = msgspec.json.Decoder(list[str])


def apply_changes(config: RunDefaults, changes: Sequence[str]) -> None:
    """Apply instructions in order; each text may hold several.

    Variables in them are those of the config as the instructions before have left it.

    Raises:
        InvalidArgument: an instruction is unknown, not allowed here or malformed.
    """
    if not changes:
        return
    lines = _lines("\n".join(changes))
    if not lines:
        raise InvalidArgument("file with no instructions")
    command_set = False
    for line in lines:
        before = config.entrypoint
        instruction = _apply(config, line)
        if instruction == "CMD":
            command_set = True
        elif instruction == "ENTRYPOINT" and not command_set and config.entrypoint is not before:
            config.cmd = None  # it was meant for the entrypoint before


def _lines(change: str) -> list[str]:
    """The instructions of a text: without comments, with continued lines joined."""
    lines: list[str] = []
    continued = False
    for line in change.split("\n"):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        goes_on = text.endswith("\\")
        text = text.removesuffix("\\")
        if continued:
            lines[-1] += text
        else:
            lines.append(text)
        continued = goes_on
    return [line.strip() for line in lines if line.strip()]


def _apply(config: RunDefaults, line: str) -> str:
    """Apply one instruction and return its name."""
    word, *rest = line.split(maxsplit=1)
    instruction = word.upper()
    apply = _INSTRUCTIONS.get(instruction)
    if apply is None:
        raise InvalidArgument(f"{word.lower()} is not a valid change command")
    text = rest[0].strip() if rest else ""
    if not text and instruction not in ("CMD", "ENTRYPOINT"):
        count = (
            "exactly one" if instruction in ("USER", "WORKDIR", "STOPSIGNAL") else "at least one"
        )
        raise InvalidArgument(f"{instruction} requires {count} argument")
    apply(config, text)
    return instruction


def _expand(config: RunDefaults, text: str) -> str:
    return words.expand(text, dict(item.partition("=")[::2] for item in config.env or ()))


def _command(text: str) -> list[str]:
    """The exec form's list, or the shell form's words for `/bin/sh -c`."""
    if text.startswith("["):
        try:
            return _strings.decode(text)
        except msgspec.DecodeError:
            pass  # Docker takes what is no JSON list for the shell form
    return ["/bin/sh", "-c", *([text] if text else [])]


def _cmd(config: RunDefaults, text: str) -> None:
    config.cmd = _command(text)


def _entrypoint(config: RunDefaults, text: str) -> None:
    if text:
        config.entrypoint = _command(text) or None


def _env(config: RunDefaults, text: str) -> None:
    variables = dict(item.partition("=")[::2] for item in config.env or ())
    variables.update(_pairs(config, text, "ENV"))
    config.env = [f"{name}={value}" for name, value in variables.items()]


def _label(config: RunDefaults, text: str) -> None:
    config.labels = {**(config.labels or {}), **_pairs(config, text, "LABEL")}


def _pairs(config: RunDefaults, text: str, instruction: str) -> dict[str, str]:
    """`name=value …`, or the old form `name value`."""
    first = text.split(maxsplit=1)
    if "=" not in words.split(text)[0]:
        if len(first) < 2:
            raise InvalidArgument(f"{instruction} must have two arguments")
        return {_expand(config, first[0]): _expand(config, first[1])}
    pairs = {}
    for word in words.split(text):
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidArgument(
                f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value'
            )
        if not name:
            raise InvalidArgument(f"{instruction} names can not be blank")
        pairs[_expand(config, name)] = _expand(config, value)
    return pairs


def _expose(config: RunDefaults, text: str) -> None:
    ports = dict(config.exposed_ports or {})
    for word in _expand(config, text).split():
        span, _, given = word.partition("/")
        protocol = given.lower() or "tcp"
        if protocol not in ("tcp", "udp", "sctp"):
            raise InvalidArgument(f"Invalid proto: {given}")
        first, dash, last = span.partition("-")
        for number in _port_range(first, last if dash else first, word):
            ports[f"{number}/{protocol}"] = {}
    config.exposed_ports = ports


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def _port_range(first: str, last: str, word: str) -> range:
    if not (_is_port(first) and _is_port(last) and 0 < int(first) <= int(last) <= 65535):
        raise InvalidArgument(f"Invalid containerPort: {word}")
    return range(int(first), int(last) + 1)


def _volume(config: RunDefaults, text: str) -> None:
    paths = [_expand(config, path) for path in _json_list(text) or words.split(text)]
    if not all(path.strip() for path in paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    config.volumes = {**(config.volumes or {}), **{path: {} for path in paths}}


def _json_list(text: str) -> list[str] | None:
    try:
        return _strings.decode(text) if text.startswith("[") else None
    except msgspec.DecodeError:
        return None


def _user(config: RunDefaults, text: str) -> None:
    config.user = _expand(config, text)


def _workdir(config: RunDefaults, text: str) -> None:
    path = _expand(config, text)
    if not path.startswith("/"):
        path = posixpath.normpath(f"/{config.working_dir}/{path}").replace("//", "/", 1)
    config.working_dir = path


def _stop_signal(config: RunDefaults, text: str) -> None:
    config.stop_signal = _expand(config, text)


def _on_build(config: RunDefaults, text: str) -> None:
    trigger = text.split()[0].upper()
    if trigger == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("FROM", "MAINTAINER"):
        raise InvalidArgument(f"{trigger} isn't allowed as an ONBUILD trigger")
    config.on_build = [*(config.on_build or ()), text]


def _healthcheck(config: RunDefaults, text: str) -> None:
    check = Healthcheck()
    left = text.split()
    while left and left[0].startswith("--"):
        name, _, value = left.pop(0)[2:].partition("=")
        if name == "retries":
            check.retries = _retries(value)
        elif name in ("interval", "timeout", "start-period", "start-interval"):
            setattr(check, name.replace("-", "_"), _interval(name, value))
        else:
            raise InvalidArgument(f"Unknown flag: {name}")
    if not left:
        raise InvalidArgument("Missing command after HEALTHCHECK")
    kind, rest = left[0].upper(), " ".join(left[1:])
    if kind == "NONE":
        check.test = ["NONE"]
    elif kind == "CMD" and rest:
        command = _json_list(rest)
        check.test = ["CMD", *command] if command else ["CMD-SHELL", rest]
    else:
        raise InvalidArgument(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)')
    config.healthcheck = check


def _retries(value: str) -> int:
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise InvalidArgument(f'strconv.ParseInt: parsing "{value}": invalid syntax')
    if int(value) < 1:
        raise InvalidArgument(f"--retries must be at least 1 (not {value})")
    return int(value)


def _interval(name: str, value: str) -> int:
    """Nanoseconds."""
    duration = parse_duration(value) if value else 0
    if duration and duration < _LEAST_INTERVAL_NS:
        raise InvalidArgument(f'Interval "{name}" cannot be less than 1ms')
    return duration


_INSTRUCTIONS: dict[str, Callable[[RunDefaults, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
