"""What was done, and how often something may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from finsight.domain.audit import Entry, Record


class AuditLog(Protocol):
    """Keeps what was done and refused, one record after the other; nothing in it is changed or removed."""

    def append(self, entry: Entry) -> Record:
        """Add a record at the end of the chain. Of several processes that do so at the same time each gets a place of its own."""
        ...

    def check(self) -> None:
        """Find out whether a record could be appended now.

        :raises UnreachableError: when it could not.
        """
        ...

    def latest(self, before: int | None, limit: int) -> list[Record]:
        """The newest records, newest first.

        :param before: only those with smaller numbers.
        """
        ...

    def records(self) -> Iterator[Record]:
        """Every record, oldest first."""
        ...

    def written(self) -> int:
        """The number of the last record that was ever written, also where it is gone since."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """How a credential stands to its limit after a request.

    :param amount: requests that it has in a window.
    :param left: those that remain.
    :param seconds: until there is room for more.
    """

    allowed: bool
    amount: int
    left: int
    seconds: int


class Windows(Protocol):
    """Counts requests over sliding windows."""

    def hit(self, who: str, action: str) -> Standing:
        """Count one request, unless there is no room for it.

        :raises UnreachableError: when the counts are kept elsewhere, and can't be reached.
        """
        ...

    def at_once(self, who: str, action: str) -> Standing | None:
        """The same where nobody has to be asked for it; None, and nothing is counted, otherwise."""
        ...
