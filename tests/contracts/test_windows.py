"""Sliding windows, in Redis and in memory."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis import Redis

from finsight.adapters.redis_server import embedded
from finsight.adapters.windows import LeasedWindows, SlidingWindows, amounts
from finsight.errors import ParamsError, UnreachableError
from finsight.service_ports import Standing, Windows

LIMITS = amounts("predict=3/day; jobs.read=1/second; *=1/day")


@pytest.fixture(params=["redis", "leased", "memory"])
def windows(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Windows]:
    with Redis.from_url(redis_url) as client:
        shared = SlidingWindows(LIMITS, None if request.param == "memory" else client)
        yield LeasedWindows(shared) if request.param == "leased" else shared


def test_there_is_room_up_to_the_amount(windows: Windows) -> None:
    found = [windows.hit("acme/ann", "predict") for _ in range(4)]
    assert [one.allowed for one in found] == [True, True, True, False]
    assert [one.left for one in found] == [2, 1, 0, 0]
    assert {one.amount for one in found} == {3}
    assert all(1 <= one.seconds <= 86_400 for one in found)


def test_each_credential_and_action_has_its_own(windows: Windows) -> None:
    for who in ("acme/ann", "acme/bob", "other/ann"):
        for action in ("models.read", "data.read"):
            assert windows.hit(who, action).allowed
            assert not windows.hit(who, action).allowed


def test_room_comes_back(windows: Windows) -> None:
    while windows.hit("ann", "jobs.read").allowed:
        pass
    time.sleep(2.1)
    assert windows.hit("ann", "jobs.read").allowed


@pytest.mark.parametrize("leased", [False, True])
def test_replicas_count_together(redis_url: str, leased: bool) -> None:
    with Redis.from_url(redis_url) as one, Redis.from_url(redis_url) as two:
        shared = [SlidingWindows(amounts("predict=50/day"), client) for client in (one, two)]
        replicas = [LeasedWindows(windows) for windows in shared] if leased else shared
        with ThreadPoolExecutor(8) as pool:
            found: list[Standing] = list(pool.map(lambda i: replicas[i % 2].hit("ann", "predict"), range(120)))
    # A thread that finds no room may come before one that still has a lease: never more, at most a little less.
    assert 45 <= sum(one.allowed for one in found) <= 50
    assert leased or sum(one.allowed for one in found) == 50


def test_a_lease_spares_redis_and_ends_with_the_amount(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        leased = LeasedWindows(SlidingWindows(amounts("predict=100/day"), client))
        before = client.info("stats")["total_commands_processed"]
        found = [leased.hit("ann", "predict") for _ in range(1000)]
        assert client.info("stats")["total_commands_processed"] - before < 500  # fewer than requests; Lua's own count too
    assert [one.allowed for one in found] == [True] * 100 + [False] * 900
    assert [one.left for one in found[:100]] == list(range(99, -1, -1))


def test_what_is_at_once_counts_and_asks_nobody(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        shared, memory = SlidingWindows(amounts("predict=40/day"), client), SlidingWindows(amounts("predict=2/day"))
        leased = LeasedWindows(shared)
        assert shared.at_once("ann", "predict") is None
        assert leased.at_once("ann", "predict") is None
        assert leased.hit("ann", "predict").left == 39  # and one more is leased
        at_once = leased.at_once("ann", "predict")
        assert at_once is not None
        assert (at_once.allowed, at_once.left) == (True, 38)
        assert leased.at_once("ann", "predict") is None
        assert leased.hit("ann", "predict").left == 37
        found = [memory.at_once("ann", "predict") for _ in range(3)]
        assert [one and one.allowed for one in found] == [True, True, False]


def test_a_redis_that_is_away_is_unreachable(tmp_path: Path) -> None:
    with embedded(tmp_path / "redis") as address, Redis.from_url(address) as client:
        windows = SlidingWindows(LIMITS, client)
        assert windows.hit("ann", "predict").allowed
    with pytest.raises(UnreachableError, match="limits can't be counted"):
        windows.hit("ann", "predict")


def test_a_limit_of_no_action_is_one_line() -> None:
    for wrong in ("predcit", "jobs.creat", "jobs.create.train.x"):
        with pytest.raises(ParamsError, match=f"FINSIGHT_LIMITS: {wrong} is no action; there are predict, "):
            amounts(f"{wrong}=5/minute")
    assert {"jobs.create", "models.promote", "unknown"} <= amounts("jobs.create=5/minute; models.promote=1/second; unknown=9/hour").keys()


@pytest.mark.parametrize("wrong", ["predict", "predict=", "predict=x/minute", "predict=5/fortnight", "=5;=", "predict:5/minute"])
def test_limits_that_are_written_wrongly_are_one_line(wrong: str) -> None:
    with pytest.raises(ParamsError, match="FINSIGHT_LIMITS: got"):
        amounts(wrong)


def test_what_is_not_changed_stays() -> None:
    assert {name: str(item) for name, item in amounts("predict=5/second").items()} == {
        "predict": "5 per 1 second",
        "auth.token": "20 per 1 minute",
        "unknown": "30 per 1 minute",
        "*": "120 per 1 minute",
    }


def test_leases_are_bounded_and_the_oldest_goes(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finsight.adapters.windows._MOST", 10)
    with Redis.from_url(redis_url) as client:
        leased = LeasedWindows(SlidingWindows(amounts("unknown=1000/day"), client))
        assert all(leased.hit(f"192.0.2.{n}", "unknown").allowed for n in range(30))
        assert len(leased._leases) == 10
        before = client.info("stats")["total_commands_processed"]
        assert leased.hit("192.0.2.29", "unknown").allowed
        assert client.info("stats")["total_commands_processed"] - before == 1  # this question itself: it has its lease still
