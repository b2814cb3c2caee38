"""The kernel's packet filter through libnftables, or the `nft` command where the library is missing.

Commands are nft(8)'s own language, several lines at once: libnftables makes one transaction of a
buffer, so either all of it happens or nothing. In process a command costs a twentieth of starting
`nft`.

    nft = Nft()
    nft.run("add table inet demo; add chain inet demo out")
    nft.list("list table inet demo")    # libnftables-json(5), decoded
    nft.close()

A context belongs to the network namespace in which it was opened and is not thread-safe: each
`Nft` has one, opened at first use, and a lock around it.
Source: libnftables' nftables/libnftables.h; libnftables-json(5).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import subprocess
import threading
from typing import TYPE_CHECKING, Any

from sampan.errors import SampanError, Unsupported

if TYPE_CHECKING:
    from types import TracebackType

# nftables/libnftables.h
NFT_CTX_DEFAULT = 0
NFT_CTX_OUTPUT_JSON = 1 << 4
NFT_CTX_OUTPUT_HANDLE = 1 << 5

_LIBRARY = "libnftables.so.1"


class NftError(SampanError):
    """The kernel or the parser refused the commands; the message is nft's own reason."""


class Nft:
    """A connection to nftables of the network namespace it is first used in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._backend: _Library | _Command | None = None

    def run(self, commands: str) -> str:
        """Carry out the commands as one transaction; returns what they print.

        Raises:
            NftError: refused; nothing has changed.
            Unsupported: the machine has neither the library nor the command.
        """
        with self._lock:
            return self._open().run(commands, json_output=False)

    def list(self, command: str) -> list[dict[str, Any]]:
        """The objects that a list command prints, each `{"table": {…}}`, `{"chain": {…}}` …

        Raises:
            NftError: there is no such object.
        """
        with self._lock:
            text = self._open().run(command, json_output=True)
        if not text.strip():
            return []
        objects: list[dict[str, Any]] = json.loads(text)["nftables"]
        return [item for item in objects if "metainfo" not in item]

    def close(self) -> None:
        """Free the context; the next use opens another one."""
        with self._lock:
            if self._backend is not None:
                self._backend.close()
                self._backend = None

    def __enter__(self) -> Nft:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> _Library | _Command:
        if self._backend is None:
            library = _load()
            self._backend = _Command() if library is None else _Library(library)
        return self._backend


class _Library:
    """libnftables in this process."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        before = _open_sockets()
        self._context = library.nft_ctx_new(NFT_CTX_DEFAULT)
        if not self._context:
            raise SampanError("nftables: cannot open a context")
        # The library's socket would be inherited by every program this process starts.
        for number in _open_sockets() - before:
            fcntl.fcntl(number, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str, *, json_output: bool) -> str:
        library, context = self._library, self._context
        flags = NFT_CTX_OUTPUT_JSON if json_output else 0
        library.nft_ctx_output_set_flags(context, flags | NFT_CTX_OUTPUT_HANDLE)
        failed = library.nft_run_cmd_from_buffer(context, commands.encode())
        # Reading a buffer empties it: both are read even where one is not wanted.
        output: bytes = library.nft_ctx_get_output_buffer(context)
        errors: bytes = library.nft_ctx_get_error_buffer(context)
        if failed:
            raise _failure(errors.decode(errors="replace"))
        return output.decode()

    def close(self) -> None:
        self._library.nft_ctx_free(self._context)


class _Command:
    """The `nft` command, started for each call."""

    def run(self, commands: str, *, json_output: bool) -> str:
        # In JSON mode `-f` expects JSON too, so a list command goes on the command line.
        arguments = ["nft", "-j", commands] if json_output else ["nft", "-a", "-f", "-"]
        try:
            done = subprocess.run(
                arguments,
                input="" if json_output else commands,
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            raise Unsupported(
                "nftables: neither libnftables.so.1 nor the nft command is installed",
                hint="apt-get install libnftables1",
            ) from None
        if done.returncode:
            raise _failure(done.stderr)
        return done.stdout

    def close(self) -> None:
        """Nothing is held."""


def _load() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    return library


def _failure(text: str) -> NftError:
    """nft repeats the command below its message, which is of no use in one line."""
    first = text.strip().partition("\n")[0]
    place, found, reason = first.partition("Error: ")
    return NftError(f"nftables: {reason if found else place or 'refused without a reason'}")


def _open_sockets() -> set[int]:
    """Numbers of this process's open sockets."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                found.add(int(name))
        except OSError:
            continue  # closed since: the directory's own descriptor, at least
    return found
