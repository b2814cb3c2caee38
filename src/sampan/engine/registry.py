"""All containers, by ID and by name, in memory and in the database."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from sampan.engine.container import Container, Record
from sampan.errors import Conflict, InvalidArgument, NotFound, RuntimeFailure
from sampan.state.containers import ContainerRow, ContainerRows

log = logging.getLogger(__name__)


class Registry:
    """Which containers there are.

    Names are reserved and released without an await in between, so two requests for one name
    cannot both win. Every change is in the database when the call returns.
    """

    def __init__(self, rows: ContainerRows, directory: str) -> None:
        self._rows = rows
        self._directory = directory
        self._by_id: dict[str, Container] = {}
        self._names: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._by_id.values()))

    def __contains__(self, name: object) -> bool:
        """Whether a name is taken."""
        return name in self._names

    def holds(self, container: Container) -> bool:
        """Whether the container has not been removed."""
        return self._by_id.get(container.id) is container

    def has_id(self, container_id: str) -> bool:
        """Whether there is a container with exactly this ID."""
        return container_id in self._by_id

    def load(self) -> list[Container]:
        """Read all rows; at start, once.

        Raises:
            Unavailable: a row means nothing; a container that may run is not just left out.
        """
        for row in self._rows.all():
            try:
                record = msgspec.json.decode(row.record, type=Record)
            except msgspec.DecodeError as error:
                raise self._rows.unreadable(row, error) from error
            record.name = row.name
            self._by_id[row.id] = Container(record, self.directory_of(row.id))
            self._names[row.name] = row.id
        return list(self)

    def directory_of(self, container_id: str) -> str:
        """The container's directory below the data root; also its OCI bundle."""
        return f"{self._directory}/{container_id}"

    def reserve(self, name: str, container_id: str) -> None:
        """Take a name.

        Raises:
            Conflict: somebody has it; dockerd's text.
        """
        owner = self._names.setdefault(name, container_id)
        if owner != container_id:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def release(self, name: str, container_id: str) -> None:
        """Give a name back, if it is this container's."""
        if self._names.get(name) == container_id:
            del self._names[name]

    def add(self, record: Record) -> Container:
        """Add a container whose name is reserved.

        Raises:
            RuntimeFailure: stage `database`; it cannot be written.
        """
        container = Container(record, self.directory_of(record.id))
        with _written(record):
            self._rows.insert(_row(record))
        self._by_id[record.id] = container
        return container

    def save(self, container: Container) -> None:
        """Write the container's record, if it can be written.

        What is saved here has happened already, and a new daemon would learn it from the shim or
        from exit.json: a full disk is logged and stops nothing.
        """
        try:
            self.write(container)
        except RuntimeFailure as failure:
            log.error("container %s: %s", container.id, failure.message)

    def write(self, container: Container) -> None:
        """Write the container's record, which is what a client asked for.

        Raises:
            RuntimeFailure: stage `database`; it cannot be written.
        """
        with _written(container.record):
            self._rows.update(_row(container.record))

    def rename(self, container: Container, name: str) -> None:
        """Move a container to a name that is reserved for it; the old one becomes free.

        Raises:
            RuntimeFailure: stage `database`; nothing has changed.
        """
        old = container.record.name
        container.record.name = name
        try:
            with _written(container.record):
                self._rows.update(_row(container.record))
        except BaseException:
            container.record.name = old
            self.release(name, container.id)
            raise
        self.release(old, container.id)

    def remove(self, container: Container) -> None:
        """Forget a container.

        Raises:
            RuntimeFailure: stage `database`; it is still there.
        """
        with _written(container.record):
            self._rows.delete(container.id)
        self._by_id.pop(container.id, None)
        self.release(container.name, container.id)

    def find(self, reference: str) -> Container:
        """The container with this ID, name (with or without slash) or unique ID prefix.

        Raises:
            NotFound, InvalidArgument: dockerd's texts.
        """
        if (container := self._by_id.get(reference)) is not None:
            return container
        if (identity := self._names.get(reference.removeprefix("/"))) is not None:
            # A name is reserved before its container is there.
            if (named := self._by_id.get(identity)) is not None:
                return named
        elif reference and set(reference) <= set("0123456789abcdef"):
            found = [c for identity, c in self._by_id.items() if identity.startswith(reference)]
            if len(found) == 1:
                return found[0]
            if found:
                raise InvalidArgument(f"Multiple IDs found with provided prefix: {reference}")
        raise NotFound(f"No such container: {reference}")


@contextmanager
def _written(record: Record) -> Iterator[None]:
    """Turn what SQLite says of a full or broken disk into a failure with a name."""
    try:
        yield
    except sqlite3.Error as error:
        raise RuntimeFailure(
            "database",
            f"container {record.name} cannot be written to the database: {error}",
            hint="is the disk full?",
        ) from error


def _row(record: Record) -> ContainerRow:
    return ContainerRow(record.id, record.name, record.created_ns, msgspec.json.encode(record))
