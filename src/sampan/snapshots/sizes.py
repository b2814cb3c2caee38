"""Limits of what containers write, by project quotas of the file system.

Each limited snapshot has a project of its own, whose number its `upper` and `work` directories bear:
overlayfs renames between the two, which the kernel allows within one project only. Numbers are given
from that of the root directory upwards, as dockerd does, so that who keeps several such users on one
file system can tell them apart; one that anybody has files or a limit under is passed over.

Nothing is written down beside that: the numbers are read from the directories when the snapshots are
opened. A directory gets its number before the number gets its limit, and loses the limit before it is
deleted, so a limit without a directory, which nobody would ever find, cannot come about.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterable

from sampan.errors import RuntimeFailure
from sampan.linux import quota

# In this order: the number is read from `work`, which no container sees and so none can change.
_OF_A_PAIR = ("work", "upper")
_FIRST_FREE_WITHIN = 100_000


class SizeLimits:
    """The limits of the snapshots under one root. `put_on` is for one thread, `take_off` for another."""

    def __init__(self, root: str, pairs: Iterable[str]) -> None:
        """Read the numbers that the pairs of directories have."""
        self._root = root
        self.supported = quota.enforced(root)
        """Can a limit be set? Not without a file system that was mounted with project quotas."""
        self._base = quota.project(root)
        self._given = {pair: number for pair in pairs if (number := self._own_project(pair))}

    def put_on(self, pair: str, size_bytes: int) -> None:
        """Limit an empty pair of directories.

        Raises:
            RuntimeFailure: there are no limits here, or the kernel refuses. `take_off` is due then.
        """
        if not self.supported:
            raise RuntimeFailure("quota", "the file system has no project quotas", path=self._root)
        try:
            number = self._free_number()
            self._given[pair] = number
            for name in _OF_A_PAIR:
                quota.set_project(f"{pair}/{name}", number)
            quota.set_limit(pair, number, size_bytes)
        except OSError as error:
            raise RuntimeFailure(
                "quota",
                f"no limit of {size_bytes} bytes can be set: {error.strerror}",
                path=pair,
                errno=error.errno,
            ) from error

    def moved(self, pair: str, to: str) -> None:
        """Note that a pair was renamed."""
        if pair in self._given:
            self._given[to] = self._given.pop(pair)

    def has_one(self, pair: str) -> bool:
        """Has a pair a project of its own?"""
        return pair in self._given

    def take_off(self, pair: str) -> None:
        """Take the limit, if it has one, from a pair that will be deleted.

        Raises:
            OSError: the kernel refuses.
        """
        number = self._given.get(pair)
        if number and self.supported:
            quota.set_limit(self._root, number, 0)

    def forget(self, pair: str) -> None:
        """Note that a pair is deleted, so that its number may be given again."""
        self._given.pop(pair, None)

    def is_lost(self, pair: str) -> bool:
        """Was the pair limited when the file system kept limits, which it does not now?"""
        return not self.supported and pair in self._given

    def _own_project(self, pair: str) -> int:
        """The number of a pair's own project; 0 without one."""
        try:
            number = quota.project(f"{pair}/{_OF_A_PAIR[0]}")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            return 0
        return 0 if number == self._base else number

    def _free_number(self) -> int:
        given = set(self._given.values())
        first = self._base + 1
        for number in itertools.islice(itertools.count(first), _FIRST_FREE_WITHIN):
            if number not in given and not quota.is_taken(self._root, number):
                return number
        raise OSError(errno.ENOSPC, "all projects are taken", os.fspath(self._root))
