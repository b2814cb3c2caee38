"""The client's configuration file, `~/.docker/config.json`: what docker and its relatives share.

What this client does not know in it stays as it is. It is replaced whole, by a rename, with the mode it
had; a symbolic link to it stays one.
"""

from __future__ import annotations

import os

from sampan.cli import jsontext
from sampan.cli.call import complain
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

NAME = "config.json"
DIRECTORY_VARIABLE = "DOCKER_CONFIG"


def path(environ: Mapping[str, str]) -> str:
    """Where it is: in $DOCKER_CONFIG, or in `~/.docker`."""
    directory = environ.get(DIRECTORY_VARIABLE) or os.path.expanduser("~/.docker")
    return os.path.join(directory, NAME)


def load(environ: Mapping[str, str]) -> dict[str, Any]:
    """Its content; {} where there is none, or, with a warning, where it cannot be read."""
    name = path(environ)
    try:
        with open(name, encoding="utf-8") as file:
            text = file.read()
        value = jsontext.decode(text) if text.strip() else {}
    except FileNotFoundError:
        return {}
    except OSError as error:
        return _unreadable(name, f"{(error.strerror or str(error)).lower()}")
    except (ValueError, RecursionError) as error:
        return _unreadable(name, str(error))
    if not isinstance(value, dict):
        return _unreadable(name, "it holds no JSON object")
    return value


def save(environ: Mapping[str, str], content: dict[str, Any]) -> None:
    """Replace it.

    Raises:
        CommandError: it cannot be written, and why; what was there stays.
    """
    name = os.path.realpath(path(environ))
    temporary = f"{name}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(name), mode=0o700, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write(fd, name, jsontext.pretty(content, step="\t").encode("utf-8", "surrogateescape"))
            os.rename(temporary, name)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise CommandError(
            f"Error saving credentials: {name}: {(error.strerror or str(error)).lower()}"
        ) from None


def _write(fd: int, name: str, data: bytes) -> None:
    try:
        try:
            former = os.stat(name)
        except FileNotFoundError:
            former = None
        if former is not None:
            os.fchmod(fd, former.st_mode & 0o777)
            if (former.st_uid, former.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(fd, former.st_uid, former.st_gid)
        written = 0
        while written < len(data):
            written += os.write(fd, data[written:])
        os.fsync(fd)
    finally:
        os.close(fd)


def _unreadable(name: str, why: str) -> dict[str, Any]:
    complain(f"WARNING: Error parsing config file ({name}): {why}")
    return {}
