"""Every byte below the data root has an owner: who that is, and whether somebody needs it.

`account` walks the data root and names what nothing needs: there has to be none, at any time, after
whatever ended the daemon before. `why` answers for one object what holds it.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import Any

from sampan.engine.containers import Containers
from sampan.engine.disk import Kind, Owner, Sum, owner_of, walk
from sampan.engine.holders import Holders
from sampan.engine.volumes import Volumes
from sampan.images.service import Images
from sampan.oci.digest import ChainID, Digest, hex_of

_SHOWN_MAX = 100


class DiskSpace:
    """The data root of one engine."""

    def __init__(self, root: str, images: Images, containers: Containers, volumes: Volumes) -> None:
        self._root = root
        self._upkeep = images.upkeep
        self._containers = containers
        self._volumes = volumes
        self._holders = Holders(images, containers, volumes)

    async def account(self) -> dict[str, Any]:
        """Walk the data root: bytes by kind, and the paths that nothing needs.

        `Kinds` has for each kind `Count` (objects), `Files`, `Bytes` (lengths) and `DiskBytes`
        (allocated); `Unowned` lists what nothing needs; `Differences` objects whose bytes are not
        those of their record. While operations are under way, what they just made may be in both.
        """
        sums = await asyncio.to_thread(walk, self._root)
        kinds: dict[str, Sum] = {kind.value: Sum() for kind in Kind}
        counts: Counter[str] = Counter()
        for owner, found in sums.items():
            total = kinds[owner.kind.value]
            total.files += found.files
            total.bytes += found.bytes
            total.disk_bytes += found.disk_bytes
            counts[owner.kind.value] += 1
        needed_layers = self._holders.needed_layers()
        unowned = [owner for owner in sums if not self._is_needed(owner, needed_layers)]
        return {
            "Root": self._root,
            "Bytes": sum(total.bytes for total in kinds.values()),
            "DiskBytes": sum(total.disk_bytes for total in kinds.values()),
            "Kinds": {
                kind: {
                    "Count": counts[kind],
                    "Files": total.files,
                    "Bytes": total.bytes,
                    "DiskBytes": total.disk_bytes,
                }
                for kind, total in kinds.items()
                if total.files
            },
            "Unowned": [f"{owner.kind.value} {owner.key}" for owner in unowned][:_SHOWN_MAX],
            "Differences": self._differences(sums)[:_SHOWN_MAX],
        }

    async def why(self, wanted: str) -> dict[str, Any]:
        """What holds an object: an image, blob, layer, container, volume, or a path below the data
        root.

        `Objects` has one entry for each thing that the text names (a layer's plain blob has the
        name of the layer): `Kind`, `Id`, `Names`, `Bytes`, `HeldBy` (a list of `Kind`, `Id`,
        `Text`), `FreedBytes` (what comes back when it goes) and `Goes`, a sentence. Of the data root
        itself `Account` has what `account` returns.

        Raises:
            NotFound: the text names nothing that takes space here.
        """
        below = self._below_root(wanted)
        if below == "":
            return {"Objects": [], "Account": await self.account()}
        if below is not None:
            return {"Objects": [await self._holders.of_owner(owner_of(below), wanted)]}
        return {"Objects": await self._holders.of_name(wanted)}

    def _below_root(self, text: str) -> str | None:
        """An absolute path relative to the data root; None for anything else. Links below it are
        not followed: they belong to what they lie in."""
        path = os.path.normpath(text) if text.startswith("/") else ""
        for root in (self._root, os.path.realpath(self._root)):
            if path == root or path.startswith(f"{root}/"):
                return path[len(root) + 1 :]
        return None

    def _is_needed(self, owner: Owner, needed_layers: set[ChainID]) -> bool:
        register, content = self._upkeep.register, self._upkeep.content
        layers = self._upkeep.snapshots.layers
        match owner.kind:
            case Kind.BLOB:
                digest = Digest(owner.key)
                needed = register.needs.needs_blob(digest) or content.seen(digest)
                return needed or not os.path.exists(content.path(digest))
            case Kind.LAYER:
                chain = ChainID(owner.key)
                gone = layers.find(chain) is None and not self._exists(owner)
                return chain in needed_layers or layers.seen(chain) or gone
            case Kind.CONTAINER:
                return self._containers.holds(owner.key) or not self._exists(owner)
            case Kind.OPERATION:
                return register.holds.unbounded or not self._exists(owner)
            case Kind.VOLUME:
                return self._volumes.holds(owner.key) or not self._exists(owner)
            case Kind.UNKNOWN:
                return False
            case _:
                return True

    def _exists(self, owner: Owner) -> bool:
        places = [owner.key]
        if owner.kind is Kind.CONTAINER:
            places = [f"containers/{owner.key}", f"active/{owner.key}"]
        elif owner.kind is Kind.VOLUME:
            places = [f"volumes/{owner.key}"]
        elif owner.kind is Kind.LAYER:
            places = [f"layers/{hex_of(ChainID(owner.key))}"]
        return any(os.path.lexists(os.path.join(self._root, place)) for place in places)

    def _differences(self, sums: dict[Owner, Sum]) -> list[str]:
        """Blobs and layers that are not as long as their manifests and records say."""
        sizes = self._upkeep.register.needs.blob_sizes()
        found = []
        for owner, total in sums.items():
            expected = None
            if owner.kind is Kind.BLOB:
                expected = sizes.get(Digest(owner.key))
            elif owner.kind is Kind.LAYER:
                layer = self._upkeep.snapshots.layers.find(ChainID(owner.key))
                expected = layer.size if layer is not None else None
            if expected is not None and expected != total.content:
                found.append(f"{owner.kind.value} {owner.key}: {total.content}, not {expected}")
        return found
