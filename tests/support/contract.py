"""Docker's own description of its API as a contract: every answer has the shape its version says.

contract = Contract("1.55")
contract.check("GET", "/containers/json", answer)      # path without its version

A field that the description does not have is a breach, too, unless it is one of `OURS`.
"""

from __future__ import annotations

import functools
import operator
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from jsonschema import Draft4Validator, ValidationError

from support.http import Answer

SPECS = os.environ.get(
    "SAMPAN_SPECS", os.path.join(os.path.dirname(__file__), "../../../shared/specs")
)
VERSIONS = ("1.50", "1.55")

# Sampan's own fields (docs/api.md).
OURS = frozenset({"Cursor", "By", "PartialDownloads"})

# Of events before 1.52, and never in the description.
OF_OLD_EVENTS = frozenset({"status", "id", "from"})

# Where the description is narrower than what every dockerd answers: Go's nil pointers.
NULLABLE = (
    ("definitions", "Resources", "properties", "MemorySwappiness"),
    ("definitions", "Resources", "properties", "OomKillDisable"),
    ("definitions", "Health", "properties", "Log"),
    ("paths", "/exec/{id}/json", "get", "responses", 200, "schema", "properties", "ExitCode"),
)

# dockerd answers with these, too: a request that cannot be meant, a name in use.
UNDECLARED = frozenset(
    {
        ("GET", "/containers/{id}/logs", 400),
        ("POST", "/containers/{id}/rename", 400),
        ("POST", "/networks/create", 409),
    }
)


class Contract:
    """The description of one version."""

    def __init__(self, version: str) -> None:
        self.version = version
        path = os.path.join(SPECS, f"docker/engine-api-v{version}.yaml")
        if not os.path.exists(path):
            pytest.skip(f"needs {path}")
        loaded = _loaded(path)
        self.paths: dict[str, dict[str, Any]] = loaded["paths"]
        self.definitions: dict[str, Any] = loaded["definitions"]
        self.hit: set[tuple[str, str]] = set()
        self._patterns = [
            (re.compile(re.sub(r"\{name\}", "(.+)", _escaped(template)) + r"\Z"), template)
            for template in sorted(self.paths, key=lambda text: (text.count("{"), text))
        ]

    def operation(self, method: str, path: str) -> tuple[str, dict[str, Any]]:
        """(path template, operation) of a request.

        Raises:
            AssertionError: the description has none.
        """
        for pattern, template in self._patterns:
            if pattern.match(path) and method.lower() in self.paths[template]:
                return template, self.paths[template][method.lower()]
        raise AssertionError(f"{method} {path} is not in the description of {self.version}")

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(method, path template, operation) of all."""
        for template, entries in self.paths.items():
            for method, operation in entries.items():
                if method != "parameters":
                    yield method.upper(), template, operation

    def check(self, method: str, path: str, answer: Answer) -> None:
        """Hold an answer against the description.

        Raises:
            AssertionError: an undeclared status, or a body that breaks its schema.
        """
        template, operation = self.operation(method, path.partition("?")[0])
        responses = {str(status): each for status, each in operation["responses"].items()}
        said = f"{method} {path} ({self.version})"
        self.hit.add((method, template))
        if (method, template, answer.status) in UNDECLARED:
            return
        assert str(answer.status) in responses, f"{said}: {answer}, declared are {list(responses)}"
        schema = responses[str(answer.status)].get("schema")
        if schema is None or method == "HEAD" or answer.status == 304:
            return
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if schema.get("type") == "string" or kind != "application/json":
            assert kind != "application/json" or answer.status < 400 or "message" in answer.json
            return
        breaches = self.breaches(answer.json, schema)
        assert not breaches, f"{said}: " + "; ".join(breaches)

    def breaches(self, value: Any, schema: dict[str, Any]) -> list[str]:
        """What is wrong with a value: types and missing fields, then fields too many."""
        validator = Draft4Validator({**schema, "definitions": self.definitions})
        wrong = [text for error in validator.iter_errors(value) for text in _told(error)]
        return [*wrong, *self._unknown(value, schema, "")]

    def _unknown(self, value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
        if isinstance(value, list):
            items = self._parts(schema, "items")
            for entry in value:
                for inner in items[:1]:
                    yield from self._unknown(entry, inner, f"{path}[]")
        if not isinstance(value, dict):
            return
        properties: dict[str, Any] = {}
        for part in self._parts(schema, "properties"):
            properties |= part
        free = self._parts(schema, "additionalProperties")
        allowed = OURS if self.version >= "1.52" else OURS | OF_OLD_EVENTS
        for name, inner in value.items():
            if name in properties:
                yield from self._unknown(inner, properties[name], f"{path}.{name}")
            elif free:
                for schema_of_values in free[:1]:
                    if isinstance(schema_of_values, dict):
                        yield from self._unknown(inner, schema_of_values, f"{path}.{name}")
            elif properties and name not in allowed:
                yield f"{path}.{name} is not in the description"

    def _parts(self, schema: dict[str, Any], key: str) -> list[Any]:
        """`key` of a schema, of what it refers to and of what it is made of."""
        found = [schema[key]] if schema.get(key) else []
        if "$ref" in schema:
            found += self._parts(self.definitions[schema["$ref"].rpartition("/")[2]], key)
        for part in (*schema.get("allOf", ()), *schema.get("anyOf", ())):
            found += self._parts(part, key)
        return found


@functools.cache
def _loaded(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        loaded = yaml.load(file, Loader=yaml.CSafeLoader)
    for path_to_schema in NULLABLE:
        functools.reduce(operator.getitem, path_to_schema, loaded)["x-nullable"] = True
    # It asks for a field that it does not have.
    data = loaded["definitions"]["ImageManifestSummary"]["properties"]["ImageData"]
    data["required"] = [name for name in data["required"] if name in data["properties"]]
    return _as_schema({"definitions": loaded["definitions"], "paths": loaded["paths"]})


def _as_schema(value: Any) -> Any:
    """Swagger's words in JSON schema's."""
    if isinstance(value, list):
        return [_as_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    schema = {
        key: _as_schema(item) for key, item in value.items() if key not in ("example", "format")
    }
    nullable = schema.pop("x-nullable", False) is True
    # Go's nil maps and slices are null, which the description does not say everywhere.
    if nullable or schema.get("type") in ("array", "object"):
        return {"anyOf": [{"type": "null"}, schema]} if "in" not in schema else schema
    return schema


def _escaped(template: str) -> str:
    return re.sub(r"\{(?!name\})[^}]+\}", "([^/]+)", template)


def _told(error: ValidationError) -> list[str]:
    """What is wrong, behind the alternatives "null or …"."""
    behind = [inner for inner in error.context or () if inner.schema_path[0] == 1]
    if behind:
        return [text for inner in behind for text in _told(inner)]
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"]
