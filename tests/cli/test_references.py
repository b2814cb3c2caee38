"""The command line's own reading of references: the engine's, and the docker command's."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from sampan.cli import references
from sampan.cli.failures import CommandError
from sampan.oci.reference import BadReference, parse_reference
from support.command import docker_clis
from support.references import HEX, texts

NOWHERE = "unix:///nonexistent"


def read(text: str) -> str:
    try:
        domain, path, tag, digest = references.parse(text)
    except ValueError as error:
        # dockerd 20.10 does not say which part; docker 28 does, and so do we here.
        return re.sub(
            r"repository name \(.*\) must", "repository name must", str(error), flags=re.S
        )
    return f"{domain}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def test_as_the_engine_reads_them() -> None:
    for text in texts():
        if "@sha512:" in text or "@sha384:" in text:
            continue  # digests that the engine cannot verify
        try:
            wanted = str(parse_reference(text))
        except BadReference as error:
            wanted = error.message
        assert read(text) == wanted, text


def tagged(text: str) -> str:
    """What `tag` says: an error, or that it goes on to the engine."""
    try:
        references.repository_and_tag(text)
    except CommandError as error:
        return error.message
    return "goes on"


@pytest.mark.docker_cli
def test_as_docker_reads_them() -> None:
    """Every eighth; docker 28, as older ones know less."""
    path = next(iter(docker_clis().values()))
    version = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    if not re.search(r"version (2[89]|[3-9]\d)\.", version):
        pytest.skip(f"needs docker 28, there is: {version.strip()}")
    environ = {**os.environ, "DOCKER_HOST": NOWHERE, "HOME": "/nonexistent"}
    environ.pop("DOCKER_CONTEXT", None)
    for text in texts()[3::8]:
        done = subprocess.run([path, "tag", "busybox", text], env=environ, capture_output=True, text=True)  # fmt: skip
        line = done.stderr.splitlines()[0] if done.stderr else ""
        wanted = "goes on" if NOWHERE in line else line
        assert tagged(text) == wanted, text


def test_parts() -> None:
    digest = f"sha256:{HEX}"
    assert references.split("docker.io/library/app:1") == ("app", "1", "")
    assert references.split(f"index.docker.io/user/app@{digest}") == ("user/app", "", digest)
    assert references.familiar("localhost:5000/app") == "localhost:5000/app:latest"
    assert references.familiar(f"app:1@{digest}") == f"app:1@{digest}"
    assert references.full("app", "1", "") == "docker.io/library/app:1"
    assert references.is_identity(digest) and references.is_identity(HEX)
    assert not references.is_identity("app")
    references.check_source(HEX)
    with pytest.raises(CommandError, match=r'Error parsing reference: "A" is not .* \(library/A\)'):
        references.check_source("A")
