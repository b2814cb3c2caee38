"""`sampan manifest inspect`: a manifest or an index as a registry has it.

The engine asks the registry, so its certificates, mirrors and insecure registries count here too.
"""

from __future__ import annotations

import sys

from sampan.cli import credentials, jsontext, references
from sampan.cli.client import quote
from sampan.cli.failures import ApiError, CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.call import Call

FLAGS = (
    ("insecure", "", "bool", "", ""),
    ("verbose", "v", "bool", "", "Output additional info including layers and platform"),
)
# Order of fields in docker's output.
_DESCRIPTOR = ("mediaType", "size", "digest")
_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant")
_DOCKER = "application/vnd.docker."


def run(call: Call) -> int:
    """Print a manifest; of two arguments the second, as docker does without a list of its own."""
    name = references.familiar(call.args[-1])
    auth = credentials.registry_auth_header(name)
    extra = f"X-Registry-Auth: {auth}\r\n" if auth else ""
    data = _fetch(call, name, extra)
    document = _decoded(data, name)
    entries = document.get("manifests")
    if not call.on("verbose"):
        _print(data, document)
        return 0
    if isinstance(entries, list):
        shown: Any = [_member(call, name, entry, extra) for entry in entries]
    else:
        shown = _verbose(name, data, document, _described(call, name, extra))
    call.say(jsontext.pretty(shown, step="\t"))
    return 0


def _print(data: bytes, document: dict[str, Any]) -> None:
    """An index in docker's order of fields; a manifest as it is, with the white space behind it."""
    if isinstance(document.get("manifests"), list):
        text = jsontext.pretty(_ordered(document), step="   ")
    else:
        text = jsontext.pretty(document, step="\t")
        text += data[len(data.rstrip()) :].decode("utf-8", "replace")
    sys.stdout.write(text + "\n")


def _fetch(call: Call, name: str, extra: str) -> bytes:
    try:
        path = f"/distribution/{quote(name)}/manifest"
        return call.client.open("GET", path, extra=extra).read()
    except ApiError as error:
        if error.code == 404:
            raise CommandError(f"no such manifest: {name}") from None
        raise


def _described(call: Call, name: str, extra: str) -> dict[str, Any]:
    """The descriptor of a manifest, with the platform that its config tells."""
    response = call.client.open("GET", f"/distribution/{quote(name)}/json", extra=extra)
    answer = next(response.values(), None) or {}
    descriptor = dict(answer.get("Descriptor") or {})
    platforms = answer.get("Platforms") or []
    if len(platforms) == 1:
        descriptor["platform"] = platforms[0]
    return descriptor


def _member(call: Call, name: str, entry: dict[str, Any], extra: str) -> dict[str, Any]:
    """One manifest of an index, by its digest."""
    digest = str(entry.get("digest", ""))
    repository, _, _ = references.split(name)
    data = _fetch(call, f"{repository}@{digest}", extra)
    return _verbose(f"{name}@{digest}", data, _decoded(data, name), entry)


def _verbose(
    name: str, data: bytes, document: dict[str, Any], descriptor: dict[str, Any]
) -> dict[str, Any]:
    import binascii

    media_type = str(document.get("mediaType") or descriptor.get("mediaType") or "")
    kind = "SchemaV2Manifest" if media_type.startswith(_DOCKER) else "OCIManifest"
    described = {
        key: descriptor[key] for key in ("mediaType", "digest", "size") if key in descriptor
    }
    return {
        "Ref": name,
        "Descriptor": {**described, **{key: _ordered(item) for key, item in descriptor.items()}},
        "Raw": binascii.b2a_base64(data, newline=False).decode(),
        kind: document,
    }


def _ordered(value: Any) -> Any:
    """A document with the fields of its descriptors and platforms in docker's order."""
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    if not isinstance(value, dict):
        return value
    names = _DESCRIPTOR if "digest" in value else _PLATFORM if "architecture" in value else ()
    first = {key: value[key] for key in names if key in value}
    return {**first, **{key: _ordered(item) for key, item in value.items() if key not in first}}


def _decoded(data: bytes, name: str) -> dict[str, Any]:
    from sampan.jsontext import decode

    value = decode(data.decode("utf-8", "replace"))
    if not isinstance(value, dict):
        raise CommandError(f"the manifest of {name} is no JSON object")
    return value
