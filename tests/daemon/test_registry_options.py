"""dockerd's options of registries: on the command line, in the file, read again, and shown by `info`."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from sampan.daemon.options import parse
from sampan.engine.registry_config import registry_fields
from sampan.errors import InvalidArgument
from sampan.images.distribution.settings import RegistrySettings
from support.command import docker_clis
from support.engines import SampanEngine
from support.registries import Registry
from support.registry_images import layer, put_image
from support.waiting import wait_for


def config(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_flags(tmp_path: Path) -> None:
    options = parse(
        [
            *("--config-file", config(tmp_path, {})),
            *("--registry-mirror", "https://a/", "--registry-mirror=http://b:5000"),
            *("--insecure-registry", "10.1.0.0/16", "--insecure-registry", "http://c:1"),
            *("--max-concurrent-downloads", "7", "--max-concurrent-uploads=8"),
            *("--max-download-attempts", "9"),
        ]
    )
    settings = RegistrySettings(
        mirrors=("https://a", "http://b:5000"),
        insecure=("10.1.0.0/16", "c:1"),
        max_concurrent_downloads=7,
        max_concurrent_uploads=8,
        max_download_attempts=9,
    )
    assert options.registries == options.for_engine().registries == settings


def test_a_file(tmp_path: Path) -> None:
    content = {
        "registry-mirrors": ["https://a"],
        "insecure-registries": ["c:1"],
        "max-concurrent-downloads": 1,
        "max-concurrent-uploads": 0,
    }
    settings = parse(["--config-file", config(tmp_path, content)]).registries
    assert settings == RegistrySettings(
        mirrors=("https://a",), insecure=("c:1",), max_concurrent_downloads=1
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"registry-mirrors": ["a"]}, 'invalid mirror: unsupported scheme "" in "a"'),
        ({"insecure-registries": ["-a"]}, "Cannot use insecure registry"),
        ({"max-concurrent-downloads": -1}, "invalid max concurrent downloads: -1"),
        ({"max-concurrent-uploads": -2}, "invalid max concurrent uploads: -2"),
        ({"max-download-attempts": -3}, "invalid max download attempts: -3"),
        ({"max-concurrent-downloads": True}, "max-concurrent-downloads cannot be true"),
        ({"max-concurrent-downloads": "3"}, 'max-concurrent-downloads cannot be "3"'),
        ({"registry-mirror": []}, "don't match any configuration option: registry-mirror"),
    ],
)
def test_a_refused_file(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(["--config-file", config(tmp_path, content)])
    assert message in caught.value.message


def test_a_number_on_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="max-concurrent-downloads"):
        parse(["--config-file", config(tmp_path, {}), "--max-concurrent-downloads", "many"])


def test_what_info_shows() -> None:
    settings = RegistrySettings(mirrors=("https://a",), insecure=("10.1.0.0/16", "c:1"))
    shown = registry_fields(settings, {"HTTPS_PROXY": "http://me:secret@p:1"})
    assert shown["RegistryConfig"] == {
        "AllowNondistributableArtifactsCIDRs": [],
        "AllowNondistributableArtifactsHostnames": [],
        "InsecureRegistryCIDRs": ["10.1.0.0/16", "127.0.0.0/8", "::1/128"],
        "IndexConfigs": {
            "docker.io": {
                "Name": "docker.io",
                "Mirrors": ["https://a/"],
                "Secure": True,
                "Official": True,
            },
            "c:1": {"Name": "c:1", "Mirrors": [], "Secure": False, "Official": False},
        },
        "Mirrors": ["https://a/"],
    }
    assert shown["HttpsProxy"] == "http://xxxxx:xxxxx@p:1"


@pytest.mark.root
def test_read_again(own_sampan: SampanEngine, tmp_path: Path) -> None:
    """SIGHUP: the next request goes by the new settings; no restart is asked for."""
    own_sampan.terminate()
    path = tmp_path / "daemon.json"
    path.write_text("{}")
    own_sampan.start("--config-file", str(path))
    assert own_sampan.get("/info").json["RegistryConfig"]["Mirrors"] == []
    path.write_text(json.dumps({"registry-mirrors": ["https://mirror.invalid"]}))
    assert own_sampan.process is not None
    own_sampan.process.send_signal(signal.SIGHUP)
    wait_for(
        lambda: own_sampan.get("/info").json["RegistryConfig"]["Mirrors"],
        "the new settings to be in force",
    )
    assert "used after a restart" not in own_sampan.log()


@pytest.mark.root
@pytest.mark.docker_cli
def test_a_mirror_of_docker_hub(own_sampan: SampanEngine, registry: Registry) -> None:
    """`docker pull app:v1` of an image that only the mirror can give."""
    put_image(registry, "library/app", "v1", [layer(1000)])
    own_sampan.terminate()
    own_sampan.start("--registry-mirror", registry.url)
    path = next(iter(docker_clis().values()), None)
    if path is None:
        pytest.skip("needs the command docker")
    docker = own_sampan.cli(path)
    done = docker("pull", "app:v1")
    assert "Status: Downloaded newer image for app:v1" in done.out
    assert done.out.splitlines()[-1] == "docker.io/library/app:v1"
    assert f"Registry Mirrors:\n  {registry.url}/" in docker("info").out
