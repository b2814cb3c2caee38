"""Lists of objects as docker prints them: a table, a template, JSON lines, or IDs alone.

A list knows its fields as functions of the object, in a table by field name; a default table needs
no template engine, and computes no field that it does not show.
"""

from __future__ import annotations

import sys

from sampan.cli import tabular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from sampan.cli.call import Call

    Field = Callable[[Any, bool], Any]


class Kind:
    """One kind of list: its fields, their headings, its default columns, its name in messages."""

    __slots__ = ("context", "fields", "headings", "raw")

    def __init__(
        self,
        context: str,
        fields: Mapping[str, Field],
        headings: Mapping[str, str],
        raw: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.context = context
        self.fields = fields
        self.headings = headings
        self.raw = raw

    @property
    def type_name(self) -> str:
        """Go's name of the type, for docker's messages; `context` may name its package."""
        return f"*{self.context}" if "." in self.context else f"*formatter.{self.context}"


class Subject:
    """An object of a list as a template sees it: `.Name` is a field, `.Label "x"` a method."""

    __slots__ = ("kind", "truncate", "value")

    def __init__(self, kind: Kind, value: Any, truncate: bool) -> None:
        self.kind = kind
        self.value = value
        self.truncate = truncate

    def field(self, name: str) -> Any:
        """The value of a field.

        Raises:
            KeyError: there is none of that name.
        """
        return self.kind.fields[name](self.value, self.truncate)

    def method(self, name: str) -> Callable[..., Any] | None:
        """The function behind a name that takes arguments, None if there is none."""
        if name != "Label":
            return None
        labels = self.value.get("Labels") or {}
        return lambda label: labels.get(label, "")

    def as_json(self) -> dict[str, Any]:
        """All fields by name, as `{{json .}}` shows them."""
        return {name: self.field(name) for name in sorted(self.kind.fields)}

    @property
    def type_name(self) -> str:
        return self.kind.type_name


class Headings:
    """The heading row of a custom table: `.Field` is the field's heading."""

    __slots__ = ("kind",)
    type_name = "*formatter.SubHeaderContext"

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def field(self, name: str) -> str:
        return self.kind.headings[name]

    def method(self, name: str) -> Callable[..., Any] | None:
        if name != "Label":
            return None
        return lambda label: label.rpartition(".")[2].replace("-", " ").replace("_", " ")

    def as_json(self) -> dict[str, str]:
        return dict(self.kind.headings)


class Blank:
    """An object without anything in its fields: what docker tries a template on before the rows."""

    __slots__ = ("kind",)

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def field(self, name: str) -> str:
        if name not in self.kind.fields:
            raise KeyError(name)
        return ""

    def method(self, name: str) -> Callable[..., Any] | None:
        return (lambda label: "") if name == "Label" else None

    def as_json(self) -> dict[str, Any]:
        return {}

    @property
    def type_name(self) -> str:
        return self.kind.type_name


def warn_about_quiet(call: Call) -> None:
    """Say that `--quiet` wins over `--format`."""
    if call.on("quiet") and call.text("format") not in ("", "table", "json", "raw"):
        call.complain("WARNING: Ignoring custom format, because both --format and --quiet are set.")


def print_list(
    kind: Kind,
    objects: Sequence[Any],
    columns: Sequence[str],
    *,
    form: str,
    quiet: bool,
    truncate: bool,
) -> None:
    """Print objects in the format `form` ("" and "table": the columns; quiet: IDs only)."""
    if quiet:
        show = kind.fields["ID"]
        lines = [str(show(value, truncate)) for value in objects]
        sys.stdout.write("".join(line + "\n" for line in lines))
    elif form in ("", "table"):
        functions = [kind.fields[name] for name in columns]
        rows = [[function(value, truncate) for function in functions] for value in objects]
        sys.stdout.write(tabular.align([[kind.headings[name] for name in columns], *rows]))
    elif form == "raw":
        _print_raw(kind, objects, truncate)
    else:
        _print_template(kind, objects, form, truncate)


def _print_raw(kind: Kind, objects: Sequence[Any], truncate: bool) -> None:
    for value in objects:
        for name, field in kind.raw:
            sys.stdout.write(f"{name}: {kind.fields[field](value, truncate)}".rstrip() + "\n")
        sys.stdout.write("\n")


def _print_template(kind: Kind, objects: Sequence[Any], form: str, truncate: bool) -> None:
    from sampan.cli import template

    is_table = form.startswith("table")
    source = form[5:].strip() if is_table else "{{json .}}" if form == "json" else form
    program = template.parse(source.replace("\\t", "\t").replace("\\n", "\n"))
    program.run(Blank(kind))
    lines = [program.run(Subject(kind, value, truncate)) for value in objects]
    if is_table:
        lines.insert(0, program.run(Headings(kind), heading=True))
        cells = [part.split("\t") for line in lines for part in line.split("\n")]
        sys.stdout.write(tabular.align(cells))
    else:
        sys.stdout.write("".join(line + "\n" for line in lines))
