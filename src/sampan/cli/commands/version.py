"""`sampan version`: of the client and of the engine."""

from __future__ import annotations

import os
import sys

from sampan import __version__
from sampan.cli import inspection, jsontext
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (inspection.FORMAT,)
NEWEST_API = "1.55"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def client_version(api: str) -> dict[str, Any]:
    """What this client is, in the fields of docker's."""
    machine = os.uname().machine
    return {
        "Version": __version__,
        "ApiVersion": api,
        "DefaultAPIVersion": NEWEST_API,
        "PythonVersion": sys.version.partition(" ")[0],
        "Os": "linux",
        "Arch": ARCHITECTURES.get(machine, machine),
        "Context": "default",
    }


def run(call: Call) -> int:
    """Print both versions; without an engine the client's, and status 1."""
    server, failure = None, None
    try:
        server = call.client.call("GET", "/version")
    except CommandError as error:
        failure = error
    api = _lower(NEWEST_API, str(server["ApiVersion"])) if server else NEWEST_API
    versions = {"Client": client_version(api), "Server": server}
    form = call.text("format")
    if form == "json":
        call.say(jsontext.encode(versions))
    elif form:
        _template(call, form, versions)
    else:
        _text(call, versions)
    if failure is not None:
        raise failure
    return 0


def _lower(left: str, right: str) -> str:
    return min(left, right, key=lambda text: [int(part) for part in text.split(".")])


def _template(call: Call, form: str, versions: dict[str, Any]) -> None:
    from sampan.cli import template

    try:
        program = template.parse(form.replace("\\t", "\t").replace("\\n", "\n"))
    except template.ParseError as error:
        raise CommandError(f"template parsing error: {error.detail}", status=64) from None
    call.say(program.run(versions))


def _text(call: Call, versions: dict[str, Any]) -> None:
    client = versions["Client"]
    api = client["ApiVersion"]
    if api != NEWEST_API:
        api += f" (downgraded from {NEWEST_API})"
    call.say("Client: Sampan")
    _rows(
        call,
        " ",
        (
            ("Version:", client["Version"]),
            ("API version:", api),
            ("Python version:", client["PythonVersion"]),
            ("OS/Arch:", f"{client['Os']}/{client['Arch']}"),
            ("Context:", client["Context"]),
        ),
    )
    if versions["Server"]:
        _server(call, versions["Server"])


def _server(call: Call, server: dict[str, Any]) -> None:
    platform = (server.get("Platform") or {}).get("Name", "")
    call.say("")
    call.say(f"Server: {platform}".rstrip())
    for component in server.get("Components") or ():
        details = component.get("Details") or {}
        call.say(f" {component['Name']}:")
        rows = [("Version:", component["Version"])]
        if component["Name"] == "Engine":
            minimum = details.get("MinAPIVersion", "")
            rows += [
                ("API version:", f"{details.get('ApiVersion', '')} (minimum version {minimum})"),
                *_present(details, ("Go version:", "GoVersion"), ("Git commit:", "GitCommit")),
                *_present(details, ("Built:", "BuildTime")),
                ("OS/Arch:", f"{details.get('Os', '')}/{details.get('Arch', '')}"),
                ("Experimental:", details.get("Experimental", "false")),
            ]
        else:
            rows += [(f"{name}:", value) for name, value in sorted(details.items())]
        _rows(call, "  ", rows)


def _present(details: dict[str, Any], *names: tuple[str, str]) -> list[tuple[str, str]]:
    return [(title, details[name]) for title, name in names if details.get(name)]


def _rows(call: Call, indent: str, rows: Any) -> None:
    for title, value in rows:
        call.say(f"{indent}{title:<{20 - len(indent)}}{value}")
