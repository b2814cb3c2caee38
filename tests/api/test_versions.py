"""Version prefixes and what older versions' answers hold."""

from __future__ import annotations

import time

import pytest

from api.fakes import Api
from sampan.api.router import Route, Router
from sampan.api.versions import split_version
from sampan.errors import InvalidArgument


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/info", (None, "/info")),
        ("/v1.41/info", ((1, 41), "/info")),
        ("/v1.55/info", ((1, 55), "/info")),
        ("/v1.12/info", ((1, 12), "/info")),
        ("/v1.41.7/info", ((1, 41), "/info")),
        ("/v1.41", (None, "/v1.41")),
        ("/v/info", (None, "/v/info")),
        ("/volumes", (None, "/volumes")),
    ],
)
def test_prefixes(path: str, expected: object) -> None:
    assert split_version(path) == expected


@pytest.mark.parametrize("digits", ["1" * 10_000, "1." * 10_000 + "1", "1." + "9" * 5000])
async def test_an_endless_version(api: Api, digits: str) -> None:
    """More digits than Python turns into a number; refused, and not repeated at that length."""
    status, answer = await api.ask("GET", f"/v{digits}/info")
    assert status == 400
    assert answer["message"].startswith("invalid version format: 1")
    assert len(answer["message"]) < 100


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "/v1.11/info",
            (
                "client version 1.11 is too old. Minimum supported API version is 1.12, please "
                "upgrade your client to a newer version"
            ),
        ),
        (
            "/v1.56/info",
            "client version 1.56 is too new. Maximum supported API version is 1.55",
        ),
        ("/v2/info", "client version 2 is too new. Maximum supported API version is 1.55"),
    ],
)
def test_refused_versions(path: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        split_version(path)
    assert caught.value.message == message


def fields(answer: dict[str, dict[str, object]], *names: str) -> list[bool]:
    return [name in answer for name in names]


async def test_legacy_network_fields_end_with_1_52(api: Api) -> None:
    await api.container()
    for path, kept in (("", True), ("/v1.51", True), ("/v1.52", False), ("/v1.55", False)):
        _, answer = await api.ask("GET", f"{path}/containers/box/json")
        assert ("IPAddress" in answer["NetworkSettings"]) is kept
        assert "bridge" in answer["NetworkSettings"]["Networks"]


async def test_kernel_memory_ends_with_1_42(api: Api) -> None:
    await api.container()
    for path, kept in (("/v1.41", True), ("/v1.42", False)):
        _, answer = await api.ask("GET", f"{path}/containers/box/json")
        assert ("KernelMemory" in answer["HostConfig"]) is kept
        _, answer = await api.ask("GET", f"{path}/info")
        assert ("KernelMemory" in answer) is kept


async def test_image_fields_by_version(api: Api) -> None:
    expected = {
        "/v1.43": [True, True, True],
        "/v1.44": [False, True, True],
        "/v1.45": [False, False, True],
        "/v1.50": [False, False, True],
        "/v1.52": [False, False, False],
    }
    for path, kept in expected.items():
        _, answer = await api.ask("GET", f"{path}/images/busybox/json")
        assert fields(answer, "VirtualSize", "ContainerConfig", "Comment") == kept, path
        assert ("Hostname" in answer["Config"]) is (path < "/v1.50")
        assert ("Env" in answer["Config"]) is (path < "/v1.52")
        assert answer["Config"]["Cmd"] == ["sh"]
        _, images = await api.ask("GET", f"{path}/images/json")
        assert ("VirtualSize" in images[0]) is (path < "/v1.44")


async def test_an_empty_wait_error_ends_with_1_42(api: Api) -> None:
    await api.container()
    assert await api.ask("POST", "/v1.41/containers/box/wait") == (
        200,
        {"Error": None, "StatusCode": 0},
    )
    assert await api.ask("POST", "/v1.42/containers/box/wait") == (200, {"StatusCode": 0})


async def test_event_fields_of_1_21_end_with_1_52(api: Api) -> None:
    await api.container()
    for path, kept in (("", True), ("/v1.51", True), ("/v1.52", False)):
        _, event = await api.ask("GET", f"{path}/events?since=1&until={time.time()}")
        assert fields(event, "status", "id", "from", "Action") == [kept, kept, kept, True]


ROUTES = [
    Route("GET", "/containers/json", "list"),
    Route("GET", "/containers/{id}/json", "inspect"),
    Route("DELETE", "/containers/{id}", "remove"),
    Route("GET", "/images/{name...}/json", "image"),
    Route("DELETE", "/images/{name...}", "untag"),
    Route("GET", "/images/json", "images"),
]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/containers/json", ("list", [])),
        ("GET", "/containers/json/json", ("inspect", ["json"])),
        ("DELETE", "/containers/json", ("remove", ["json"])),
        ("GET", "/containers//json", None),
        ("GET", "/containers/a%2Fb/json", ("inspect", ["a/b"])),
        ("GET", "/images/json", ("images", [])),
        ("GET", "/images/json/json", ("image", ["json"])),
        ("GET", "/images/r.io:5000/a/b:1/json", ("image", ["r.io:5000/a/b:1"])),
        ("DELETE", "/images/a/json", ("untag", ["a/json"])),
        ("GET", "/images//json", None),
        ("GET", "/containers/json/", None),
        ("POST", "/containers/json", None),
        ("GET", "containers/json", None),
    ],
)
def test_routes(method: str, path: str, expected: object) -> None:
    found = Router(ROUTES).find(method, path)
    assert (found and (found[0].target, found[1])) == expected


def test_a_route_stands_once() -> None:
    with pytest.raises(ValueError, match="two routes"):
        Router([*ROUTES, Route("GET", "/containers/{name}/json", "again")])
