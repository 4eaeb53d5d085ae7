"""What the service shares among its replicas: Redis, and what is kept in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from finsight.settings import load_settings, project_root

if TYPE_CHECKING:
    from redis import Redis

    from finsight.service_ports import AuditLog, Windows

REDIS = Path(".service/redis")
_TIMEOUT = 2.0  # seconds in which Redis has to answer: a prediction doesn't wait longer for its limit


@contextmanager
def shared_redis() -> Iterator[str]:
    """The address of the Redis of the settings, or of one of its own over ``.service/redis`` that runs as long as the block."""
    from finsight.adapters.redis_server import embedded

    given = load_settings().redis_url
    if given:
        yield given.get_secret_value()
        return
    with embedded(project_root() / REDIS) as address:
        yield address


def windows(redis: str | None = None) -> Windows:
    """Limits as FINSIGHT_LIMITS has them, counted in Redis, or in this process alone.

    :raises ParamsError: when the setting is wrong.
    """
    from finsight.adapters.windows import LeasedWindows, SlidingWindows, amounts

    wanted = amounts(load_settings().limits)
    return LeasedWindows(SlidingWindows(wanted, _client(redis))) if redis else SlidingWindows(wanted)


def audit_log(redis: str) -> AuditLog:
    """The audit log, encrypted where FINSIGHT_ENCRYPTION_KEY is set.

    :raises ParamsError: when the key is none.
    """
    from finsight.adapters.redis_audit import RedisAuditLog
    from finsight.adapters.sealing import Seal

    key = load_settings().encryption_key
    return RedisAuditLog(_client(redis), Seal(key.get_secret_value()) if key else None)


def _client(address: str) -> Redis:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    once = Retry(NoBackoff(), 1)  # a connection that was closed while it was idle is made anew
    return Redis.from_url(address, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT, retry=once)
