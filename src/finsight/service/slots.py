"""A few places for what takes long, so that it can't take all threads and cores of the service."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from finsight.service.problems import WAIT, Problem

_AGAIN = {"Retry-After": str(WAIT)}


class Slots:
    """At most ``number`` pieces of work at once, half of them of one tenant; who comes then is asked to come again."""

    def __init__(self, number: int = 2) -> None:
        self._number, self._own = number, (number + 1) // 2
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def one(self, tenant: str = "") -> Iterator[None]:
        """A place as long as the block runs.

        :param tenant: whose it is; where it is empty, whoever comes may have all.
        :raises Problem: when all are taken (503), or as many as the tenant may have (429).
        """
        with self._lock:
            if self._taken.total() >= self._number:
                raise Problem(503, "as much of this is being done as may be at once; ask again later", "busy", _AGAIN)
            if tenant and self._taken[tenant] >= self._own:
                raise Problem(
                    429, f"no more than {self._own} of these at once for one tenant; ask again later", "too-many-requests", _AGAIN
                )
            self._taken[tenant] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[tenant] -= 1
                self._taken += Counter()  # those who have none are forgotten
