"""Results in this process's memory: the ones that were used last stay."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

OVERHEAD = 250  # bytes that an entry takes beside its key's and value's characters: two objects, a place in the table and in the order


class MemoryResults:
    """See :class:`finsight.service_ports.ResultCache`.

    :param entries: how many are kept at most.
    :param size: bytes that they may take, keys and overhead included.
    """

    def __init__(self, entries: int = 100_000, size: int = 64 * 2**20) -> None:
        self._most, self._size = entries, size
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0
        """What is kept takes."""

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """See :class:`finsight.service_ports.ResultCache`."""
        with self._lock:
            found = [self._kept.get(key) for key in keys]
            for key, value in zip(keys, found, strict=True):
                if value is not None:
                    self._kept.move_to_end(key)
        return found

    def put(self, entries: Mapping[str, bytes]) -> None:
        """See :class:`finsight.service_ports.ResultCache`."""
        with self._lock:
            for key, value in entries.items():
                if (old := self._kept.pop(key, None)) is not None:
                    self.bytes -= _takes(key, old)
                self._kept[key] = value
                self.bytes += _takes(key, value)
            while self._kept and (len(self._kept) > self._most or self.bytes > self._size):
                self.bytes -= _takes(*self._kept.popitem(last=False))


def _takes(key: str, value: bytes) -> int:
    return len(key) + len(value) + OVERHEAD
