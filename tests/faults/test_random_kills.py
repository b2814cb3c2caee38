"""`kill -9` of the daemon at a random moment of load, import, pull, commit, run, rm, tag, prune and rmi: the
next one accounts for every byte, and every image that it lists runs.

`--kills N` says how often (the suite's few are enough to see that nothing is broken for good; a
release gets 200).
"""

from __future__ import annotations

import contextlib
import functools
import random
import threading
import time
from collections.abc import Callable

import pytest

from sampan.oci.descriptor import local_platform
from support.accounts import expect_all_accounted, expect_images_run
from support.engines import SampanEngine
from support.registries import Registry
from support.registry_images import layer, put_image, put_index
from support.rootfs import image_tar, rootfs_tar

Operation = Callable[[SampanEngine], None]

LAYERS = 5
LAYER_BYTES = 700_000
LONGEST_S = 0.6  # longer than what the slowest operation takes on an idle machine
NAMES = ("one", "two", "three")


@functools.cache
def layers(name: str) -> tuple[bytes, ...]:
    """A root file system that all share, one layer that some share, and layers of their own."""
    first = NAMES.index(name) * 10
    own = [layer(LAYER_BYTES, seed=first + number) for number in range(LAYERS)]
    return (rootfs_tar(), layer(LAYER_BYTES, seed=99), *own)


@functools.cache
def archive_of(name: str) -> bytes:
    return image_tar(f"loaded:{name}", layers(name), {"Cmd": ["sh"]})


def load(name: str, engine: SampanEngine) -> None:
    engine.request("POST", "/images/load", raw=archive_of(name))


def import_(name: str, engine: SampanEngine) -> None:
    query = {"fromSrc": "-", "repo": "imported", "tag": name}
    tree = rootfs_tar()[:-1024] + layers(name)[2]
    engine.request("POST", "/images/create", raw=tree, query=query)


def pull(name: str, registry: Registry, engine: SampanEngine) -> None:
    query = {"fromImage": f"{registry.address}/team/{name}", "tag": "1"}
    engine.request("POST", "/images/create", query=query)


def commit(name: str, engine: SampanEngine) -> None:
    images = engine.get("/images/json").json
    if not images:
        return load(name, engine)
    script = "dd if=/dev/urandom of=/written bs=64k count=20 2>/dev/null"
    body = {"Image": images[0]["Id"], "Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": "none"}}  # fmt: skip
    made = engine.post("/containers/create", body)
    if made.status == 201:
        engine.post(f"/containers/{made.json['Id']}/start")
        engine.post(f"/containers/{made.json['Id']}/wait")
        engine.post("/commit", {}, container=made.json["Id"], repo="committed", tag=name)
    return None


def run(engine: SampanEngine) -> None:
    """Containers that write, made and removed one after the other."""
    for image in engine.get("/images/json").json[:3]:
        body = {"Image": image["Id"], "Cmd": ["sh", "-c", "cp -r /bin /copy"], "HostConfig": {"NetworkMode": "none"}}  # fmt: skip
        made = engine.post("/containers/create", body)
        if made.status == 201:
            engine.post(f"/containers/{made.json['Id']}/start")
            engine.delete(f"/containers/{made.json['Id']}", force=1)


def remove(engine: SampanEngine) -> None:
    for image in engine.get("/images/json").json:
        engine.delete(f"/images/{image['Id']}", force=1)


def remove_one(engine: SampanEngine) -> None:
    for image in engine.get("/images/json").json[:1]:
        engine.delete(f"/images/{image['Id']}", force=1)


def prune(engine: SampanEngine) -> None:
    engine.post("/images/prune", filters={"dangling": ["false"]})


def tag(name: str, engine: SampanEngine) -> None:
    for image in engine.get("/images/json").json[:2]:
        engine.post(f"/images/{image['Id']}/tag", repo="tagged", tag=name)


@pytest.fixture
def filled(registry: Registry) -> Registry:
    """A registry with an image of each name, the last one in an index of platforms."""
    for name in NAMES:
        made = put_image(registry, f"team/{name}", "1", layers(name))
    put_index(registry, f"team/{NAMES[-1]}", "1", {str(local_platform()): made})
    return registry


def operations(registry: Registry) -> list[Operation]:
    """Those that add come more often than those that remove."""
    made: list[Operation] = [remove, remove_one, prune, run, run]
    for name in NAMES:
        made += [functools.partial(load, name), functools.partial(pull, name, registry)]
        made += [functools.partial(load, name), functools.partial(pull, name, registry)]
        made += [functools.partial(work, name) for work in (import_, commit, tag)]
    return made


def begin(work: Operation, engine: SampanEngine) -> threading.Thread:
    def attempt() -> None:
        with contextlib.suppress(OSError, ValueError):  # the daemon dies under the request
            work(engine)

    thread = threading.Thread(target=attempt)
    thread.start()
    return thread


@pytest.mark.timeout(3600)
def test_nothing_is_lost_or_left(
    own_sampan: SampanEngine, filled: Registry, pytestconfig: pytest.Config
) -> None:
    engine = own_sampan
    chance = random.Random(pytestconfig.getoption("--seed"))
    choices = operations(filled)
    for number in range(pytestconfig.getoption("--kills")):
        chosen = [chance.choice(choices) for _ in range(chance.choice((1, 1, 2, 3)))]
        delay_s = chance.random() ** 2 * LONGEST_S * len(chosen)  # removals take milliseconds
        told = f"kill {number}: {chosen} after {delay_s:.3f} s"
        threads = [begin(work, engine) for work in chosen]
        time.sleep(delay_s)  # the random moment itself
        engine.kill()
        for thread in threads:
            thread.join()
        engine.start()
        try:
            engine.remove_containers()
            expect_all_accounted(engine)
            expect_images_run(engine)
            expect_all_accounted(engine)
        except AssertionError as error:
            raise AssertionError(f"{told}: {error}\n{engine.log()[-2000:]}") from None
    for name in NAMES:
        load(name, engine)
    remove(engine)
    account = expect_all_accounted(engine)
    assert "blob" not in account["Kinds"] and "layer" not in account["Kinds"]
