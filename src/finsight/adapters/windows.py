"""Sliding windows of requests by the library ``limits``: in Redis for all replicas, or in the memory of one."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock

from limits import RateLimitItem, parse
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis import Redis

from finsight.domain.actions import ACTIONS
from finsight.errors import ParamsError, UnreachableError
from finsight.service_ports import Standing

REST = "*"
_MOST = 10_000  # leases that are kept: who comes with new addresses may make up many
_SIGN_IN = ("session.go", "session.begin")  # what strangers at the page are counted as, by address
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
        found = {name: parse(amount) for name, amount in wanted.items()}
    except ValueError:
        raise ParamsError(f"FINSIGHT_LIMITS: got {changes!r}; expected ACTION=NUMBER/second|minute|hour; …, with * for the rest") from None
    known = (*DEFAULTS, *_SIGN_IN, *ACTIONS)
    if unknown := [name for name in found if not any(_names(name, one) for one in known)]:
        raise ParamsError(f"FINSIGHT_LIMITS: {unknown[0]} is no action; there are {', '.join(known)}")
    return found


def _names(name: str, action: str) -> bool:
    """Whether requests for an action are counted as this: for ``jobs.create`` at the door of all its kinds."""
    return action == name or action.startswith(f"{name}.")


class SlidingWindows:
    """See :class:`finsight.service_ports.Windows`. An instance without ``client`` counts in this process alone."""

    def __init__(self, amounts: Mapping[str, RateLimitItem], client: Redis | None = None) -> None:
        pool = client.connection_pool if client else None
        storage = RedisStorage("redis://", pool, key_prefix="finsight:limits", wrap_exceptions=True) if pool else MemoryStorage()
        self._amounts, self._windows, self._elsewhere = amounts, SlidingWindowCounterRateLimiter(storage), pool is not None

    def hit(self, who: str, action: str, cost: int = 1) -> Standing:
        """See :class:`finsight.service_ports.Windows`.

        :param cost: how many requests are counted, all of them or none.
        """
        item = self.item(action)
        try:
            allowed = self._windows.hit(item, who, action, cost=cost)
            reset, left = self._windows.get_window_stats(item, who, action)
        except StorageError as error:
            raise UnreachableError(f"limits can't be counted in Redis ({type(error.storage_error).__name__})") from None
        return Standing(allowed, item.amount, left, max(1, math.ceil(reset - time.time())))

    def at_once(self, who: str, action: str) -> Standing | None:
        """See :class:`finsight.service_ports.Windows`."""
        return None if self._elsewhere else self.hit(who, action)

    def item(self, action: str) -> RateLimitItem:
        """The limit of an action."""
        return self._amounts.get(action, self._amounts[REST])


@dataclass(slots=True)
class _Lease:
    until: float
    credit: int
    standing: Standing


class LeasedWindows:
    """See :class:`finsight.service_ports.Windows`. Takes a twentieth of a limit at a time out of shared windows, and counts it off here.

    A Redis that keeps what it acknowledges writes every count to the disk: 5 ms where a prediction takes 10. What is left of a lease is
    given up after half a window; so nobody gets more than the limit and a twentieth of it for each replica.
    """

    def __init__(self, shared: SlidingWindows) -> None:
        self._shared = shared
        self._leases: dict[tuple[str, str], _Lease] = {}
        self._lock = Lock()

    def hit(self, who: str, action: str) -> Standing:
        """See :class:`finsight.service_ports.Windows`."""
        if leased := self.at_once(who, action):
            return leased
        key, now = (who, action), time.monotonic()
        item = self._shared.item(action)
        taken = max(1, item.amount // 20)
        standing = self._shared.hit(who, action, taken)
        if not standing.allowed and taken > 1:
            taken, standing = 1, self._shared.hit(who, action)
        credit = taken - 1 if standing.allowed else 0
        with self._lock:
            # Another thread may have taken one at the same moment.
            other = self._leases.get(key)
            more = other.credit if other and now < other.until else 0
            if standing.allowed or not more:
                # Who has none left is told so from here for a second: a flood doesn't reach Redis.
                until = now + (item.get_expiry() / 2 if standing.allowed else 1)
                self._leases.pop(key, None)
                self._leases[key] = _Lease(until, credit + more, standing)
                if len(self._leases) > _MOST:
                    del self._leases[next(iter(self._leases))]  # the oldest: whoever it is asks Redis again
        return replace(standing, left=standing.left + credit)

    def at_once(self, who: str, action: str) -> Standing | None:
        """See :class:`finsight.service_ports.Windows`: out of the lease."""
        with self._lock:
            lease = self._leases.get((who, action))
            if lease is None or time.monotonic() >= lease.until or (lease.standing.allowed and not lease.credit):
                return None
            lease.credit -= lease.standing.allowed
            return replace(lease.standing, left=lease.standing.left + lease.credit)
