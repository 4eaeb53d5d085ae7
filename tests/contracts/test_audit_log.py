"""The audit log, in Redis and in memory: one chain, whoever writes; and every way to tamper with the one in Redis."""

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyrage
import pytest
from redis import Redis

from finsight.adapters.redis_audit import KEY, RedisAuditLog
from finsight.adapters.redis_server import embedded
from finsight.adapters.sealing import Seal
from finsight.domain.audit import Entry, Head, chained, check
from finsight.errors import ParamsError, UnreachableError
from finsight.service_ports import AuditLog
from memory_audit import MemoryAuditLog


def entry(i: int, who: str = "ann") -> Entry:
    return Entry(f"2026-11-28T00:00:{i:02}.000000+00:00", who, "acme", "jobs.cancel", f"/v1/jobs/{i}", "done", 204, f"id-{i}", "192.0.2.1")


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as opened:
        yield opened


@pytest.fixture(params=["redis", "sealed", "memory"])
def log(request: pytest.FixtureRequest, client: Redis) -> AuditLog:
    if request.param == "memory":
        return MemoryAuditLog()
    return RedisAuditLog(client, Seal(str(pyrage.x25519.Identity.generate())) if request.param == "sealed" else None)


def test_an_empty_log_holds(log: AuditLog) -> None:
    log.check()
    assert (log.written(), list(log.records()), log.latest(None, 5)) == (0, [], [])
    assert check(log.records(), log.written()) == (Head(), "")


def test_records_form_a_chain(log: AuditLog) -> None:
    for i in range(5):
        log.append(entry(i))
    found = list(log.records())
    assert [one.entry for one in found] == [entry(i) for i in range(5)]
    assert [one.number for one in found] == [1, 2, 3, 4, 5]
    assert log.written() == 5
    assert check(found, 5) == (Head(5, found[-1].digest), "")


def test_the_newest_come_first_page_by_page(log: AuditLog) -> None:
    for i in range(1, 8):
        log.append(entry(i))
    assert [one.number for one in log.latest(None, 3)] == [7, 6, 5]
    assert [one.number for one in log.latest(5, 3)] == [4, 3, 2]
    assert [one.number for one in log.latest(2, 3)] == [1]
    assert log.latest(1, 3) == log.latest(0, 3) == []


def test_each_of_many_threads_gets_a_place_of_its_own(log: AuditLog) -> None:
    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(lambda i: log.append(entry(i % 60)).number, range(80)))
    assert sorted(places) == list(range(1, 81))
    assert check(log.records(), log.written())[1] == ""


def write(address: str, who: str) -> None:
    with Redis.from_url(address) as client:
        for i in range(25):
            RedisAuditLog(client).append(entry(i, who))


def test_replicas_write_one_chain(redis_url: str, client: Redis) -> None:
    spawn = multiprocessing.get_context("spawn")
    replicas = [spawn.Process(target=write, args=(redis_url, who)) for who in ("a", "b", "c")]
    for one in replicas:
        one.start()
    for one in replicas:
        one.join(60)
        assert one.exitcode == 0
    found = list(RedisAuditLog(client).records())
    assert check(found, 75)[1] == ""
    for who in ("a", "b", "c"):
        assert [one.entry for one in found if one.entry and one.entry.who == who] == [entry(i, who) for i in range(25)]


def test_more_than_a_page_is_read(client: Redis) -> None:
    log = RedisAuditLog(client)
    head = Head()
    for i in range(1001):
        record = chained(head, entry(i % 60))
        client.xadd(KEY, log._fields(record, entry(i % 60)), id=f"{record.number}-0")
        head = Head(record.number, record.digest)
    assert check(log.records(), log.written()) == (head, "")


def test_what_is_sealed_shows_nothing_and_needs_its_key(client: Redis) -> None:
    log = RedisAuditLog(client, Seal(str(pyrage.x25519.Identity.generate())))
    log.append(entry(1))
    raw = b"".join(b"".join(fields.values()) for _, fields in client.xrange(KEY))
    assert b"ann" not in raw
    assert b"jobs" not in raw
    assert check(log.records(), 1)[1] == ""
    for other in (RedisAuditLog(client), RedisAuditLog(client, Seal(str(pyrage.x25519.Identity.generate())))):
        assert "record 1 can't be read" in check(other.records(), 1)[1]


def test_a_key_that_is_none_is_one_line() -> None:
    with pytest.raises(ParamsError, match="FINSIGHT_ENCRYPTION_KEY") as caught:
        Seal("AGE-SECRET-KEY-1NOTHING")
    assert "NOTHING" not in str(caught.value)


def test_a_redis_that_is_away_or_takes_no_writes_is_unreachable(tmp_path: Path) -> None:
    with embedded(tmp_path / "redis") as address, Redis.from_url(address) as client:
        log = RedisAuditLog(client)
        log.append(entry(1))
        client.config_set("maxmemory", "1")
        for ask in (log.check, lambda: log.append(entry(2))):
            with pytest.raises(UnreachableError):
                ask()
        assert len(log.latest(None, 5)) == 1
    for ask in (log.check, log.written, lambda: log.append(entry(2)), lambda: list(log.records()), lambda: log.latest(None, 1)):
        with pytest.raises(UnreachableError):
            ask()


Raw = list[tuple[str, dict[bytes, bytes]]]


def rewrite(client: Redis, change: Callable[[Raw], object]) -> None:
    """Write the stream anew, as somebody with access to Redis could."""
    rows: Raw = [(name.decode(), fields) for name, fields in client.xrange(KEY)]
    change(rows)
    client.delete(KEY)
    for name, fields in rows:
        client.xadd(KEY, fields, id=name)  # type: ignore[arg-type]


def renumber(rows: Raw) -> None:
    rows[:] = [(f"{i}-0", fields) for i, (_, fields) in enumerate(rows, 1)]


def set_field(rows: Raw, at: int, **changes: object) -> None:
    rows[at][1][b"entry"] = json.dumps({**json.loads(rows[at][1][b"entry"]), **changes}).encode()


def swap_contents(rows: Raw) -> None:
    rows[1], rows[2] = (rows[1][0], rows[2][1]), (rows[2][0], rows[1][1])


def remove_and_renumber(rows: Raw) -> None:
    del rows[2]
    renumber(rows)


def insert(rows: Raw) -> None:
    rows.insert(2, ("", dict(rows[1][1])))
    renumber(rows)


def forge(rows: Raw) -> None:
    """A changed record with its right digest: the next one no longer follows."""
    fake = chained(Head(2, rows[1][1][b"digest"].decode()), Entry(**{**json.loads(rows[2][1][b"entry"]), "who": "eve"}))
    set_field(rows, 2, who="eve")
    rows[2][1][b"digest"] = fake.digest.encode()


FIELDS = {
    "when": "2020",
    "who": "eve",
    "tenant": "x",
    "action": "x",
    "resource": "x",
    "outcome": "refused",
    "status": 1,
    "correlation_id": "x",
}
FIELDS |= {"address": "x", "repeats": 9}


@pytest.mark.parametrize(
    ("change", "first"),
    [
        *((lambda rows, name=name, value=value: set_field(rows, 2, **{name: value}), 3) for name, value in FIELDS.items()),
        (lambda rows: set_field(rows, 2, more="x"), 3),
        (lambda rows: rows[2][1].pop(b"entry"), 3),
        (lambda rows: rows[2][1].update({b"digest": b"0" * 64}), 3),
        (lambda rows: rows[2][1].update({b"digest": b"\xff"}), 3),
        (lambda rows: rows.pop(2), 3),
        (lambda rows: rows.pop(0), 1),
        (remove_and_renumber, 3),
        (swap_contents, 2),
        (insert, 3),
        (forge, 4),
    ],
)
def test_tampering_is_found_at_the_first_record_that_does_not_follow(client: Redis, change: Callable[[Raw], object], first: int) -> None:
    log = RedisAuditLog(client)
    for i in range(5):
        log.append(entry(i))
    rewrite(client, lambda rows: None)
    assert check(log.records(), log.written())[1] == ""
    rewrite(client, change)
    head, problem = check(log.records(), log.written())
    assert head.number == first - 1
    assert problem.startswith(f"record {first} ")
    log.append(entry(9))  # what comes after hides nothing
    assert check(log.records(), log.written()) == (head, problem)


def test_a_tail_that_was_cut_off_is_found_and_the_log_goes_on(client: Redis) -> None:
    log = RedisAuditLog(client)
    for i in range(5):
        log.append(entry(i))
    client.xdel(KEY, "4-0", "5-0")
    assert check(log.records(), log.written())[1].startswith("record 4 is missing: the log ends with 3, and 5 were written")
    assert log.append(entry(6)).number == 6
    assert check(log.records(), log.written())[1] == "record 4 is missing: the one after 3 is 6"
    client.xtrim(KEY, maxlen=0)
    assert check(log.records(), log.written())[1].startswith("record 1 is missing")
    assert log.append(entry(7)).number == 7
    assert check(log.records(), log.written())[1] == "record 1 is missing: the one after 0 is 7"


def test_only_an_anchor_sees_what_was_written_anew(client: Redis) -> None:
    log = RedisAuditLog(client)
    for i in range(5):
        anchor = Head(log.append(entry(i)).number, list(log.records())[-1].digest)
    rewrite(client, lambda rows: rows.pop())  # the stream is made anew, and remembers no last id
    assert check(log.records(), log.written())[1] == ""
    assert "the anchor knows 5" in check(log.records(), log.written(), anchor)[1]
    log.append(entry(4, "eve"))
    assert check(log.records(), log.written())[1] == ""
    assert check(log.records(), log.written(), anchor)[1] == "record 5 or one before it was written anew: its digest is not the anchor's"
    client.delete(KEY)
    assert check(log.records(), log.written()) == (Head(), "")
    assert "record 1 is missing" in check(log.records(), log.written(), anchor)[1]
