"""One suite for every key store: Redis, and the stand-in in memory."""

import threading
import time
from dataclasses import replace

import pytest
from redis import Redis

from finsight.adapters.redis_connection import connect
from finsight.adapters.redis_keys import KEPT, RedisKeys
from finsight.domain.keys import ApiKey, digest_of, new_id, new_secret
from finsight.errors import ParamsError, UnreachableError
from finsight.service_ports import KeyStore
from service_fakes import MemoryKeys

NOW = time.time()


def made(tenant: str = "local", at: float = NOW, **changes: object) -> ApiKey:
    key = ApiKey(new_id(at), "a key", tenant, frozenset({"scorer"}), frozenset({"predict"}), digest_of("x"), at, NOW + 3600, "admin")
    return replace(key, **changes)  # type: ignore[arg-type]


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> KeyStore:
    return MemoryKeys() if request.param == "memory" else RedisKeys(connect(request.getfixturevalue("redis_url")))


def test_what_was_added_is_there_in_every_part(store: KeyStore) -> None:
    key = made(previous=digest_of("y"), previous_until=NOW + 1.5, revoked=NOW + 0.25)
    store.add(key)
    assert store.get(key.id) == key
    assert store.get(new_id(NOW)) is None


def test_pages_are_of_one_tenant_newest_first_and_complete(store: KeyStore) -> None:
    keys = [made(at=NOW + n) for n in range(7)]
    for key in [*keys, made("other")]:
        store.add(key)
    seen: list[ApiKey] = []
    while page := store.page("local", seen[-1].id if seen else None, 3):
        seen += page
    assert seen == keys[::-1]
    assert len(store.page("other", None, 3)) == 1
    assert store.page("nobody", None, 3) == []


def test_a_change_is_kept_and_returned(store: KeyStore) -> None:
    key = made()
    store.add(key)
    expected = key.rotated(digest_of("new"), NOW, 60)
    assert store.change(key.id, lambda old: old.rotated(digest_of("new"), NOW, 60)) == expected
    assert store.get(key.id) == expected
    assert store.change(new_id(NOW), lambda old: old) is None


def test_what_fails_within_a_change_changes_nothing(store: KeyStore) -> None:
    key = made()
    store.add(key)

    def refuse(old: ApiKey) -> ApiKey:
        raise LookupError

    with pytest.raises(LookupError):
        store.change(key.id, refuse)
    assert store.get(key.id) == key


def test_use_is_noted_once_a_minute_and_survives_a_change(store: KeyStore) -> None:
    key = made()
    store.add(key)
    store.used(key, NOW + 1)
    for later, noted in ((30, 1), (62, 62)):
        found = store.get(key.id)
        assert found is not None
        store.used(found, NOW + later)
        after = store.get(key.id)
        assert after is not None
        assert after.used == pytest.approx(NOW + noted)
    changed = store.change(key.id, lambda old: old.taken_back(NOW))
    assert changed is not None
    assert changed.used == pytest.approx(NOW + 62)
    assert store.get(key.id) == changed


def test_changes_at_once_all_count(redis_url: str) -> None:
    store, key = RedisKeys(connect(redis_url)), made(name="0")
    store.add(key)

    def count() -> None:
        for _ in range(20):
            store.change(key.id, lambda old: replace(old, name=str(int(old.name) + 1)))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    found = store.get(key.id)
    assert found is not None
    assert found.name == "80"


def test_redis_forgets_what_has_ended_and_a_page_is_full_all_the_same(redis_url: str) -> None:
    store, now = RedisKeys(connect(redis_url)), time.time()
    old, gone = made(at=now, expires=now + 3600), [made(at=now + n, expires=now - KEPT - 10) for n in range(1, 4)]
    for key in [old, *gone]:
        store.add(key)
    with Redis.from_url(redis_url) as client:
        assert client.ttl(f"finsight:key:{old.id}") == pytest.approx(3600 + KEPT, abs=60)
        assert store.page("local", None, 2) == [old]
        assert client.zcard("finsight:keys:local") == 1
        store.change(old.id, lambda key: key.taken_back(now))
        assert client.ttl(f"finsight:key:{old.id}") == pytest.approx(KEPT, abs=60)


def test_no_secret_gets_into_redis(redis_url: str) -> None:
    secret = new_secret()
    RedisKeys(connect(redis_url)).add(made(digest=digest_of(secret)))
    with Redis.from_url(redis_url) as client:
        kept = b"".join(b"".join(client.hgetall(name).values()) for name in client.scan_iter("finsight:key:*"))
    assert digest_of(secret).encode() in kept
    assert secret.encode() not in kept


def test_a_redis_that_is_away_is_an_error_without_its_password() -> None:
    with pytest.raises(UnreachableError) as caught:
        RedisKeys(connect("redis://:hunter2@127.0.0.1:1/0")).get("x")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ParamsError) as refused:
        connect("http://:hunter2@127.0.0.1")
    assert "hunter2" not in str(refused.value)
