"""Paths of a file system that are to be in an image, with the links and directories that lead there.

A link stays a link: whatever a path of the image leads through here, it leads through there. So
`/bin/sh` brings `/bin → usr/bin`, `/usr`, `/usr/bin`, `sh → dash` and `dash`.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINKS_MAX = 40


class Collection:
    """Paths below `root` ("" for the machine's own), each beginning with "/".

    `found` are those that were there, `made` those to be added: (mode, data), data None for a
    directory. `/` itself is in neither.
    """

    def __init__(self, root: str = "") -> None:
        self.root = root.rstrip("/")
        self.found: dict[str, os.stat_result] = {}
        self.made: dict[str, tuple[int, bytes | None]] = {}

    def __contains__(self, path: str) -> bool:
        return path in self.found or path in self.made

    def add(self, path: str) -> str:
        """Add what a path names and everything on the way to it; where it really is.

        Raises:
            FileNotFoundError: there is no such thing.
            OSError: it cannot be reached.
        """
        waiting = [part for part in path.split("/") if part]
        waiting.reverse()
        here = ""
        links = 0
        while waiting:
            part = waiting.pop()
            if part == ".":
                continue
            if part == "..":
                here = here.rpartition("/")[0]
                continue
            here = f"{here}/{part}"
            status = self._take(here)
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.readlink(self.root + here)
                waiting += reversed([word for word in target.split("/") if word])
                here = "" if target.startswith("/") else here.rpartition("/")[0]
            elif waiting and not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return here or "/"

    def add_tree(
        self, path: str, *, follow: bool, skip: Callable[[str], bool] = lambda path: False
    ) -> Iterator[str]:
        """Add a directory with all that is below it on the same file system; yields regular files.

        With `follow` the targets of links are added too, those that are there. What `skip` says
        True to is left out, with everything below.
        """
        top = self.add(path)
        device = os.lstat(self.root + top).st_dev
        waiting = [top.rstrip("/")]
        while waiting:
            folder = waiting.pop()
            for name in sorted(os.listdir(self.root + folder or "/")):
                item = f"{folder}/{name}"
                status = os.lstat(self.root + item)
                if skip(item) or status.st_dev != device or stat.S_ISSOCK(status.st_mode):
                    continue
                self.found[item] = status
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(item)
                elif stat.S_ISREG(status.st_mode):
                    yield item
                elif follow and stat.S_ISLNK(status.st_mode):
                    yield from self._target(item)

    def make(self, path: str, mode: int, data: bytes | None = None) -> None:
        """Add a file that is not there with its `data`, or without it a directory."""
        if path in self.found:
            return
        above = path.rpartition("/")[0]
        if above and above not in self:
            self.make(above, 0o755)
        self.made[path] = (mode, data)

    def _target(self, link: str) -> Iterator[str]:
        try:
            real = self.add(link)
        except OSError:
            return  # a link to nothing is one in the image too
        if stat.S_ISREG(self.found[real].st_mode):
            yield real

    def _take(self, path: str) -> os.stat_result:
        status = self.found.get(path)
        if status is None:
            status = self.found[path] = os.lstat(self.root + path)
        return status
