"""How the service's Redis is reached, and what its silence is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from finsight.errors import ParamsError, UnreachableError

SECONDS = 2  # to connect, and to wait for an answer: a prediction doesn't wait longer for its limit


def connect(url: str, text: bool = True, seconds: float = SECONDS, again: int = 1) -> Any:
    """A client that answers in text, or in bytes; it connects at the first use.

    :param seconds: to connect, and to wait for an answer.
    :param again: how often a command is sent again by a new connection: one that was idle may have been closed. 0 where whoever asks has to
        know whether it was done twice.
    :raises ParamsError: when the address is none.
    """
    try:
        retry = Retry(NoBackoff(), again)
        return Redis.from_url(url, decode_responses=text, socket_timeout=seconds, socket_connect_timeout=seconds, retry=retry)
    except ValueError:  # its message may show the address, and that a password
        raise ParamsError("FINSIGHT_REDIS_URL: expected redis://, rediss:// or unix:// and an address") from None


def refuse_forgetful(client: Any) -> None:
    """Find out whether a Redis throws away whatever it likes once its memory is full: jobs, keys and the audit log would go unseen.

    :raises ParamsError: when it does.
    """
    with answering():
        policy = str(client.info("memory").get("maxmemory_policy", ""))
    if policy.startswith("allkeys-"):
        raise ParamsError(f"FINSIGHT_REDIS_URL: its maxmemory-policy is {policy}, which drops jobs, keys and audit records; set noeviction")


@contextmanager
def answering(what: str = "the service's Redis does not answer", then: str = "try again when it is back") -> Iterator[None]:
    """Turn what redis raises into our error. Of its own words only the kind is kept: they may show the address, and that a password.

    :param what: is wrong then.
    :param then: is to be done.
    :raises UnreachableError: when Redis does not answer, or refuses.
    """
    try:
        yield
    except RedisError as error:
        raise UnreachableError(f"{what} ({type(error).__name__}); {then}") from None
