"""What every result cache does: in memory, and in a live Redis."""

import logging
import socket
import time
from collections.abc import Iterator

import pytest
from redis import Redis

from finsight.adapters.memory_results import OVERHEAD, MemoryResults
from finsight.adapters.redis_results import PREFIX, REST, TRIES, RedisResults
from finsight.service_ports import ResultCache


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest) -> Iterator[ResultCache]:
    if request.param == "memory":
        yield MemoryResults()
        return
    made = RedisResults(request.getfixturevalue("redis_url"))
    yield made
    made.close()


def test_what_was_put_is_there_in_the_order_that_is_asked(cache: ResultCache) -> None:
    cache.put({"a": b"1", "b": b"\x00\xff"})
    assert cache.get(["b", "nothing", "a", "b"]) == [b"\x00\xff", None, b"1", b"\x00\xff"]


def test_the_newest_value_counts(cache: ResultCache) -> None:
    cache.put({"a": b"old"})
    cache.put({"a": b"new"})
    assert cache.get(["a"]) == [b"new"]


def test_nothing_is_nothing(cache: ResultCache) -> None:
    cache.put({})
    assert cache.get([]) == []
    assert cache.get(["a"]) == [None]


def test_memory_keeps_what_was_used_last() -> None:
    cache = MemoryResults(entries=2)
    cache.put({"a": b"1", "b": b"2"})
    cache.get(["a"])
    cache.put({"c": b"3"})
    assert cache.get(["a", "b", "c"]) == [b"1", None, b"3"]


def test_memory_is_bounded_by_bytes() -> None:
    cache = MemoryResults(size=10 * (OVERHEAD + 2))
    cache.put({str(n): b"x" for n in range(10)})
    assert len(cache) == 10
    cache.put({"0": b"x" * (OVERHEAD + 3)})  # takes the room of two
    assert len(cache) == 9
    assert cache.bytes <= 10 * (OVERHEAD + 2)
    assert cache.get(["1", "0"]) == [None, b"x" * (OVERHEAD + 3)]
    cache.put({"huge": b"x" * 10_000})
    assert (len(cache), cache.bytes) == (0, 0)


@pytest.fixture
def redis(redis_url: str) -> Iterator["Redis"]:
    with Redis.from_url(redis_url) as client:
        yield client


def test_redis_forgets_after_a_while(redis_url: str, redis: "Redis") -> None:
    cache = RedisResults(redis_url, ttl=100)
    cache.put({"a": b"1"})
    assert 90 < redis.ttl(PREFIX + "a") <= 100
    cache.close()


def test_redis_gets_no_more_than_it_may(redis_url: str, redis: "Redis") -> None:
    now = [0.0]
    cache = RedisResults(redis_url, ttl=100, most=3, clock=lambda: now[0])
    for n in range(5):
        cache.put({str(n): b"x", "large": b"x" * 5000} if n == 0 else {str(n): b"x"})
    assert sorted(redis.keys()) == [f"{PREFIX}{n}".encode() for n in range(3)]
    now[0] = 100.0
    cache.put({"5": b"x"})
    assert redis.exists(PREFIX + "5")
    cache.close()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of what takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://:secret-word@127.0.0.1:{server.getsockname()[1]}/0"


@pytest.mark.parametrize("away", [True, False])
def test_a_redis_that_is_away_or_hangs_is_left_alone(away: bool, silent: str, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    address = "redis://:secret-word@127.0.0.1:1/0" if away else silent
    cache = RedisResults(address, clock=lambda: now[0])
    with caplog.at_level(logging.WARNING, "finsight.service"):
        for _ in range(TRIES):
            assert cache.get(["a"]) == [None]
        began = time.monotonic()
        for _ in range(1000):
            assert cache.get(["a"]) == [None]
            cache.put({"a": b"1"})
        assert time.monotonic() - began < 0.5
        now[0] = REST
        cache.get(["a"])
    assert len(caplog.records) == 2
    assert "secret-word" not in caplog.text
    cache.close()


def test_a_redis_that_comes_back_is_used_again(redis_url: str) -> None:
    now = [0.0]
    cache = RedisResults(redis_url, clock=lambda: now[0])
    cache.put({"a": b"1"})
    cache._failures, cache._rests_until = TRIES, REST
    assert cache.get(["a"]) == [None]
    now[0] = REST
    assert cache.get(["a"]) == [b"1"]
    cache.close()
