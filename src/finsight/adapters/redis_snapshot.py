"""What the service has to keep of its Redis, taken in one step, and put back in one.

Not an RDB file: that is the whole server's, and one that writes an append-only file, or is rented, takes none back.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple

from redis import Redis, RedisError

from finsight.adapters.redis_connection import answering
from finsight.errors import ArtifactError

KEPT = ("finsight:key:", "finsight:keys:", "finsight:signing", "finsight:audit", "{jobs}:")
PASSING = ("finsight:session:", "finsight:ticket:", "finsight:attempt:", "finsight:failures:", "finsight:limits:", "finsight:result:")
"""What may go: people sign in again, and a ticket that was used once must not be good a second time."""
SECONDS = 300.0  # for an answer: it is all of it
_reachable = partial(answering, "Redis does not do what is asked", "is it there, FINSIGHT_REDIS_URL right, and its memory enough?")

# A script sees one moment: a job is not in the queue without its hash, and no record of the audit log comes between.
_TAKE = """
local time, found, cursor = redis.call('TIME'), {}, '0'
local now = time[1] * 1000 + math.floor(time[2] / 1000)
repeat
  local page = redis.call('SCAN', cursor, 'COUNT', 1000)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    for _, prefix in ipairs(ARGV) do
      if string.sub(key, 1, #prefix) == prefix then
        local left = redis.call('PTTL', key)
        found[#found + 1] = {key, left < 0 and 0 or now + left, redis.call('DUMP', key)}
        break
      end
    end
  end
until cursor == '0'
return found
"""


class Kept(NamedTuple):
    """One key: its name, the time (ms) at which it ends (0: never), and what stands there, as Redis's DUMP has it."""

    name: bytes
    ends: int
    content: bytes


def take(client: Redis) -> list[Kept]:
    """All that the service has to keep, at one moment. Redis does nothing else meanwhile.

    :param client: one that answers in bytes.
    :raises UnreachableError: when Redis does not answer, or refuses.
    """
    with _reachable():
        found: Any = client.register_script(_TAKE)(args=KEPT)
    # SCAN may name a key twice.
    return list({name: Kept(name, ends, content) for name, ends, content in found if content is not None}.values())


def put(client: Redis, kept: Collection[Kept]) -> None:
    """Have Redis keep this and nothing else of ours, in one step; what was there before stays when that fails.

    :raises UnreachableError: when Redis does not answer, or refuses.
    :raises ArtifactError: when it does not understand what an other, newer one has written.
    """
    before = take(client)
    with _reachable():
        try:
            _exchange(client, before, kept)
        except RedisError as error:
            _exchange(client, kept, before)
            if "DUMP payload version" not in str(error):
                raise
            version = client.info("server").get("redis_version", "")
            raise ArtifactError(f"Redis {version} can't read what a newer one wrote; restore into one as new as that was") from None


def _exchange(client: Redis, old: Collection[Kept], new: Collection[Kept]) -> None:
    with client.pipeline(transaction=True) as step:
        for one in old:
            step.delete(one.name)
        for one in new:
            step.restore(one.name, one.ends, one.content, absttl=True)
        step.execute()


def lines(kept: Collection[Kept]) -> bytes:
    """A JSON array a line, names and contents in base 64."""
    return b"".join(json.dumps([_text(one.name), one.ends, _text(one.content)]).encode() + b"\n" for one in kept)


def read(content: bytes) -> list[Kept]:
    """What :func:`lines` wrote."""
    rows = (json.loads(line) for line in content.splitlines())
    return [Kept(base64.b64decode(name), int(ends), base64.b64decode(kept)) for name, ends, kept in rows]


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
