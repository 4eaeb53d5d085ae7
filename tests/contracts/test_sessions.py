"""Sessions, against a live Redis."""

from collections.abc import Iterator

import pytest
from redis import Redis

from finsight.adapters.redis_sessions import SECONDS, RedisSessions
from finsight.domain.access import Principal
from finsight.errors import UnreachableError

ANNA = Principal("anna", "desk", frozenset({"releaser", "viewer"}), frozenset({"models.read"}))


@pytest.fixture
def sessions(redis_url: str) -> Iterator[RedisSessions]:
    opened = RedisSessions(redis_url)
    yield opened
    opened.close()


def test_a_session_is_found_until_it_is_ended(sessions: RedisSessions) -> None:
    secret, other = sessions.begin(ANNA), sessions.begin(ANNA)
    found = sessions.find(secret)
    assert found is not None
    assert found.principal == ANNA
    assert found == sessions.find(secret)
    another = sessions.find(other)
    assert another is not None
    assert another.csrf != found.csrf
    sessions.end(secret)
    assert sessions.find(secret) is None
    assert sessions.find(other) == another
    assert sessions.find("") is None
    assert sessions.find("\ud7ff*") is None


def test_the_store_holds_no_secret_and_forgets_in_time(sessions: RedisSessions, redis_url: str) -> None:
    secret = sessions.begin(ANNA)
    with Redis.from_url(redis_url) as client:
        (key,) = client.keys("*")
        assert secret not in key.decode() + client.get(key).decode()
        assert SECONDS - 60 < client.ttl(key) <= SECONDS
        client.expire(key, 0)
    assert sessions.find(secret) is None


def test_a_redis_that_is_away_is_said_to_be() -> None:
    sessions = RedisSessions("redis://:very-secret@127.0.0.1:1")
    for ask in (lambda: sessions.begin(ANNA), lambda: sessions.find("x"), lambda: sessions.end("x")):
        with pytest.raises(UnreachableError, match=r"Redis does not answer \(ConnectionError\)") as caught:
            ask()
        assert "very-secret" not in str(caught.value)
    sessions.close()
