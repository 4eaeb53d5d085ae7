"""What the use cases ask of the places where shards lie, and of those who work on them. Adapters stand in finsight.adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerPool(Protocol):
    """Processes that do one thing to many shards: some of this machine, or those of a cluster."""

    @property
    def cores(self) -> int:
        """Cores that each worker may use."""
        ...

    def run(self, make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]) -> Iterator[Result]:
        """What ``make()`` returns for each item, in the order of the items.

        Each worker calls ``make`` once, before its first item. An item may be done twice, where a worker was lost: what is done to it has
        to be the same then, and whole or not at all.

        :param make: picklable, as items and results are; items are small, since what is large is read by the worker.
        :raises FinsightError: of the first item, in their order, that failed; the others are given up.
        """
        ...


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a store knows of a file without reading it.

    :param size: bytes.
    :param changed: when it was last written, in nanoseconds since 1970.
    """

    size: int
    changed: int


class FileStore(Protocol):
    """Files below one place, a folder or a prefix of a bucket; picklable, since workers open it anew.

    A name is the path below that place, with ``/``. Every method raises :class:`finsight.errors.UnreachableError` or OSError when the place
    does not answer. Several threads may read at once.
    """

    @property
    def place(self) -> str:
        """For messages, and to tell one store from another."""
        ...

    def files(self) -> dict[str, FileFacts]:
        """All files by name; empty where the place does not exist."""
        ...

    def facts(self, name: str) -> FileFacts | None:
        """What is known of one file; None where there is none."""
        ...

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """The content of a file, which can be read from anywhere on.

        :raises DataError: when there is none of that name.
        """
        ...

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """The bytes of a file from ``start`` on, ``size`` of them or as many as there are, in one request.

        :raises DataError: when there is none of that name.
        """
        ...

    def put(self, name: str, content: bytes) -> None:
        """Write a file: nobody ever sees half of it, whatever is killed, and of several writers one wins."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...
