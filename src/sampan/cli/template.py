"""Go's text/template, as far as people write it behind `--format`, with docker's functions.

Actions: fields, methods, variables, pipelines, parentheses, `if`, `range`, `with`, `else`, `break`,
`continue`, comments, trim markers. Functions: those of text/template and docker's `json`, `join`,
`lower`, `upper`, `pad`, `split`, `title`, `truncate`, `println` … Not there: `define`, `block` and
`template`. Source: https://pkg.go.dev/text/template.

A text becomes a `Program` once and is run on any number of values. A value is what JSON gives, or an
object with `field(name)`, `method(name)`, `as_json()` and `type_name` (see `listing.Subject`).
"""

from __future__ import annotations

from sampan.cli.failures import CommandError
from sampan.cli.gotext import MISSING, FunctionError, functions, printed, true
from sampan.cli.template_syntax import Node, ParseError, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["ExecuteError", "ParseError", "Program", "parse"]

_USER_MAPS = frozenset(
    [
        "Annotations",
        "Attributes",
        "Data",
        "DriverOpts",
        "ExposedPorts",
        "Labels",
        "Networks",
        "Options",
        "PortBindings",
        "Ports",
        "StorageOpt",
        "Sysctls",
        "Tmpfs",
        "Volumes",
    ]
)


class ExecuteError(CommandError):
    """The template does not fit the value."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"failed to execute template: {detail}")
        self.detail = detail


class _Break(Exception):
    """`{{break}}`."""


class _Continue(Exception):
    """`{{continue}}`."""


def parse(source: str) -> Program:
    """Read a template.

    Raises:
        ParseError: with Go's words.
    """
    parser = Parser(source)
    nodes, ended_by = parser.block()
    if ended_by:
        raise ParseError(parser.line, f"unexpected {{{{{ended_by}}}}}")
    return Program(source, nodes)


class Program:
    """A template ready to run."""

    def __init__(self, source: str, nodes: list[Node]) -> None:
        self._source = source
        self._nodes = nodes

    def run(self, value: Any, *, heading: bool = False) -> str:
        """The text for `value`. With `heading`, functions leave what they are given as it is.

        Raises:
            ExecuteError: with Go's words.
        """
        return "".join(_Run(self._source, value, heading).walk(self._nodes, value))


class _Run:
    """One execution: variables and functions."""

    def __init__(self, source: str, value: Any, heading: bool) -> None:
        self.source = source
        self.heading = heading
        self.functions = functions()
        self.variables: list[tuple[str, Any]] = [("$", value)]

    def walk(self, nodes: list[Node], dot: Any) -> Iterator[str]:
        for node in nodes:
            if node.kind == "text":
                yield node.value
            elif node.kind == "action":
                value = self.pipeline(node.value, dot)
                if not node.value.value[0]:
                    yield self._shown(value)
            elif node.kind == "break":
                raise _Break
            elif node.kind == "continue":
                raise _Continue
            else:
                yield from self._control(node, dot)

    def _shown(self, value: Any) -> str:
        return printed(value.as_json() if hasattr(value, "as_json") else value, top=True)

    def _control(self, node: Node, dot: Any) -> Iterator[str]:
        body, otherwise = node.parts
        mark = len(self.variables)
        value = self.pipeline(node.value, dot, declare=node.kind != "range")
        if node.kind == "range":
            yield from self._range(node, dot, value)
        elif true(value):
            yield from self.walk(body, value if node.kind == "with" else dot)
        else:
            yield from self.walk(otherwise, dot)
        del self.variables[mark:]

    def _range(self, node: Node, dot: Any, value: Any) -> Iterator[str]:
        body, otherwise = node.parts
        pairs = self._pairs(node, value)
        if not pairs:
            yield from self.walk(otherwise, dot)
        for key, item in pairs:
            mark = len(self.variables)
            names = node.value.value[1]
            if len(names) == 2:
                self.variables += [(names[0], key), (names[1], item)]
            elif names:
                self.variables.append((names[0], item))
            try:
                yield from self.walk(body, item)
            except _Break:
                break
            except _Continue:
                continue
            finally:
                del self.variables[mark:]

    def _pairs(self, node: Node, value: Any) -> list[tuple[Any, Any]]:
        if value is None or value is MISSING:
            return []
        if isinstance(value, dict):
            return sorted(value.items())
        if isinstance(value, list):
            return list(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            return [(number, number) for number in range(value)]
        raise self._error(node.value.parts[0], f"range can't iterate over {printed(value)}")

    def _error(self, node: Node, reason: str) -> ExecuteError:
        line_start = self.source.rfind("\n", 0, node.offset) + 1
        line = self.source.count("\n", 0, node.offset) + 1
        shown = node.source if len(node.source) <= 20 else node.source[:20] + "..."
        if node.kind in ("command", "fields") and len(node.source) > 20:
            shown = node.source
        place = f"template: :{line}:{node.offset - line_start}"
        return ExecuteError(f'{place}: executing "" at <{shown}>: {reason}')

    def pipeline(self, node: Node, dot: Any, *, declare: bool = True) -> Any:
        value: Any = MISSING
        for index, command in enumerate(node.parts):
            value = self._command(command, dot, (value,) if index else ())
        mark, names = node.value
        if names and declare:
            self._assign(mark, names[0], value)
        return value

    def _assign(self, mark: str, name: str, value: Any) -> None:
        if mark == "=":
            for index in range(len(self.variables) - 1, -1, -1):
                if self.variables[index][0] == name:
                    self.variables[index] = (name, value)
                    return
        self.variables.append((name, value))

    def _command(self, command: Node, dot: Any, final: tuple[Any, ...]) -> Any:
        first, arguments = command.parts[0], command.parts[1:]
        if first.kind == "function":
            return self._call(command, first.value, arguments, dot, final)
        if first.kind == "fields" and (arguments or final):
            return self._method(command, first, arguments, dot, final)
        if arguments or final:
            raise self._error(first, f"can't give argument to non-function {first.source}")
        return self._value(first, dot)

    def _call(
        self, command: Node, name: str, arguments: list[Node], dot: Any, final: tuple[Any, ...]
    ) -> Any:
        if name in ("and", "or"):
            return self._short_circuit(name, arguments, dot, final)
        values = [self._value(argument, dot) for argument in arguments] + list(final)
        if self.heading and name in ("json", "title", "lower", "upper", "truncate"):
            return values[0] if values else ""
        try:
            return self.functions[name](*values)
        except FunctionError as error:
            raise self._error(command, f"error calling {name}: {error}") from None
        except (TypeError, AttributeError):
            raise self._error(command, f"wrong number or type of args for {name}") from None

    def _short_circuit(
        self, name: str, arguments: list[Node], dot: Any, final: tuple[Any, ...]
    ) -> Any:
        value: Any = None
        for argument in arguments:
            value = self._value(argument, dot)
            if true(value) == (name == "or"):
                return value
        return final[0] if final else value

    def _method(
        self, command: Node, first: Node, arguments: list[Node], dot: Any, final: tuple[Any, ...]
    ) -> Any:
        owner = self._value(first.value, dot)
        for name in first.parts[:-1]:
            owner = self._field(first, owner, name)
        name = first.parts[-1]
        method = owner.method(name) if hasattr(owner, "method") else None
        if method is None:
            self._field(first, owner, name)
            count = len(arguments) + len(final)
            raise self._error(first, f"wrong number of args for {name}: want 0 got {count}")
        return method(*[self._value(argument, dot) for argument in arguments], *final)

    def _value(self, node: Node, dot: Any) -> Any:
        kind = node.kind
        if kind == "dot":
            return dot
        if kind == "literal":
            return node.value
        if kind == "variable":
            return self._variable(node)
        if kind == "group":
            return self.pipeline(node.value, dot)
        if kind == "function":
            return self._call(node, node.value, [], dot, ())
        value = self._value(node.value, dot)
        parent = ""
        for name in node.parts:
            value = self._field(node, value, name, parent)
            parent = name
        return value

    def _variable(self, node: Node) -> Any:
        for name, value in reversed(self.variables):
            if name == node.value:
                return value
        raise self._error(node, f"undefined variable: {node.value}")

    def _field(self, node: Node, value: Any, name: str, parent: str = "") -> Any:
        if hasattr(value, "field"):
            try:
                return value.field(name)
            except KeyError:
                raise self._error(
                    node, f"can't evaluate field {name} in type {value.type_name}"
                ) from None
        if isinstance(value, dict):
            if name in value:
                return value[name]
            if parent in _USER_MAPS or _is_user_map(value):
                return MISSING
            raise self._error(node, f'map has no entry for key "{name}"')
        if value is None or value is MISSING:
            return MISSING
        kind = {str: "string", bool: "bool", int: "int", float: "float64", list: "[]interface {}"}
        shown = kind.get(type(value), "interface {}")
        raise self._error(node, f"can't evaluate field {name} in type {shown}")


def _is_user_map(value: dict[str, Any]) -> bool:
    """Whether a JSON object is a Go map with the user's keys (labels, options) and no struct.

    Docker's structs have exported names; a map answers an absent key with no value.
    """
    return not any(key[:1].isupper() for key in value)
