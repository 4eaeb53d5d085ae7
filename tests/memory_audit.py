"""A stand-in in memory for the audit log; tests/contracts holds it to what Redis does."""

from collections.abc import Iterator
from threading import Lock

from finsight.domain.audit import Entry, Head, Record, chained
from finsight.errors import UnreachableError


class MemoryAuditLog:
    def __init__(self) -> None:
        self.kept: list[Record] = []
        self.away = False
        self._lock = Lock()

    def append(self, entry: Entry) -> Record:
        with self._lock:
            self.check()
            head = Head(self.kept[-1].number, self.kept[-1].digest) if self.kept else Head()
            self.kept.append(chained(head, entry))
            return self.kept[-1]

    def check(self) -> None:
        if self.away:
            raise UnreachableError("the audit log is away")

    def latest(self, before: int | None, limit: int) -> list[Record]:
        self.check()
        return [one for one in reversed(self.kept) if before is None or one.number < before][:limit]

    def records(self) -> Iterator[Record]:
        self.check()
        return iter(list(self.kept))

    def written(self) -> int:
        self.check()
        return len(self.kept)

    @property
    def entries(self) -> list[Entry]:
        return [one.entry for one in self.kept if one.entry]
