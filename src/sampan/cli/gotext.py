"""Go's ways with values inside templates: printing, truth, comparison, and the functions."""

from __future__ import annotations

from sampan.cli import jsontext, units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Missing:
    """The value of a key that a map lacks."""

    def __repr__(self) -> str:
        return "<no value>"


MISSING = _Missing()

# Go structs that people print whole: two fields that tell them, then all fields in their order
# with what stands for a field that the JSON leaves out.
_STRUCTS: tuple[tuple[str, ...], ...] = (
    ("Destination", "RW", "Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation"),
    ("HostIp", "HostPort", "HostIp", "HostPort"),
    (
        *("OOMKilled", "FinishedAt", "Status", "Running", "Paused", "Restarting", "OOMKilled", "Dead"),
        *("Pid", "ExitCode", "Error", "StartedAt", "FinishedAt", "*Health"),
    ),
)  # fmt: skip


class FunctionError(Exception):
    """A function cannot do with the arguments it was given; the text is Go's."""


def printed(value: Any, *, top: bool = False) -> str:
    """`value` as fmt's %v prints it; `top`: as a template's own output."""
    if isinstance(value, str):
        return value
    if value is True or value is False:
        return "true" if value else "false"
    if value is None:
        return "<no value>" if top else "<nil>"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, dict):
        for struct in _STRUCTS:
            if struct[0] in value and struct[1] in value:
                return _struct(value, struct[2:])
        return "map[" + " ".join(f"{key}:{printed(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(printed(item) for item in value) + "]"
    if hasattr(value, "as_json"):
        return printed(value.as_json())
    return str(value)


def _struct(value: dict[str, Any], names: tuple[str, ...]) -> str:
    parts = [value.get(name, "") if name[0] != "*" else value.get(name[1:]) for name in names]
    return "{" + " ".join(printed(part) for part in parts) + "}"


def _float(value: float) -> str:
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return repr(value)


def true(value: Any) -> bool:
    """Whether `if` takes the value for true: not empty, not zero, not nil."""
    if value is MISSING or value is None:
        return False
    if isinstance(value, (str, list, dict, int, float)):
        return bool(value)
    return True


def compare(left: Any, right: Any) -> int:
    """-1, 0 or 1, for two numbers or two strings.

    Raises:
        FunctionError: they are of different kinds.
    """
    numbers = (int, float)
    if isinstance(left, bool) or isinstance(right, bool):
        raise FunctionError("invalid type for comparison")
    if isinstance(left, numbers) != isinstance(right, numbers):
        raise FunctionError("incompatible types for comparison")
    if not isinstance(left, (int, float, str)) or not isinstance(right, (int, float, str)):
        raise FunctionError("invalid type for comparison")
    return (left > right) - (left < right)  # type: ignore[operator]


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise FunctionError("missing argument for comparison")
    for other in others:
        if isinstance(first, str) != isinstance(other, str) and MISSING not in (first, other):
            raise FunctionError("incompatible types for comparison")
        if first == other:
            return True
    return False


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, MISSING)
        elif isinstance(value, (list, str)):
            if not isinstance(key, int):
                raise FunctionError(f"cannot index slice/array with type {type(key).__name__}")
            if not 0 <= key < len(value):
                edge = isinstance(value, list) and key == len(value)  # Go looks at the capacity
                raise FunctionError(
                    "reflect: slice index out of range" if edge else f"index out of range: {key}"
                )
            value = value[key] if isinstance(value, list) else value.encode()[key]
        elif value is None or value is MISSING:
            raise FunctionError("index of untyped nil")
        else:
            raise FunctionError(f"can't index item of type {printed(value)}")
    return value


def _slice(value: Any, *bounds: int) -> Any:
    if not isinstance(value, (str, list)):
        raise FunctionError(f"can't slice item of type {printed(value)}")
    for bound in bounds:
        if not 0 <= bound <= len(value):
            raise FunctionError(f"index out of range: {bound}")
    low = bounds[0] if bounds else 0
    high = bounds[1] if len(bounds) > 1 else len(value)
    if low > high:
        raise FunctionError(f"invalid slice index: {low} > {high}")
    return value[low:high]


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (list, dict)):
        return len(value)
    if value is None or value is MISSING:
        raise FunctionError("len of nil pointer")
    raise FunctionError(f"len of type {_type(value)}")


def _type(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float64", str: "string"}
    return names.get(type(value), "interface {}")


def _json(value: Any) -> str:
    if hasattr(value, "as_json"):
        return jsontext.encode(value.as_json(), html=True)
    return jsontext.encode(None if value is MISSING else value)


def _join(items: Any, separator: str) -> str:
    return separator.join(printed(item) for item in items or ())


def _title(text: str) -> str:
    letters = list(text)
    for index, letter in enumerate(letters):
        if index == 0 or not (letters[index - 1].isalnum() or letters[index - 1] in "_'"):
            letters[index] = letter.upper()
    return "".join(letters)


def _pad(text: str, before: int, after: int) -> str:
    return text if text == "" else " " * before + text + " " * after


def _truncate(text: str, width: int) -> str:
    return text[:width]


def _print(*values: Any) -> str:
    """fmt.Sprint: a space between two operands when neither is a string."""
    parts: list[str] = []
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            parts.append(" ")
        parts.append(printed(value))
    return "".join(parts)


def _println(*values: Any) -> str:
    return " ".join(printed(value) for value in values) + "\n"


def _html(*values: Any) -> str:
    text = _print(*values)
    for letter, escaped in (
        ("&", "&amp;"),
        ("'", "&#39;"),
        ('"', "&#34;"),
        ("<", "&lt;"),
        (">", "&gt;"),
    ):
        text = text.replace(letter, escaped)
    return text


def _js(*values: Any) -> str:
    text = _print(*values).replace("\\", "\\\\")
    table = (
        ("'", "\\'"),
        ('"', '\\"'),
        ("<", "\\u003C"),
        (">", "\\u003E"),
        ("&", "\\u0026"),
        ("=", "\\u003D"),
    )
    for letter, escaped in table:
        text = text.replace(letter, escaped)
    return text


def _urlquery(*values: Any) -> str:
    from sampan.cli.client import quote

    return quote(_print(*values)).replace("%20", "+").replace("%7E", "~")


def sprintf(form: str, *values: Any) -> str:
    """fmt.Sprintf for the verbs v s q d t x X c o b f e g T, with flags, width and precision."""
    out: list[str] = []
    rest = list(values)
    position = 0
    while position < len(form):
        percent = form.find("%", position)
        if percent < 0:
            out.append(form[position:])
            break
        out.append(form[position:percent])
        end = percent + 1
        while end < len(form) and form[end] in "+-# 0123456789.":
            end += 1
        verb = form[end : end + 1]
        spec = form[percent + 1 : end]
        position = end + 1
        if verb == "%":
            out.append("%")
        elif not verb:
            out.append("%!(NOVERB)")
        elif not rest:
            out.append(f"%!{verb}(MISSING)")
        else:
            out.append(_verb(spec, verb, rest.pop(0)))
    if rest:
        extra = ", ".join(f"{_type(value)}={printed(value)}" for value in rest)
        out.append(f"%!(EXTRA {extra})")
    return "".join(out)


def _verb(spec: str, verb: str, value: Any) -> str:
    body = spec.lstrip("+-# 0")
    marks = spec[: len(spec) - len(body)]
    width_text, dot, precision = body.partition(".")
    width = int(width_text or 0)
    text = _verb_text(verb, value, int(precision or 0) if dot else None, marks)
    if "-" in marks:
        return text.ljust(width)
    if "0" in marks and isinstance(value, (int, float)):
        return text.zfill(width)
    return text.rjust(width)


def _verb_text(verb: str, value: Any, precision: int | None, marks: str) -> str:
    integer = isinstance(value, int) and not isinstance(value, bool)
    if verb in "vs" and (verb == "v" or not isinstance(value, (int, float))):
        text = printed(value)
        return text[:precision] if precision is not None and isinstance(value, str) else text
    if verb == "q" and isinstance(value, str):
        return units.quote(value)
    if verb == "T":
        return _type(value)
    if verb == "t" and isinstance(value, bool):
        return printed(value)
    if verb in "dxXobc" and integer:
        if verb == "c":
            return chr(value)
        text = format(value, verb)
        return "+" + text if "+" in marks and value >= 0 else text
    if verb in "xX" and isinstance(value, str):
        text = value.encode().hex()
        return text.upper() if verb == "X" else text
    if verb in "feg" and isinstance(value, float):
        if precision is None and verb == "g":
            return _float(value)
        return format(value, f".{6 if precision is None else precision}{verb}")
    return f"%!{verb}({_type(value)}={printed(value)})"


def _not(value: Any) -> bool:
    return not true(value)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": true,
    "eq": _equal,
    "ge": lambda left, right: compare(left, right) >= 0,
    "gt": lambda left, right: compare(left, right) > 0,
    "html": _html,
    "index": _index,
    "join": _join,
    "js": _js,
    "json": _json,
    "le": lambda left, right: compare(left, right) <= 0,
    "len": _length,
    "lower": lambda text: text.lower(),
    "lt": lambda left, right: compare(left, right) < 0,
    "ne": lambda left, right: not _equal(left, right),
    "not": _not,
    "or": true,
    "pad": _pad,
    "print": _print,
    "printf": sprintf,
    "println": _println,
    "slice": _slice,
    "split": lambda text, separator: text.split(separator) if separator else list(text),
    "title": _title,
    "truncate": _truncate,
    "upper": lambda text: text.upper(),
    "urlquery": _urlquery,
}


def functions() -> dict[str, Callable[..., Any]]:
    """The functions by name; `and` and `or` are evaluated lazily by the template itself."""
    return _FUNCTIONS
