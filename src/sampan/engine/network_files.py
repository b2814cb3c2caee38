"""A running container's `/etc/hosts`: lines for addresses that come and go.

The file is changed in place, line by line, as dockerd does: what the container wrote into it stays.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from sampan.engine.container import Container
from sampan.network import files
from sampan.network.driver import Attachment

log = logging.getLogger(__name__)


def add_address(container: Container, attachment: Attachment) -> None:
    """Add the container's lines for its addresses in a network, but for those that are there."""
    lines = [
        files.own_line(container.record.hostname, container.config.domainname, address)
        for address in (attachment.address, attachment.address6)
        if address
    ]
    _change(container, lambda text: text + "".join(line for line in lines if line not in text))


def remove_address(container: Container, attachment: Attachment) -> None:
    """Remove the lines of the addresses that the container had in a network."""
    gone = {attachment.address, attachment.address6} - {""}
    _change(
        container,
        lambda text: "".join(
            line for line in text.splitlines(keepends=True) if line.split("\t")[0] not in gone
        ),
    )


def move_name(container: Container, name: str, attachment: Attachment) -> None:
    """Give the lines that begin with a name of another container its addresses of now."""
    addresses = {False: attachment.address, True: attachment.address6}

    def moved(line: str) -> str:
        address, tab, names = line.partition("\t")
        new = addresses[":" in address]
        return f"{new}\t{names}" if new and tab and names.split()[:1] == [name] else line

    _change(container, lambda text: "".join(map(moved, text.splitlines(keepends=True))))


def _change(container: Container, change: Callable[[str], str]) -> None:
    """What cannot be written is no reason to refuse the network: the address works without it."""
    path = f"{container.directory}/hosts"
    try:
        with open(path, "r+", encoding="utf-8", errors="surrogateescape") as file:
            text = change(file.read())
            file.seek(0)
            file.write(text)
            file.truncate()
            file.flush()
    except OSError as error:
        log.warning("container %s: %s: %s", container.id, path, os.strerror(error.errno or 0))
