"""A file that one thread writes at its end while others read it from its first byte.

Readers wait for what has not arrived. They come to the end only when the whole has been verified;
they are told when it failed, or when what they read has turned out to be void.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from sampan.images.pipe import StreamAborted


class Restarted(StreamAborted):
    """The bytes read so far were not the right ones; the file is written anew."""


class Growing:
    """What readers are to know of the file; `open_file` gives a new descriptor of it."""

    def __init__(self, open_file: Callable[[], int]) -> None:
        self.open_file = open_file
        self.changed = threading.Condition()
        self.available = 0
        self.generation = 0
        self.verified = False
        self.ended = False

    def grown(self, size: int) -> None:
        """`size` bytes can be read."""
        with self.changed:
            self.available = size
            self.changed.notify_all()

    def restart(self) -> None:
        """All that was read is void; what comes next is read by new readers."""
        with self.changed:
            self.generation += 1
            self.available = 0
            self.changed.notify_all()

    def verify(self) -> None:
        """The whole is there, and is what it should be."""
        with self.changed:
            self.verified = True
            self.changed.notify_all()

    def end(self) -> None:
        """Nothing more comes; unless it was verified, that is a failure."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()


class Reader:
    """Reads the file in a thread. It has to be closed."""

    def __init__(self, file: Growing) -> None:
        self._file = file
        self._generation = file.generation
        self._fd = -1
        self._stopped = False
        self.position = 0

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; b"" at the end of the verified whole.

        Raises:
            Restarted: what was read is void.
            StreamAborted: the writer failed, or the reader was stopped.
        """
        available = self._wait()
        if not available:
            return b""
        if self._fd < 0:
            self._fd = self._file.open_file()
        data = os.read(self._fd, min(size, available))
        if not data:
            raise Restarted("the file is begun anew")
        self.position += len(data)
        return data

    @property
    def void(self) -> bool:
        """Whether what was read so far has turned out not to be the right bytes."""
        return self._generation != self._file.generation

    def stop(self) -> None:
        """From any thread: make the reading thread give up."""
        with self._file.changed:
            self._stopped = True
            self._file.changed.notify_all()

    def close(self) -> None:
        """In the reading thread, at its end."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _wait(self) -> int:
        """Bytes that can be read now, at least one; 0 at the verified end."""
        file = self._file
        with file.changed:
            while True:
                if self._stopped:
                    raise StreamAborted("nobody needs it any more")
                if self.void:
                    raise Restarted("the file is written anew")
                if self.position < file.available:
                    return file.available - self.position
                if file.verified:
                    return 0
                if file.ended:
                    raise StreamAborted("the download failed")
                file.changed.wait()
