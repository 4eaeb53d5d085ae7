"""Failed authentications in Redis: a sliding window an address, which all replicas share."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

from finsight.adapters.redis_connection import answering
from finsight.domain.access import neighbourhood

LIMIT, WINDOW = 20, 60.0  # failures, seconds


class RedisFailures:
    """See :class:`finsight.service_ports.FailedAttempts`."""

    def __init__(self, client: Any, clock: Callable[[], float] = time.time) -> None:
        self._client, self._clock = client, clock

    def wait(self, address: str) -> float:
        """See :class:`finsight.service_ports.FailedAttempts`."""
        now = self._clock()
        with answering():
            # The LIMIT-th newest: once that has left the window, there is room for one more.
            found = self._client.zrange(_place(address), LIMIT - 1, LIMIT - 1, desc=True, withscores=True)
        return max(0.0, found[0][1] + WINDOW - now) if found else 0.0

    def add(self, address: str) -> None:
        """See :class:`finsight.service_ports.FailedAttempts`."""
        now, place = self._clock(), _place(address)
        with answering(), self._client.pipeline() as step:
            step.zadd(place, {secrets.token_hex(8): now})
            step.zremrangebyscore(place, "-inf", now - WINDOW)
            step.expire(place, int(WINDOW) + 1)
            step.execute()


def _place(address: str) -> str:
    return f"finsight:failures:{neighbourhood(address)}"
