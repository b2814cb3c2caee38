"""What a data root holds, counted without the engine's own books, and compared with them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from typing import Any

from support.engines import SampanEngine
from support.waiting import wait_for


def expect_all_accounted(engine: SampanEngine) -> dict[str, Any]:
    """Wait until every byte below the data root has an owner that is needed; return the account.

    Compared with it: the blobs that the layout's index.json leads to, the chain IDs of the images
    that are listed, and what `du` says.
    """
    problems: list[str] = ["?"]

    def is_clean() -> bool:
        problems[:] = _problems(engine)
        return not problems

    try:
        wait_for(is_clean, "every byte to have an owner", timeout_s=60)
    except AssertionError as error:
        raise AssertionError(f"{error}:\n" + "\n".join(problems)) from None
    account: dict[str, Any] = engine.get("/system/df/account").json
    return account


def _problems(engine: SampanEngine) -> list[str]:
    account = engine.get("/system/df/account").json
    found = [f"needed by nothing: {name}" for name in account["Unowned"]]
    found += [f"not as recorded: {text}" for text in account["Differences"]]
    found += [
        f"left: {kind}"
        for kind in ("operation", "removal", "unknown")
        if account["Kinds"].get(kind, {}).get("Count")
    ]
    blobs = set(os.listdir(os.path.join(engine.data_root, "blobs/sha256")))
    named = named_blobs(engine.data_root) | (blobs & pulled_by(engine))
    found += [f"blob that no image names: {name}" for name in blobs - named]
    found += [f"blob that is missing: {name}" for name in named - blobs]
    layers = set(os.listdir(os.path.join(engine.data_root, "layers")))
    wanted = wanted_layers(engine)
    found += [f"layer that nothing stands on: {name}" for name in layers - wanted]
    found += [f"layer that is missing: {name}" for name in wanted - layers]
    used = disk_usage(engine.data_root)
    if used != account["DiskBytes"]:
        found.append(f"du says {used}, the account {account['DiskBytes']}")
    return found


def named_blobs(root: str) -> set[str]:
    """The blobs that index.json leads to, by their hex digits, read as any other tool would."""
    with open(os.path.join(root, "index.json")) as file:
        pending = [entry["digest"] for entry in json.load(file)["manifests"]]
    named: set[str] = set()
    while pending:
        digits = pending.pop().removeprefix("sha256:")
        if digits in named:
            continue
        named.add(digits)
        path = os.path.join(root, "blobs/sha256", digits)
        if not os.path.exists(path) or os.path.getsize(path) > 1 << 20:
            continue
        try:
            with open(path, "rb") as file:
                document = json.load(file)
        except ValueError:
            continue
        if isinstance(document, dict) and "layers" in document and "config" in document:
            pending += [entry["digest"] for entry in (document["config"], *document["layers"])]
    return named


def pulled_by(engine: SampanEngine) -> set[str]:
    """The digests that images were pulled by: of their manifest, or of the index that has it."""
    images = engine.get("/images/json", all=1, digests=1).json
    names = [name for image in images for name in image.get("RepoDigests") or ()]
    return {name.partition("@sha256:")[2] for name in names}


def wanted_layers(engine: SampanEngine) -> set[str]:
    """The chain IDs of all images that are listed, as hex digits."""
    wanted = set()
    for image in engine.get("/images/json", all=1).json:
        chain = ""
        for diff_id in engine.get(f"/images/{image['Id']}/json").json["RootFS"].get("Layers") or ():
            text = f"{chain} {diff_id}" if chain else ""
            chain = "sha256:" + hashlib.sha256(text.encode()).hexdigest() if text else diff_id
            wanted.add(chain.removeprefix("sha256:"))
    return wanted


def disk_usage(root: str) -> int:
    """Allocated bytes, by du."""
    done = subprocess.run(
        ["du", "-s", "-x", "-B1", root], capture_output=True, text=True, check=False
    )
    return int(done.stdout.split()[0])


def expect_images_run(engine: SampanEngine) -> list[str]:
    """Run `true` in a container of every listed image; return their IDs."""
    identities = [image["Id"] for image in engine.get("/images/json", all=1).json]
    for identity in identities:
        body: dict[str, Any] = {"Image": identity, "HostConfig": {"NetworkMode": "none"}}
        body["Cmd"] = ["sh", "-c", "cat /data*/random | md5sum"]
        made = engine.post("/containers/create", body)
        assert made.status == 201, made
        container = made.json["Id"]
        assert engine.post(f"/containers/{container}/start").status == 204
        assert engine.post(f"/containers/{container}/wait").json["StatusCode"] == 0
        assert engine.delete(f"/containers/{container}").status == 204
    return identities
