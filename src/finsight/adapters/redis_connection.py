"""How the service's Redis is reached, and what its silence is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis, RedisError

from finsight.errors import ParamsError, UnreachableError

SECONDS = 5  # to connect, and to wait for an answer


def connect(url: str) -> Any:
    """A client that answers in text; it connects at the first use.

    :raises ParamsError: when the address is none.
    """
    try:
        return Redis.from_url(url, decode_responses=True, socket_timeout=SECONDS, socket_connect_timeout=SECONDS)
    except ValueError:  # its message may show the address, and that a password
        raise ParamsError("FINSIGHT_REDIS_URL: expected redis://, rediss:// or unix:// and an address") from None


@contextmanager
def answering() -> Iterator[None]:
    """Turn what redis raises into our error, without the address: it may carry a password.

    :raises UnreachableError: when Redis does not answer, or refuses.
    """
    try:
        yield
    except RedisError as error:
        raise UnreachableError(f"the service's Redis does not answer ({type(error).__name__}); try again when it is back") from None
