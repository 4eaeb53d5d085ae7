"""What is kept of what was computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol


class ResultCache(Protocol):
    """Keeps what was computed, for a while and within bounds: an entry may be gone at any time. Threads may share it.

    It never raises: a cache that is away has nothing, and the work is done without it.
    """

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """The value of each key in their order; None where there is none."""
        ...

    def put(self, entries: Mapping[str, bytes]) -> None:
        """Keep these, or some of them."""
        ...


class ArtifactStore(Protocol):
    """Keeps inputs and results of scorings, each tenant's apart, for a while and within bounds: one may be gone at any time.

    Names are those of :mod:`finsight.domain.artifacts`; another is a ValueError.
    """

    def put(self, tenant: str, name: str, source: Path) -> None:
        """Take in a file, which stays where it is; what is too old or too much by then goes.

        :raises OSError: when there is no room.
        """
        ...

    def size(self, tenant: str, name: str) -> int | None:
        """Its bytes; None where there is none."""
        ...

    def read(self, tenant: str, name: str) -> Iterator[bytes]:
        """Its content, some of it at a time.

        :raises DataError: when there is none.
        """
        ...
