"""What the service asks of the outside world. Adapters stand in finsight.adapters; finsight.bootstrap.service chooses among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
