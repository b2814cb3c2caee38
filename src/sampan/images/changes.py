"""`--change` of import (and commit): Dockerfile instructions that edit an image's run defaults.

Source: docker import --help, "Supported Dockerfile instructions"; Dockerfile reference.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

import msgspec

from sampan.errors import InvalidArgument
from sampan.oci.go_time import parse_duration
from sampan.oci.image_config import Healthcheck, RunDefaults

_strings = msgspec.json.Decoder(list[str])


def apply_changes(config: RunDefaults, changes: Sequence[str]) -> None:
    """Apply instructions in order, one a line.

    Raises:
        InvalidArgument: an instruction is unknown, not allowed here or malformed.
    """
    for change in changes:
        for line in change.splitlines():
            text = line.strip()
            if text and not text.startswith("#"):
                _apply(config, text)


def _apply(config: RunDefaults, line: str) -> None:
    word, _, rest = line.partition(" ")
    instruction = word.upper()
    apply = _INSTRUCTIONS.get(instruction)
    if apply is None:
        if instruction in _BUILD_ONLY:
            raise InvalidArgument(f"{word.lower()} is not a valid change command")
        raise InvalidArgument(f"dockerfile parse error line 1: unknown instruction: {instruction}")
    rest = rest.strip()
    if not rest and instruction not in ("CMD", "ENTRYPOINT"):
        raise InvalidArgument(f"{instruction} requires at least one argument")
    apply(config, rest)


def _command(text: str) -> list[str] | None:
    """The exec form's list, or the shell form's words for `/bin/sh -c`."""
    if not text:
        return None
    if text.startswith("["):
        try:
            return _strings.decode(text)
        except msgspec.DecodeError:
            pass  # Docker takes what is no JSON list for the shell form
    return ["/bin/sh", "-c", text]


def _cmd(config: RunDefaults, text: str) -> None:
    config.cmd = _command(text)


def _entrypoint(config: RunDefaults, text: str) -> None:
    config.entrypoint = _command(text)


def _env(config: RunDefaults, text: str) -> None:
    variables = dict(item.partition("=")[::2] for item in config.env or ())
    variables.update(_pairs(text, "ENV"))
    config.env = [f"{name}={value}" for name, value in variables.items()]


def _label(config: RunDefaults, text: str) -> None:
    config.labels = {**(config.labels or {}), **_pairs(text, "LABEL")}


def _pairs(text: str, instruction: str) -> dict[str, str]:
    """`name=value …`, or the old form `name value`."""
    first = text.split(maxsplit=1)
    if "=" not in first[0]:
        if len(first) < 2:
            raise InvalidArgument(f"{instruction} must have two arguments")
        return {first[0]: first[1]}
    pairs = {}
    for word in _words(text):
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidArgument(
                f"Syntax error - can't find = in {word!r}. Must be of the form: name=value"
            )
        if not name:
            raise InvalidArgument(f"{instruction} names can not be blank")
        pairs[name] = value
    return pairs


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidArgument(f"dockerfile parse error line 1: {error}") from error


def _expose(config: RunDefaults, text: str) -> None:
    ports = dict(config.exposed_ports or {})
    for word in text.split():
        span, _, protocol = word.partition("/")
        first, _, last = span.partition("-")
        for number in _port_range(first, last or first, word):
            ports[f"{number}/{(protocol or 'tcp').lower()}"] = {}
    config.exposed_ports = ports


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def _port_range(first: str, last: str, word: str) -> range:
    if not (_is_port(first) and _is_port(last) and 0 < int(first) <= int(last) <= 65535):
        raise InvalidArgument(f"Invalid containerPort: {word}")
    return range(int(first), int(last) + 1)


def _volume(config: RunDefaults, text: str) -> None:
    paths = _json_list(text) or text.split()
    if not all(path.strip() for path in paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    config.volumes = {**(config.volumes or {}), **{path: {} for path in paths}}


def _json_list(text: str) -> list[str] | None:
    try:
        return _strings.decode(text) if text.startswith("[") else None
    except msgspec.DecodeError:
        return None


def _user(config: RunDefaults, text: str) -> None:
    config.user = text


def _workdir(config: RunDefaults, text: str) -> None:
    path = text if text.startswith("/") else f"{config.working_dir.rstrip('/')}/{text}"
    config.working_dir = path


def _stop_signal(config: RunDefaults, text: str) -> None:
    config.stop_signal = text


def _on_build(config: RunDefaults, text: str) -> None:
    trigger = text.split()[0].upper()
    if trigger in ("ONBUILD", "FROM", "MAINTAINER"):
        raise InvalidArgument(f"{trigger} isn't allowed as an ONBUILD trigger")
    config.on_build = [*(config.on_build or ()), text]


def _healthcheck(config: RunDefaults, text: str) -> None:
    check = Healthcheck()
    words = text.split()
    while words and words[0].startswith("--"):
        name, _, value = words.pop(0)[2:].partition("=")
        if name == "retries" and value.isascii() and value.isdigit() and len(value) <= 9:
            check.retries = int(value)
        elif name in ("interval", "timeout", "start-period", "start-interval"):
            setattr(check, name.replace("-", "_"), parse_duration(value))
        else:
            raise InvalidArgument(f"Unknown flag: {name}")
    if not words:
        raise InvalidArgument("Missing command after HEALTHCHECK")
    kind, rest = words[0].upper(), " ".join(words[1:])
    if kind == "NONE":
        check.test = ["NONE"]
    elif kind == "CMD" and rest:
        command = _json_list(rest)
        check.test = ["CMD", *command] if command else ["CMD-SHELL", rest]
    else:
        raise InvalidArgument(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)')
    config.healthcheck = check


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
_BUILD_ONLY = frozenset(("ADD", "ARG", "COPY", "FROM", "MAINTAINER", "RUN", "SHELL"))
