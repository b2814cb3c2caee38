"""`inspect` in all its forms: objects as indented JSON, or through a template."""

from __future__ import annotations

import sys

from sampan.cli import jsontext
from sampan.cli.client import query, quote
from sampan.cli.failures import ApiError, CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.cli.call import Call

FORMAT_USAGE = (
    "Format output using a custom template:\n"
    "'json':             Print in JSON format\n"
    "'TEMPLATE':         Print output using the given Go template.\n"
    "Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates"
)
FORMAT = ("format", "f", "string", "", FORMAT_USAGE)


def container(call: Call, name: str, *, size: bool = False) -> Any:
    """A container's inspect document."""
    return call.client.call("GET", f"/containers/{quote(name)}/json{query(size=size)}")


def image(call: Call, name: str, platform: str = "") -> Any:
    """An image's inspect document; `platform` in the API's JSON."""
    return call.client.call("GET", f"/images/{quote(name)}/json{query(platform=platform)}")


def network(call: Call, name: str) -> Any:
    """A network's inspect document."""
    return call.client.call("GET", f"/networks/{quote(name)}")


def volume(call: Call, name: str) -> Any:
    """A volume's inspect document."""
    return call.client.call("GET", f"/volumes/{quote(name)}")


def show(call: Call, fetch: Callable[[str], Any]) -> int:
    """Print what `fetch` finds for each argument; what is not found is told on stderr at the end."""
    found, failures = [], []
    for name in call.args:
        try:
            found.append(fetch(name))
        except CommandError as error:
            failures.append(error.message)
    _print(call.text("format"), found)
    for failure in failures:
        call.complain(failure)
    return 1 if failures else 0


def _print(form: str, found: list[Any]) -> None:
    if not form:
        sys.stdout.write((jsontext.pretty(found) if found else "[]") + "\n")
    elif form == "json":
        sys.stdout.write(jsontext.encode(found) + "\n")
    elif not found:
        sys.stdout.write("\n")
    else:
        _print_template(form, found)


def _print_template(form: str, found: list[Any]) -> None:
    from sampan.cli import template

    try:
        program = template.parse(form.replace("\\t", "\t").replace("\\n", "\n"))
    except template.ParseError as error:
        raise CommandError(f"template parsing error: {error.detail}", status=64) from None
    for value in found:
        try:
            sys.stdout.write(program.run(value) + "\n")
        except template.ExecuteError as error:
            sys.stdout.write("\n")
            raise CommandError(f"template parsing error: {error.detail}") from None


def is_missing(error: CommandError) -> bool:
    """Whether the engine has no such object, or no such kind of object."""
    return isinstance(error, ApiError) and error.code in (404, 501, 503)
