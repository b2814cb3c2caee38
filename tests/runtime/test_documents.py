"""The documents that the runtime writes, by the specification's own JSON schemas."""

from __future__ import annotations

import json
import os
from typing import Any

import jsonschema
import pytest

from sampan.linux import mounts
from sampan.runtime import default_spec, features

SCHEMAS = os.environ.get(
    "SAMPAN_SPECS", os.path.join(os.path.dirname(__file__), "../../../shared/specs")
)
DIRECTORY = os.path.join(SCHEMAS, "oci-runtime")

pytestmark = pytest.mark.skipif(
    not os.path.isdir(DIRECTORY), reason="needs the schemas of the OCI runtime-spec"
)


def validate(document: Any, schema: str) -> None:
    path = os.path.join(os.path.abspath(DIRECTORY), schema)
    with open(path) as file:
        body = json.load(file)
    resolver = jsonschema.RefResolver(f"file://{path}", body)
    jsonschema.Draft4Validator(body, resolver=resolver).validate(document)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_default_specification() -> None:
    validate(default_spec.default_spec(), "config-schema.json")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_features() -> None:
    document = features.features()
    validate(document, "features-schema.json")
    assert set(document["mountOptions"]) == set(mounts.OPTION_WORDS)


@pytest.mark.root
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_state(bundle: Any, oci: Any) -> None:
    bundle.config["annotations"] = {"k": "v"}
    assert oci("create", "one").code == 0
    validate(json.loads(oci("state", "one").out), "state-schema.json")
    validate(bundle.config, "config-schema.json")


@pytest.mark.root
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_spec_verb(bundle: Any, oci: Any) -> None:
    os.mkdir(f"{bundle.path}/new")
    assert oci("spec", "--bundle", f"{bundle.path}/new").code == 0
    with open(f"{bundle.path}/new/config.json") as file:
        validate(json.load(file), "config-schema.json")
    assert "exists. Remove it first" in oci("spec", "--bundle", f"{bundle.path}/new").err
