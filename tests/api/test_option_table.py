"""No field of a create request is forgotten: Docker's yaml, the engine's model and the table agree."""

from __future__ import annotations

import os
import re
from typing import Any

import msgspec
import pytest
import yaml

from sampan.engine import model
from support import option_table as table

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SPECIFICATION = os.path.join(ROOT, "..", "shared/specs/docker/engine-api-v1.55.yaml")
ROWS = (*table.CONTAINER_CONFIG, *table.HOST_CONFIG, *table.OLD)
OF_OLD_VERSIONS = {
    "ContainerConfig": {"MacAddress"},
    "HostConfig": {"KernelMemory", "KernelMemoryTCP", "Capabilities"},
}


@pytest.fixture(scope="module")
def definitions() -> dict[str, Any]:
    if not os.path.exists(SPECIFICATION):
        pytest.skip("needs Docker's specification beside the repository")
    with open(SPECIFICATION, encoding="utf-8") as file:
        found: dict[str, Any] = yaml.load(file, Loader=yaml.CSafeLoader)["definitions"]
    return found


def resolved(definitions: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with what it refers to in it."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    return schema


def properties(definitions: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """name → schema of an object's fields, those of its parts among them."""
    schema = resolved(definitions, schema)
    found: dict[str, Any] = {}
    for part in schema.get("allOf", ()):
        found |= properties(definitions, part)
    return found | (schema.get("properties") or {})


def fields(kind: Any) -> dict[str, Any]:
    """JSON name → type of a Struct's fields."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}


def structs(kind: Any) -> list[type[msgspec.Struct]]:
    """The Structs in a type: `X | None`, `list[X]`, `dict[str, X]`."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [kind]
    return [found for part in getattr(kind, "__args__", ()) for found in structs(part)]


@pytest.mark.parametrize(
    ("name", "kind", "rows"),
    [
        ("ContainerConfig", model.ContainerConfig, table.CONTAINER_CONFIG),
        ("HostConfig", model.HostConfig, table.HOST_CONFIG),
    ],
)
def test_every_field_is_in_the_table(
    definitions: dict[str, Any], name: str, kind: Any, rows: tuple[table.Row, ...]
) -> None:
    wanted = set(properties(definitions, definitions[name]))
    assert len({row.field for row in rows}) == len(rows)
    assert {row.field for row in rows} == wanted
    assert set(fields(kind)) == wanted | OF_OLD_VERSIONS[name]


def test_those_of_old_versions_are_in_the_table() -> None:
    wanted = {
        f"{name.removeprefix('Container')}.{field}"
        for name, names in OF_OLD_VERSIONS.items()
        for field in names
    }
    assert {row.field for row in table.OLD} == wanted


@pytest.mark.parametrize("name", ["ContainerConfig", "HostConfig"])
def test_the_model_has_every_field_below(definitions: dict[str, Any], name: str) -> None:
    """Of mounts, health checks, devices …: nothing that a client may send is unknown."""
    missing: list[str] = []

    def compare(kind: Any, schema: dict[str, Any], path: str) -> None:
        for field, inner in properties(definitions, schema).items():
            known = fields(kind)
            if field not in known:
                missing.append(f"{path}.{field}")
                continue
            inner = resolved(definitions, inner)
            while inner.get("items") or isinstance(inner.get("additionalProperties"), dict):
                inner = resolved(definitions, inner.get("items") or inner["additionalProperties"])
            for struct in structs(known[field]):
                compare(struct, inner, f"{path}.{field}")

    compare(getattr(model, name), definitions[name], name)
    assert missing == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.field)
def test_the_test_is_there(row: table.Row) -> None:
    path, _, name = row.test.partition("::")
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        text = file.read()
    assert re.search(rf"^(async )?def {name}\(", text, flags=re.MULTILINE)
    assert row.verdict in (table.HONOURED, table.KEPT, table.WARNED, table.REFUSED)


def test_the_page_is_the_table() -> None:
    with open(os.path.join(ROOT, "docs/options.md"), encoding="utf-8") as file:
        assert file.read() == table.page(), "python tests/support/option_table.py > docs/options.md"
