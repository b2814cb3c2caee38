"""Moving images: archives and a registry (Debian's docker-registry), one empty store a scenario.

A scenario gets an empty store and returns figures, as the rows of containers do. Every store is
below a directory of which ext4 spreads the children (EXT4_TOPDIR_FL): creating files is many times
slower in a block group where some were deleted lately, which would measure the round before.
"""

from __future__ import annotations

import os
import secrets
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from benchmarks.big_image import MadeImage, docker_archive, make_image, oci_archive
from benchmarks.stores import NotMeasured, Store, make_store
from support.registries import Registry
from support.registry_images import put_blob

Figures = dict[str, float]

LOAD = "`docker load` of what `docker save` 20.10 writes (plain layers)"
LOAD_GZIP = "`docker load` of compressed layers"
SAVE = "`docker save`"
PULL = "`docker pull`, 10 layers, 20,000 files"
PULL_AGAIN = "pull of what is up to date (by the API)"
PULL_PRESENT = "pull of another image with these layers (by the API)"
PULL_PRESENT_CLI = "the same by `docker pull`, which itself takes some 15 ms"
PUSH = "`docker push` to an empty registry"
PUSH_AGAIN = "`docker push` again"
EIGHT = "8 x `docker pull` of different images at once"
START_IDLE = "create+start of a container, p50"
START_PULL = "create+start during that pull, p50"
START_PULL_LATE = "create+start during that pull, p95"
PEAK = "peak of the daemon above idle, all of these (MiB)"
CPU = ", processor time"

GOALS = {
    LOAD: 1 / 2,
    LOAD_GZIP: 1 / 2,
    SAVE: 1.0,
    PULL: 1 / 2,
    PULL_AGAIN: 1 / 3,
    PULL_PRESENT: 1 / 3,
    PUSH: 1 / 2,
    PUSH_AGAIN: 1 / 2,
    EIGHT: 1 / 2,
}
PEAK_GOAL_MIB = 150.0

_BETWEEN_STARTS_S = 0.02
_PRESENT = 15
"""Small pulls that make one figure: their median."""
_EIGHT_FILES, _EIGHT_LAYERS = 2_000, 2


class Material:
    """The generated images: archives on disk, and in a registry from which is pulled."""

    def __init__(self, directory: str) -> None:
        made = os.path.join(directory, "layers")
        os.makedirs(made)
        self.image = make_image(made)
        self.plain = os.path.join(directory, "plain.tar")
        self.compressed = os.path.join(directory, "compressed.tar")
        docker_archive(self.image, "big:1", self.plain)
        oci_archive(self.image, "big:1", self.compressed)
        self.registry = Registry(os.path.join(directory, "registry"))
        self._directory = directory
        _publish(self.registry, "big", "1", self.image)
        for number in range(2 * _PRESENT):
            another = self.image.relabelled(f"another{number}")
            _publish(self.registry, "another", str(number), another)
        for number in range(8):
            small = make_image(made, layers=_EIGHT_LAYERS, files=_EIGHT_FILES, seed=10 + number)
            _publish(self.registry, f"small{number}", "1", small)

    @contextmanager
    def empty_registry(self) -> Iterator[Registry]:
        registry = Registry(os.path.join(self._directory, f"target-{secrets.token_hex(3)}"))
        try:
            yield registry
        finally:
            registry.stop()
            shutil.rmtree(registry.directory, ignore_errors=True)

    def close(self) -> None:
        self.registry.stop()


def archives(store: Store, material: Material) -> Figures:
    figures = _timed(LOAD, store, lambda: store.load(material.plain))
    return figures | _timed(SAVE, store, lambda: store.save("big:1"))


def compressed(store: Store, material: Material) -> Figures:
    return _timed(LOAD_GZIP, store, lambda: store.load(material.compressed))


def registry(store: Store, material: Material) -> Figures:
    address = material.registry.address
    figures = _timed(PULL, store, lambda: store.pull(f"{address}/big:1"))
    again = [lambda: store.pull_quietly(f"{address}/big:1")] * _PRESENT
    figures |= _median(PULL_AGAIN, store, again)
    others = [f"{address}/another:{number}" for number in range(2 * _PRESENT)]
    quietly = [partial(store.pull_quietly, other) for other in others[:_PRESENT]]
    figures |= _median(PULL_PRESENT, store, quietly)
    by_command = [partial(store.pull, other) for other in others[_PRESENT:]]
    figures |= _median(PULL_PRESENT_CLI, store, by_command)
    with material.empty_registry() as target:
        name = f"{target.address}/pushed:1"
        store.tag(f"{address}/big:1", name)
        figures |= _timed(PUSH, store, lambda: store.push(name))
        figures |= _timed(PUSH_AGAIN, store, lambda: store.push(name))
    return figures


def eight(store: Store, material: Material) -> Figures:
    names = [f"{material.registry.address}/small{number}:1" for number in range(8)]
    return _timed(EIGHT, store, lambda: store.pull(*names))


def starts(store: Store, material: Material) -> Figures:
    store.begin_starts()
    for _ in range(3):
        store.start()
    idle = [store.start() for _ in range(15)]
    during = []
    with ThreadPoolExecutor(1) as pool:
        pulling = pool.submit(store.pull, f"{material.registry.address}/big:1")
        while not pulling.done():
            during.append(store.start())
            time.sleep(_BETWEEN_STARTS_S)
        pulling.result()
    during.sort()
    return {
        START_IDLE: statistics.median(idle),
        START_PULL: statistics.median(during),
        START_PULL_LATE: during[int(len(during) * 0.95)],
    }


SCENARIOS: dict[str, Callable[[Store, Material], Figures]] = {
    "image-archives": archives,
    "image-load": compressed,
    "image-registry": registry,
    "image-eight": eight,
    "image-starts": starts,
}
NAMES = ("sampan", "dockerd", "podman", "skopeo")


def measure(
    names: Sequence[str],
    scenarios: Sequence[str],
    rounds: int,
    directory: str,
    progress: Callable[[str], None],
) -> dict[str, dict[str, list[float]]]:
    """Row → store → figures, of `rounds` empty stores each; needs `directory` empty and on a disk
    that overlayfs can stand on."""
    spread = os.path.join(directory, "images")
    os.makedirs(spread)
    subprocess.run(["chattr", "+T", spread], check=False, capture_output=True)
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    left_out: set[str] = set()
    progress("generating images")
    material = Material(os.path.join(spread, "material"))
    try:
        for round_ in range(rounds):
            for scenario in scenarios:
                for name in names if round_ % 2 else names[::-1]:
                    if name in left_out:
                        continue
                    progress(f"{scenario} {round_ + 1} {name}")
                    try:
                        found = _run(name, scenario, spread, material)
                    except NotMeasured:
                        continue
                    except AssertionError as error:
                        if name == "sampan":
                            raise
                        print(f"{name} does not do {scenario} here: {error}", file=sys.stderr)
                        left_out.add(name)
                        continue
                    for row, value in found.items():
                        figures[row][name].append(value)
    finally:
        material.close()
    peaks = figures.pop(PEAK, {})
    figures[PEAK].update({name: [max(values)] for name, values in peaks.items()})
    return figures


def _run(name: str, scenario: str, directory: str, material: Material) -> Figures:
    token = secrets.token_hex(4)
    store = make_store(name, f"{directory}/{name}-{token}", token)
    try:
        os.sync()
        store.begin_peak()
        figures = SCENARIOS[scenario](store, material)
        peak = store.peak_mib()
        return figures if peak is None else {**figures, PEAK: peak}
    finally:
        store.close()


def _timed(row: str, store: Store, action: Callable[[], object]) -> Figures:
    used = store.cpu_s()
    begin = time.perf_counter()
    action()
    return {row: time.perf_counter() - begin, row + CPU: store.cpu_s() - used}


def _median(row: str, store: Store, actions: Sequence[Callable[[], object]]) -> Figures:
    """Of small things, each begun when the disk has taken what came before: Sampan leaves that to the
    kernel, dockerd has waited for it."""
    rounds = []
    for action in actions:
        os.sync()
        rounds.append(_timed(row, store, action))
    return {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}


def _publish(registry: Registry, repository: str, tag: str, image: MadeImage) -> None:
    for layer in image.layers:
        if not registry.has_blob(repository, layer.digest):
            with open(layer.path, "rb") as file:
                put_blob(registry, repository, file.read())
    put_blob(registry, repository, image.config)
    answer = registry.request(
        "PUT", f"/v2/{repository}/manifests/{tag}", body=image.manifest,
        headers={"Content-Type": "application/vnd.docker.distribution.manifest.v2+json"}, scope=f"repository:{repository}:pull,push",
    )  # fmt: skip
    assert answer.status == 201, answer
