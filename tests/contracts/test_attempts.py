"""Sign-ins that have begun, against a live Redis."""

import pytest
from redis import Redis

from finsight.adapters.redis_attempts import RedisAttempts
from finsight.adapters.redis_connection import connect
from finsight.domain.sign_in import begin
from finsight.errors import UnreachableError


def test_one_is_there_once_and_for_its_time(redis_url: str) -> None:
    attempts, one, another = RedisAttempts(connect(redis_url)), begin(), begin()
    assert len({one.state, one.nonce, one.verifier, another.state, another.nonce, another.verifier}) == 6
    attempts.put("a secret", one, 60)
    attempts.put("another", another, 60)
    assert attempts.take("a secret") == one
    assert attempts.take("a secret") is None
    assert attempts.take("") is None
    with Redis.from_url(redis_url) as client:
        (key,) = client.keys("*")
        assert b"another" not in key
        client.expire(key, 0)
    assert attempts.take("another") is None


def test_a_redis_that_is_away_is_said_to_be() -> None:
    attempts = RedisAttempts(connect("redis://:very-secret@127.0.0.1:1"))
    for ask in (lambda: attempts.put("x", begin(), 1), lambda: attempts.take("x")):
        with pytest.raises(UnreachableError, match="Redis does not answer") as caught:
            ask()
        assert "very-secret" not in str(caught.value)
