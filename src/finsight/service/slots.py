"""A few places for what takes long, so that it can't take all threads and cores of the service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from finsight.service.problems import WAIT, Problem


class Slots:
    """At most ``number`` pieces of work at once; who comes then is asked to come again."""

    def __init__(self, number: int = 2) -> None:
        self._free = threading.BoundedSemaphore(number)

    @contextmanager
    def one(self) -> Iterator[None]:
        """A place as long as the block runs.

        :raises Problem: when all are taken.
        """
        if not self._free.acquire(blocking=False):
            raise Problem(503, "as much of this is being done as may be at once; ask again later", "busy", {"Retry-After": str(WAIT)})
        try:
            yield
        finally:
            self._free.release()
