"""Sliding windows of requests by the library ``limits``: in Redis for all replicas, or in the memory of one."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from limits import RateLimitItem, parse
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis import Redis

from finsight.errors import ParamsError, UnreachableError
from finsight.service_ports import Standing

REST = "*"
DEFAULTS = {"predict": "600/minute", "auth.token": "20/minute", "unknown": "30/minute", REST: "120/minute"}
"""What one credential may ask for by action. ``unknown`` is wrong credentials from one address, ``auth.token`` counts by address too, and
``*`` is every action that is not named here. FINSIGHT_LIMITS changes them."""


def amounts(changes: str = "") -> dict[str, RateLimitItem]:
    """The limits by action.

    :param changes: to the defaults, such as ``predict=50/second; *=10/minute``.
    :raises ParamsError: when it is not written so.
    """
    pairs = [part.partition("=") for part in changes.split(";") if part.strip()]
    wanted = DEFAULTS | {name.strip(): amount.strip() for name, _, amount in pairs}
    try:
        return {name: parse(amount) for name, amount in wanted.items()}
    except ValueError:
        raise ParamsError(f"FINSIGHT_LIMITS: got {changes!r}; expected ACTION=NUMBER/second|minute|hour; …, with * for the rest") from None


class SlidingWindows:
    """See :class:`finsight.service_ports.Windows`. An instance without ``client`` counts in this process alone."""

    def __init__(self, amounts: Mapping[str, RateLimitItem], client: Redis | None = None) -> None:
        pool = client.connection_pool if client else None
        storage = RedisStorage("redis://", pool, key_prefix="finsight:limits", wrap_exceptions=True) if pool else MemoryStorage()
        self._amounts, self._windows = amounts, SlidingWindowCounterRateLimiter(storage)

    def hit(self, who: str, action: str) -> Standing:
        """See :class:`finsight.service_ports.Windows`."""
        item = self._amounts.get(action, self._amounts[REST])
        try:
            allowed = self._windows.hit(item, who, action)
            reset, left = self._windows.get_window_stats(item, who, action)
        except StorageError as error:
            raise UnreachableError(f"limits can't be counted in Redis ({type(error.storage_error).__name__})") from None
        return Standing(allowed, item.amount, left, max(1, math.ceil(reset - time.time())))
