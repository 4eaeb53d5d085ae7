"""The audit log in a Redis stream whose ids are the numbers of the records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from redis import Redis, RedisError, ResponseError

from finsight.adapters.redis_connection import answering
from finsight.adapters.sealing import Seal
from finsight.domain.audit import GENESIS, Entry, Head, Record, chained

KEY = "finsight:audit"
_PAGE = 500  # records that are read at once
_PLAIN, _SEALED, _DIGEST = b"entry", b"sealed", b"digest"
_reachable = partial(answering, "the audit log can't be reached in Redis", "see that it runs and takes writes")


class RedisAuditLog:
    """See :class:`finsight.service_ports.AuditLog`.

    :param seal: encrypts the entries; they are in the clear without one. The digests are of what is encrypted.
    """

    def __init__(self, client: Redis, seal: Seal | None = None) -> None:
        self._redis, self._seal = client, seal

    def append(self, entry: Entry) -> Record:
        """See :class:`finsight.service_ports.AuditLog`.

        Redis refuses an id that is not above the last one: of two writers who saw the same end of the chain, the second looks again.
        """
        with _reachable():
            while True:
                record = chained(self._head(), entry)
                try:
                    self._redis.xadd(KEY, self._fields(record, entry), id=f"{record.number}-0")
                except ResponseError as error:
                    if "equal or smaller" not in str(error):
                        raise
                else:
                    return record

    def check(self) -> None:
        """See :class:`finsight.service_ports.AuditLog`."""
        with _reachable():
            # Refused, as a record would be, by a Redis that is out of memory, a replica, or one whose disk is full.
            self._redis.set(f"{KEY}:check", 1)

    def latest(self, before: int | None, limit: int) -> list[Record]:
        """See :class:`finsight.service_ports.AuditLog`."""
        if before == 0:  # Redis takes it for an error
            return []
        end = "+" if before is None else f"({before}-0"
        with _reachable():
            found: Any = self._redis.xrevrange(KEY, max=end, count=limit)
        return [self._record(*one) for one in found]

    def records(self) -> Iterator[Record]:
        """See :class:`finsight.service_ports.AuditLog`."""
        start = "-"
        while True:
            with _reachable():
                page: Any = self._redis.xrange(KEY, min=start, count=_PAGE)
            yield from (self._record(*one) for one in page)
            if len(page) < _PAGE:
                return
            start = f"({page[-1][0].decode()}"

    def written(self) -> int:
        """See :class:`finsight.service_ports.AuditLog`. A stream remembers its last id, also when the entry is deleted."""
        with _reachable():
            return self._head().number

    def _head(self) -> Head:
        with self._redis.pipeline() as together:  # one MULTI: a record that comes between the two would be taken for a gap
            together.xrevrange(KEY, count=1)
            together.xinfo_stream(KEY)
            last, about = together.execute(raise_on_error=False)
        if isinstance(last, RedisError):
            raise last
        if isinstance(about, RedisError):  # there is no stream yet
            return Head()
        # Where the tail was cut off, the log goes on after what is missing: the gap stays to be seen, and the service runs.
        digest = last[0][1].get(_DIGEST, b"").decode(errors="replace") if last else GENESIS
        return Head(_number(about["last-generated-id"]), digest)

    def _fields(self, record: Record, entry: Entry) -> dict[Any, Any]:
        content = json.dumps(asdict(entry), ensure_ascii=False).encode()
        kept = {_SEALED: self._seal.close(content)} if self._seal else {_PLAIN: content}
        return {**kept, _DIGEST: record.digest}

    def _record(self, name: bytes, fields: Mapping[bytes, bytes]) -> Record:
        content = fields.get(_PLAIN)
        if content is None and self._seal and _SEALED in fields:
            content = self._seal.open(fields[_SEALED])
        return Record(_number(name), _entry(content), fields.get(_DIGEST, b"").decode(errors="replace"))


def _number(name: bytes) -> int:
    return int(name.split(b"-")[0])


def _entry(content: bytes | None) -> Entry | None:
    """What a stream's entry says; None where it is none of ours, or no more."""
    try:
        return Entry(**json.loads(content)) if content else None
    except (ValueError, TypeError):
        return None
