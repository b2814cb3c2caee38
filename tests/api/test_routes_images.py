"""`/images` over the engine in memory."""

from __future__ import annotations

import base64
import io
import json

import pytest

from api.fakes import Api
from sampan.api.platforms import platform_text
from sampan.errors import InvalidArgument

TAR = {"Content-Type": "application/x-tar"}


async def test_inspect_by_a_name_with_slashes(api: Api) -> None:
    status, answer = await api.ask("GET", "/images/registry.example/a/b:1/json")
    assert (status, answer["Size"]) == (200, 1234)
    assert await api.ask("GET", "/images/nosuch/json") == (
        404,
        {"message": "No such image: nosuch:latest"},
    )


async def test_load(api: Api) -> None:
    body = b"x" * 3_000_000
    status, answer = await api.ask("POST", "/images/load?quiet=1", io.BytesIO(body), headers=TAR)
    assert (status, answer) == (200, {"stream": "Loaded image: busybox:latest\n"})
    assert api.engine.images.received == body


async def test_a_load_that_fails_at_once_has_a_status(api: Api) -> None:
    assert await api.ask("POST", "/images/load", b"", headers=TAR) == (
        400,
        {"message": "no image in an empty archive"},
    )


async def test_a_load_that_fails_later_says_so_in_the_stream(api: Api) -> None:
    async with api.session.post("http://d/images/load", data=b"broken", headers=TAR) as answer:
        assert answer.status == 200
        lines = [json.loads(line) for line in (await answer.read()).splitlines()]
    assert lines == [
        {"stream": "Loaded image: busybox:latest\n"},
        {"errorDetail": {"message": "the archive is broken"}, "error": "the archive is broken"},
    ]


async def test_save(api: Api) -> None:
    for path in ("/images/busybox/get", "/images/get?names=busybox&names=busybox:latest"):
        async with api.session.get(f"http://d{path}") as answer:
            assert answer.headers["Content-Type"] == "application/x-tar"
            assert await answer.read() == b"tar" * 3000
    assert (await api.ask("GET", "/images/nosuch/get"))[0] == 404
    assert (await api.ask("GET", "/images/get"))[0] == 400


async def test_import(api: Api) -> None:
    status, answer = await api.ask(
        "POST", "/images/create?fromSrc=-&repo=a&tag=b", b"tar", headers=TAR
    )
    assert (status, answer["status"][:7]) == (200, "sha256:")


async def test_what_is_not_built_is_said(api: Api) -> None:
    assert (await api.ask("GET", "/images/a/attestations"))[0] == 501


async def test_pull(api: Api) -> None:
    status, answer = await api.ask(
        "POST", "/images/create?fromImage=a/b&tag=c&platform=linux/arm64"
    )
    assert (status, answer["status"]) == (200, "Pulling from library/busybox")
    assert api.engine.images.pulled == (
        "a/b",
        {"tag": "c", "platform": "linux/arm64", "credentials": None, "all_tags": True},
    )
    assert (await api.ask("POST", "/images/create?fromImage=nosuch"))[0] == 404
    async with api.session.post("http://d/images/create?fromImage=broken") as broken:
        assert broken.status == 200
        last = (await broken.read()).splitlines()[-1]
    text = "filesystem layer verification failed"
    assert json.loads(last) == {"errorDetail": {"message": text}, "error": text}


async def test_tag_and_remove(api: Api) -> None:
    assert await api.ask("POST", "/images/busybox/tag?repo=a&tag=b") == (201, None)
    assert await api.ask("DELETE", "/images/busybox") == (200, [{"Untagged": "busybox:latest"}])
    assert (await api.ask("DELETE", "/images/nosuch"))[0] == 404


async def test_the_list_counts_containers_since_1_51(api: Api) -> None:
    await api.container("a")
    await api.container("b")
    for path, count in (("/v1.50", -1), ("/v1.51", 2), ("", 2)):
        _, answer = await api.ask("GET", f"{path}/images/json")
        assert answer[0]["Containers"] == count


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", None),
        ("linux/arm64", "linux/arm64"),
        ('{"architecture":"arm64","os":"linux","variant":"v8"}', "linux/arm64/v8"),
        ('{"architecture":"amd64","os":"linux"}', "linux/amd64"),
    ],
)
def test_platforms(given: str, expected: str | None) -> None:
    assert platform_text(given) == expected


@pytest.mark.parametrize("given", ["{", '{"os": 5}'])
def test_refused_platforms(given: str) -> None:
    with pytest.raises(InvalidArgument):
        platform_text(given)


@pytest.mark.parametrize("where", ["header", "body", "nowhere", "unreadable"])
async def test_push_takes_credentials(api: Api, where: str) -> None:
    """From the header; from the body, as clients of old do; what cannot be read is none."""
    document = json.dumps({"username": "me", "password": "secret"}).encode()
    header = base64.urlsafe_b64encode(document).decode()
    headers = {"header": {"X-Registry-Auth": header}, "unreadable": {"X-Registry-Auth": "%%"}}
    async with api.session.post(
        "http://d/images/r.test/a/push?tag=1",
        data=document if where == "body" else None,
        headers=headers.get(where),
    ) as answer:
        assert answer.status == 200
        assert b"The push refers to repository" in await answer.read()
    reference, options = api.engine.images.pushed
    assert (reference, options["tag"], options["platform"]) == ("r.test/a", "1", None)
    given = options["credentials"]
    assert (given and given.username) == ("me" if where in ("header", "body") else None)


async def test_push_takes_a_platform(api: Api) -> None:
    platform = '{"os":"linux","architecture":"arm64","variant":"v8"}'
    async with api.session.post("http://d/images/a/push", params={"platform": platform}) as answer:
        assert answer.status == 200
    _, options = api.engine.images.pushed
    assert (options["tag"], options["platform"]) == (None, "linux/arm64/v8")
