"""Results in Redis, which all replicas of the service share."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from redis import RedisError

from finsight.adapters.redis_connection import connect

PREFIX = "finsight:result:"
WAIT = 0.02  # seconds for a connection or an answer: a Redis that takes longer is slower than computing
TTL = 24 * 3600  # seconds
MOST = 1_000_000  # entries that one replica writes in a TTL: Redis holds at most twice that of each
LARGEST = 4096  # bytes of a value
TRIES, REST = 3, 5.0  # failures in a row after which Redis is left alone for so many seconds
_LOG = logging.getLogger("finsight.service")


class RedisResults:
    """See :class:`finsight.service_ports.ResultCache`: one MGET for all keys, and nothing at all while Redis is away.

    :param address: ``redis://``, ``rediss://`` or ``unix://``; it may hold a password, so it is never shown.
    :param clock: seconds that only grow.
    :raises ParamsError: when the address is none.
    """

    def __init__(self, address: str, ttl: int = TTL, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = connect(address, text=False, seconds=WAIT, again=0)
        self._ttl, self._most, self._clock = ttl, most, clock
        self._lock = threading.Lock()
        self._failures, self._rests_until = 0, float("-inf")
        self._written, self._since = 0, clock()

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """See :class:`finsight.service_ports.ResultCache`."""
        if keys and self._works():
            try:
                found = self._redis.mget([PREFIX + key for key in keys])
            except RedisError as error:
                self._failed(error)
            else:
                self._failures = 0
                return [value if isinstance(value, bytes) else None for value in found]
        return [None] * len(keys)

    def put(self, entries: Mapping[str, bytes]) -> None:
        """See :class:`finsight.service_ports.ResultCache`."""
        kept = {key: value for key, value in entries.items() if len(value) <= LARGEST}
        if not kept or not self._works() or not self._may_write(len(kept)):
            return
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for key, value in kept.items():
                    pipe.set(PREFIX + key, value, ex=self._ttl)
                pipe.execute()
        except RedisError as error:
            self._failed(error)

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()
        self._redis.connection_pool.disconnect()

    def _works(self) -> bool:
        return self._clock() >= self._rests_until

    def _failed(self, error: RedisError) -> None:
        with self._lock:
            self._failures += 1
            if self._failures >= TRIES and self._works():
                self._rests_until = self._clock() + REST
                # The kind of the error alone: its text may hold the address.
                _LOG.warning("results are not shared for %.0f s: Redis does not answer (%s)", REST, type(error).__name__)

    def _may_write(self, entries: int) -> bool:
        with self._lock:
            if self._clock() - self._since >= self._ttl:
                self._written, self._since = 0, self._clock()
            self._written += entries
            return self._written <= self._most
