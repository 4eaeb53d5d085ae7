"""API keys in Redis: a hash a key, and a sorted set of ids a tenant. What has ended goes by Redis's own expiry."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from finsight.adapters.redis_connection import answering
from finsight.domain.keys import ApiKey

KEPT = 30 * 86400  # seconds that a key which has ended is still shown
USED_EVERY = 60  # seconds: a write to the disk at every request would be most of its time
_RECORD, _USED = "record", "used"


class RedisKeys:
    """See :class:`finsight.service_ports.KeyStore`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def add(self, key: ApiKey) -> None:
        """See :class:`finsight.service_ports.KeyStore`."""
        with answering(), self._client.pipeline() as step:
            _write(step, key)
            step.zadd(_index(key.tenant), {key.id: 0})
            step.execute()

    def get(self, id_: str) -> ApiKey | None:
        """See :class:`finsight.service_ports.KeyStore`."""
        with answering():
            return _read(*self._client.hmget(_place(id_), _RECORD, _USED))

    def page(self, tenant: str, before: str | None, limit: int) -> list[ApiKey]:
        """See :class:`finsight.service_ports.KeyStore`."""
        found: list[ApiKey] = []
        with answering():
            while len(found) < limit:
                start = f"({before}" if before else "+"
                ids = self._client.zrange(_index(tenant), start, "-", desc=True, bylex=True, offset=0, num=limit - len(found))
                if not ids:
                    break
                with self._client.pipeline(transaction=False) as batch:
                    for id_ in ids:
                        batch.hmget(_place(id_), _RECORD, _USED)
                    keys = [_read(*values) for values in batch.execute()]
                if gone := [id_ for id_, key in zip(ids, keys, strict=True) if key is None]:
                    self._client.zrem(_index(tenant), *gone)
                found += [key for key in keys if key]
                before = ids[-1]
        return found

    def change(self, id_: str, how: Callable[[ApiKey], ApiKey]) -> ApiKey | None:
        """See :class:`finsight.service_ports.KeyStore`."""

        def step(pipe: Any) -> ApiKey | None:
            old = _read(*pipe.hmget(_place(id_), _RECORD, _USED))
            pipe.multi()
            if old is None:
                return None
            new = how(old)
            _write(pipe, new)
            return new

        with answering():
            changed: ApiKey | None = self._client.transaction(step, _place(id_), value_from_callable=True)
            return changed

    def used(self, key: ApiKey, now: float) -> None:
        """See :class:`finsight.service_ports.KeyStore`."""
        if key.used is None or now - key.used >= USED_EVERY:
            with answering():
                self._client.hset(_place(key.id), _USED, now)


def _place(id_: str) -> str:
    return f"finsight:key:{id_}"


def _index(tenant: str) -> str:
    return f"finsight:keys:{tenant}"


def _write(step: Any, key: ApiKey) -> None:
    """``used`` is no part of the record: noting it must not undo a change of another process."""
    record = {**asdict(key), "roles": sorted(key.roles), "scopes": sorted(key.scopes)}
    del record["used"]
    step.hset(_place(key.id), _RECORD, json.dumps(record))
    step.expireat(_place(key.id), int(key.ends + KEPT))


def _read(record: str | None, used: str | None) -> ApiKey | None:
    if record is None:
        return None
    content = json.loads(record)
    sets = {"roles": frozenset(content["roles"]), "scopes": frozenset(content["scopes"])}
    return ApiKey(**{**content, **sets, "used": float(used) if used else None})
