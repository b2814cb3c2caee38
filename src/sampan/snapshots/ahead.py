"""Reading ahead in a thread: decompressing and hashing go on while what they gave is used.

Both release the interpreter's lock, as does writing files: a layer of one piece keeps two
processors busy.
"""

from __future__ import annotations

import threading
from collections import deque

from sampan.oci.tar import CHUNK, Read

_PIECES_MAX = 4
"""What lies ready at most: 4 MiB a layer."""


class ReadAhead:
    """`read` of a stream that a thread of its own reads; as a context manager it ends the thread.

    Streams of up to a piece, such as small layers, are read without one. The end of the `with`
    waits for a call of the source's `read` that is under way.
    """

    def __init__(self, read: Read) -> None:
        self._source = read
        self._condition = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._thread: threading.Thread | None = None
        self._taken = 0
        self._ended = False
        self._closed = False
        self._failure: BaseException | None = None

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._closed = True
            self._pieces.clear()
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join()

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; b"" at the end.

        Raises:
            what the source raised, after all that it gave before.
        """
        if self._thread is None:
            return self._first(size)
        with self._condition:
            while not self._pieces and not self._ended:
                self._condition.wait()
            if not self._pieces:
                if self._failure is not None:
                    raise self._failure
                return b""
            piece = self._pieces.popleft()
            if len(piece) > size:
                self._pieces.appendleft(piece[size:])
                return piece[:size]
            self._condition.notify_all()
            return piece

    def _first(self, size: int) -> bytes:
        piece = self._source(size)
        self._taken += len(piece)
        if self._taken >= CHUNK:
            self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
            self._thread.start()
        return piece

    def _run(self) -> None:
        failure = None
        try:
            while self._room() and (piece := self._source(CHUNK)):
                with self._condition:
                    self._pieces.append(piece)
                    self._condition.notify_all()
        except BaseException as error:  # noqa: BLE001 - raised by `read`, in the thread that asks for the bytes
            failure = error
        with self._condition:
            self._failure = failure
            self._ended = True
            self._condition.notify_all()

    def _room(self) -> bool:
        """Wait until a piece more may lie ready; False when nobody wants it."""
        with self._condition:
            while len(self._pieces) >= _PIECES_MAX and not self._closed:
                self._condition.wait()
            return not self._closed
