"""JSON bodies into typed values: the one edge.

Go's decoder, which clients were written against, takes `null` for "not given" and names in any case.
So: decode untyped, then walk the value along the type, dropping nulls and mending names, and let
msgspec make the Struct. The walk is also where dockerd's messages come from: they name the field.
A field that does not exist is refused by name, unless its value asks for nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from sampan.errors import InvalidArgument

Value = TypeVar("Value")

# No real request comes near; a seccomp profile has some 100 kB.
BODY_LIMIT_BYTES = 8 << 20

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1

# Go's names of types, where they are not the class's. ContainerConfigWrapper is dockerd's word.
GO_STRUCTS = {"CreateRequest": "ContainerConfigWrapper"}

# A step of the walk: the value, the Go type that holds it, the dotted path to it → the mended value.
Mend = Callable[[Any, str, str], Any]


def decode(
    body: bytes, type: type[Value], prepared: Callable[[dict[str, Any]], None] | None = None
) -> Value:
    """The body as a value of `type`; `prepared` may change the plain object before.

    Raises:
        InvalidArgument: no JSON, a wrong type, a number beyond 64 bits or an unknown field; the
            message names the field.
    """
    value = parse(body)
    if not isinstance(value, dict):
        raise InvalidArgument(
            f"json: cannot unmarshal {_json_kind(value)} into Go value of type "
            f"{GO_STRUCTS.get(type.__name__, type.__name__)}"
        )
    if prepared is not None:
        prepared(value)
    mended = _mender(type)(value, "", "")
    try:
        return msgspec.convert(mended, type)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from error


def parse(body: bytes) -> Any:
    """The body as plain values.

    Raises:
        InvalidArgument: it is no JSON.
    """
    if not body.strip():
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        reason = "unexpected EOF" if "truncated" in str(error) else str(error)
        raise InvalidArgument(f"invalid JSON: {reason}") from error
    except RecursionError as error:
        raise InvalidArgument("invalid JSON: exceeded max depth") from error
    except UnicodeDecodeError as error:
        raise InvalidArgument("invalid JSON: strings have to be UTF-8") from error


def prepare(*types: type) -> None:
    """Compile what decodes these types, some ms, before the first request needs it."""
    for type in types:
        _mender(type)
        with contextlib.suppress(msgspec.ValidationError):  # a field has to be there
            msgspec.convert({}, type)


_menders: dict[Any, Mend] = {}


def _mender(type: Any) -> Mend:
    mender = _menders.get(type)
    if mender is None:
        mender = _menders[type] = _compile(inspect.type_info(type))
    return mender


def _compile(info: inspect.Type) -> Mend:
    """The walk's step for one type, built once."""
    match info:
        case inspect.StructType():
            return _struct_mender(info)
        case inspect.UnionType():
            return _union_mender(info)
        case inspect.ListType():
            return _list_mender(_compile(info.item_type), _go_name(info), None)
        case inspect.TupleType():
            item = _compile(info.item_types[0])
            return _list_mender(item, _go_name(info), len(info.item_types))
        case inspect.DictType():
            return _dict_mender(_compile(info.value_type), _go_name(info))
        case inspect.AnyType() | inspect.NoneType():
            return lambda value, holder, path: value
        case _:
            return _scalar_mender(info)


def _struct_mender(info: inspect.StructType) -> Mend:
    name = _go_name(info).rpartition(".")[2]
    steps = {field.encode_name: _compile(field.type) for field in info.fields}
    folded = {field.casefold(): field for field in steps}

    def mend(value: Any, holder: str, path: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(value, holder, path, _go_name(info))
        mended: dict[str, Any] = {}
        for key, item in value.items():
            field = key if key in steps else folded.get(key.casefold())
            if field is None:
                if not item:  # it asks for nothing; clients send many such
                    continue
                raise InvalidArgument(f'json: unknown field "{_join(path, key)}"')
            if item is not None:
                mended[field] = steps[field](item, name, _join(path, field))
        return mended

    return mend


def _union_mender(info: inspect.UnionType) -> Mend:
    """`X | None`, and Docker's lists that may be one string (`Cmd`, `Entrypoint`)."""
    options = [option for option in info.types if not isinstance(option, inspect.NoneType)]
    first = _compile(options[0])
    takes_text = any(isinstance(option, inspect.StrType) for option in options)

    def mend(value: Any, holder: str, path: str) -> Any:
        return value if takes_text and isinstance(value, str) else first(value, holder, path)

    return mend


def _list_mender(item: Mend, go_type: str, length: int | None) -> Mend:
    def mend(value: Any, holder: str, path: str) -> Any:
        if not isinstance(value, list):
            raise _mismatch(value, holder, path, go_type)
        if length is not None and len(value) != length:
            raise InvalidArgument(f"{path} takes {length} values, not {len(value)}")
        # Go puts the type's zero value where a list holds null; only text has a use here.
        return [item("" if entry is None else entry, holder, path) for entry in value]

    return mend


def _dict_mender(item: Mend, go_type: str) -> Mend:
    def mend(value: Any, holder: str, path: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(value, holder, path, go_type)
        return {
            key: entry if entry is None else item(entry, holder, path)
            for key, entry in value.items()
        }

    return mend


def _scalar_mender(info: inspect.Type) -> Mend:
    match info:
        case inspect.IntType():
            return _integer
        case inspect.BoolType():
            return lambda value, holder, path: _instance(value, bool, holder, path, "bool")
        case inspect.FloatType():
            return lambda value, holder, path: _instance(value, float, holder, path, "float64")
        case _:
            return _text


def _text(value: Any, holder: str, path: str) -> str:
    _instance(value, str, holder, path, "string")
    if "\0" in value:
        raise InvalidArgument(f"invalid JSON: {path} holds a NUL byte")
    return str(value)


def _instance(value: Any, wanted: type, holder: str, path: str, go_type: str) -> Any:
    if not isinstance(value, wanted):
        raise _mismatch(value, holder, path, go_type)
    return value


def _integer(value: Any, holder: str, path: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        if INT64_MIN <= value <= INT64_MAX:
            return value
    elif not isinstance(value, float):
        raise _mismatch(value, holder, path, "int64")
    raise InvalidArgument(
        f"json: cannot unmarshal number {value} into Go struct field {holder}.{path} of type int64"
    )


def _mismatch(value: Any, holder: str, path: str, go_type: str) -> InvalidArgument:
    """encoding/json's UnmarshalTypeError, in its words."""
    return InvalidArgument(
        f"json: cannot unmarshal {_json_kind(value)} into Go struct field "
        f"{holder}.{path} of type {go_type}"
    )


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


def _json_kind(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case int() | float():
            return "number"
        case list():
            return "array"
        case None:
            return "null"
        case _:
            return "object"


def _go_name(info: inspect.Type) -> str:
    """The type as dockerd's messages spell it."""
    match info:
        case inspect.StructType():
            return f"container.{GO_STRUCTS.get(info.cls.__name__, info.cls.__name__)}"
        case inspect.ListType():
            return f"[]{_go_name(info.item_type)}"
        case inspect.TupleType():
            return f"[{len(info.item_types)}]uint"
        case inspect.DictType():
            return f"map[string]{_go_name(info.value_type)}"
        case inspect.IntType():
            return "int64"
        case inspect.BoolType():
            return "bool"
        case inspect.FloatType():
            return "float64"
        case inspect.StrType():
            return "string"
        case inspect.UnionType():
            return _go_name(info.types[0])
        case _:
            return "interface {}"
