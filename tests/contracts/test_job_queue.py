"""Both job queues, a live Redis and the one in memory, held to one contract."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from finsight.adapters.redis_queue import RedisQueue
from finsight.domain.jobs import Kind, Limits, Order, State, place
from finsight.errors import ParamsError
from finsight.service_ports import Backlog, Ending, JobQueue, Outcome, QueueFullError, ReusedKeyError, TooManyJobsError, Word
from memory_queue import MemoryQueue

Make = Callable[..., JobQueue]


@pytest.fixture(params=["redis", "memory"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    if request.param == "memory":
        yield MemoryQueue
        return
    url, made = request.getfixturevalue("redis_url"), []

    def redis(**options: Any) -> JobQueue:
        made.append(RedisQueue(url, **options))
        return made[-1]

    yield redis
    for queue in made:
        queue.close()


def order(number: int = 0, tenant: str = "a", kind: Kind = Kind.TRAIN) -> Order:
    return Order(kind, {"train.seed": number}, tenant, "somebody", "c0ffee", {"x": "1"})


def told(queue: JobQueue, job: str) -> list[Any]:
    return [event.content for event in queue.events(job)]


def test_a_job_comes_back_as_it_was_asked_for(make: Make) -> None:
    queue = make()
    job, new = queue.submit(order())
    assert new
    found = queue.get(job.id)
    assert found == job
    assert (job.order, job.state, job.attempt, job.started, job.metrics) == (order(), State.QUEUED, 0, None, {})
    assert abs(job.created - time.time()) < 60
    assert queue.get("0" * 31 + "f") is None


def test_what_it_was_ordered_by_is_kept_and_shapes_nothing(make: Make) -> None:
    queue = make()
    first = replace(order(), origin={"correlation_id": "mine-0001", "traceparent": "00-1-2-01"})
    job, _ = queue.submit(first)
    again, new = queue.submit(replace(order(), origin={"correlation_id": "mine-0002"}))
    assert (again.id, new, again.order.origin) == (job.id, False, first.origin)
    lease = queue.take("w")
    assert lease
    assert lease.job.order == first


def test_the_same_order_again_is_the_same_job_until_it_ended_badly(make: Make) -> None:
    queue = make()
    job, _ = queue.submit(order())
    assert queue.submit(order())[0].id == job.id
    assert queue.submit(order(1))[0].id != job.id
    assert queue.submit(order(tenant="b"))[0].id != job.id
    lease = queue.take("w")
    assert lease
    assert lease.job.id == job.id
    assert queue.submit(order()) == (lease.job, False)
    queue.end(lease, Outcome(Ending.FAILED, "no"))
    other, new = queue.submit(order())
    assert new
    assert other.id != job.id


def test_a_job_that_succeeded_is_not_run_again(make: Make) -> None:
    queue = make()
    job, _ = queue.submit(order())
    lease = queue.take("w")
    assert lease
    queue.end(lease, Outcome(Ending.SUCCEEDED, metrics={"m": 1.5}, experiment="e", result="r"))
    again, new = queue.submit(order())
    assert not new
    assert (again.id, again.state, again.metrics, again.experiment, again.result, again.progress) == (
        job.id,
        State.SUCCEEDED,
        {"m": 1.5},
        "e",
        "r",
        1.0,
    )
    assert again.ended
    assert again.started


def test_a_clients_key_finds_its_job_however_that_ended_and_is_for_one_order_of_one_tenant(make: Make) -> None:
    queue = make()
    job, _ = queue.submit(order(), "k")
    queue.cancel(job.id)
    again, new = queue.submit(order(), "k")
    assert (again.id, again.state, new) == (job.id, State.CANCELLED, False)
    with pytest.raises(ReusedKeyError):
        queue.submit(order(1), "k")
    assert queue.submit(order(1, "b"), "k")[1]


def test_limits_of_what_waits_and_of_a_tenant(make: Make) -> None:
    queue = make()
    job, _ = queue.submit(order(), limits=Limits(2, 1))
    assert queue.submit(order(), limits=Limits(2, 1))[0].id == job.id  # no new one, so none too many
    with pytest.raises(TooManyJobsError):
        queue.submit(order(1), limits=Limits(2, 1))
    queue.submit(order(tenant="b"), limits=Limits(2, 1))
    with pytest.raises(QueueFullError):
        queue.submit(order(tenant="c"), limits=Limits(2, 1))
    queue.cancel(job.id)
    assert queue.submit(order(1), limits=Limits(2, 1))[1]


def test_the_list_is_a_tenants_own_newest_first_in_pages_by_state_and_kind(make: Make) -> None:
    queue = make()
    made = [queue.submit(order(n, kind=Kind.TRAIN if n % 2 else Kind.EXPORT))[0].id for n in range(7)]
    queue.submit(order(tenant="b"))
    first, cursor = queue.jobs("a", limit=3)
    second, cursor = queue.jobs("a", after=cursor, limit=3)
    third, cursor = queue.jobs("a", after=cursor, limit=3)
    assert [job.id for job in (*first, *second, *third)] == made[::-1]
    assert cursor == 0
    assert [job.id for job in queue.jobs("a", kind=Kind.TRAIN)[0]] == [made[5], made[3], made[1]]
    queue.cancel(made[2])
    assert [job.id for job in queue.jobs("a", state=State.CANCELLED)[0]] == [made[2]]
    assert queue.jobs("nobody") == ([], 0)


def test_jobs_are_taken_in_order_by_one_each(make: Make) -> None:
    queue = make()
    made = []
    for n in range(3):
        made.append(queue.submit(order(n))[0].id)
        time.sleep(0.002)
    leases = [queue.take("w") for _ in range(4)]
    assert [lease and lease.job.id for lease in leases] == [*made, None]
    assert all(lease.job.state == State.RUNNING and lease.job.attempt == 1 for lease in leases if lease)


def test_what_is_told_is_kept_once_and_in_order_and_shown_by_the_job(make: Make) -> None:
    queue = make()
    job, _ = queue.submit(order())
    lease = queue.take("w")
    assert lease
    first = [{"type": "stage", "stage": "train"}, {"type": "log", "line": "größer"}]
    second = [{"type": "progress", "step": 1, "steps": 4}, {"type": "metrics", "metrics": {"f": 0.5}}]
    assert queue.tell(lease, 1, first) == Word.GO_ON
    assert queue.tell(lease, 2, second) == Word.GO_ON
    assert queue.tell(lease, 2, second) == Word.GO_ON  # the answer was lost, so it is said again
    found = queue.get(job.id)
    assert found
    assert (found.stage, found.progress, found.metrics) == ("train", 0.25, {"f": 0.5})
    everything = queue.events(job.id)
    assert [event.content for event in everything][2:] == [*first, *second]
    for i, event in enumerate(everything):
        assert queue.events(job.id, event.cursor) == everything[i + 1 :]
    assert queue.events(job.id, everything[0].cursor, 2) == everything[1:3]
    assert queue.latest(job.id, 2) == everything[-2:]
    assert queue.latest(job.id, 1000) == everything
    assert queue.latest("0" * 31 + "f", 5) == []
    with pytest.raises(ParamsError):
        queue.events(job.id, "; DROP")


def test_a_worker_that_is_silent_too_long_loses_its_job_and_is_fenced_off(make: Make) -> None:
    queue = make(lease=0.2, pause=0.0)
    job, _ = queue.submit(order())
    old = queue.take("first")
    assert old
    assert queue.take("second") is None
    time.sleep(0.15)
    queue.tell(old, 1)
    time.sleep(0.15)
    assert queue.take("second") is None  # it was renewed
    time.sleep(0.25)
    new = queue.take("second")
    assert new
    assert (new.job.id, new.job.attempt) == (job.id, 2)
    assert new.token > old.token
    before = told(queue, job.id)
    assert queue.tell(old, 2, [{"type": "log", "line": "late"}]) == Word.LOST
    assert not queue.end(old, Outcome(Ending.SUCCEEDED))
    assert told(queue, job.id) == before
    assert [event.get("state") for event in before] == ["queued", "running", "queued", "running"]
    assert queue.end(new, Outcome(Ending.SUCCEEDED))
    assert not queue.end(new, Outcome(Ending.FAILED))


def test_what_breaks_is_tried_again_after_ever_longer_pauses_and_then_is_dead(make: Make) -> None:
    queue = make(attempts=3, pause=0.1)
    job, _ = queue.submit(order())
    waits = []
    for attempt in (1, 2, 3):
        started = time.monotonic()
        while (lease := queue.take("w")) is None:
            time.sleep(0.01)
        waits.append(time.monotonic() - started)
        assert lease.job.attempt == attempt
        assert lease.last is (attempt == 3)
        queue.end(lease, Outcome(Ending.BROKEN, f"broke {attempt}"))
    assert waits[1] > 0.09
    assert waits[2] > 0.19
    assert [(dead.id, dead.state, dead.error) for dead in queue.dead()] == [(job.id, State.DEAD, "broke 3")]
    assert queue.take("w") is None
    assert queue.submit(order())[1]


def test_what_is_given_back_has_not_been_tried(make: Make) -> None:
    queue = make(pause=60.0)
    job, _ = queue.submit(order())
    lease = queue.take("w")
    assert lease
    queue.end(lease, Outcome(Ending.GIVEN_BACK))
    again = queue.take("w")
    assert again
    assert (again.job.id, again.job.attempt) == (job.id, 1)


def test_cancelling(make: Make) -> None:
    queue = make(lease=0.1)
    waits, runs, lost = (queue.submit(order(n))[0].id for n in range(3))
    cancelled = queue.cancel(waits)
    assert cancelled
    assert cancelled.state == State.CANCELLED
    first, second = queue.take("w"), queue.take("w")
    assert first
    assert second
    running = queue.cancel(runs)
    queue.cancel(lost)
    assert running
    assert running.state == State.RUNNING  # until its worker has ended it
    assert queue.tell(first, 1) == Word.CANCEL
    assert queue.submit(order(1))[1]  # one that is about to end is no answer to who wants it now
    queue.end(first, Outcome(Ending.CANCELLED))
    time.sleep(0.15)
    third = queue.take("w")
    assert third
    assert third.job.id not in (waits, runs, lost)
    assert [queue.get(name).state for name in (waits, runs, lost)] == [State.CANCELLED] * 3  # type: ignore[union-attr]
    ended = queue.get(runs)
    assert queue.cancel(runs) == ended
    assert queue.cancel("0" * 31 + "f") is None


def test_one_holder_at_a_time(make: Make) -> None:
    queue = make()
    assert queue.hold("gpu", "a", 0.2)
    assert queue.hold("gpu", "a", 0.2)
    assert not queue.hold("gpu", "b", 0.2)
    assert queue.hold("other", "b", 60)
    queue.release("gpu", "b")
    assert not queue.hold("gpu", "b", 0.2)
    time.sleep(0.25)
    assert queue.hold("gpu", "b", 60)
    queue.release("gpu", "b")
    assert queue.hold("gpu", "a", 0.2)


def test_a_clients_key_can_not_be_taken_for_another_tenants(make: Make) -> None:
    queue = make()
    queue.submit(order(1, "acme"), "eu:nightly")
    job, new = queue.submit(order(2, "acme:eu"), "nightly")
    assert new
    assert job.order.tenant == "acme:eu"


def test_nothing_of_a_job_is_left_when_its_time_is_over(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finsight.adapters.redis_queue.KEPT", 1)
    queue = RedisQueue(redis_url, attempts=1)
    for number in range(3):
        queue.submit(order(number))
        lease = queue.take("w")
        assert lease
        queue.end(lease, Outcome(Ending.BROKEN, "x"))
    time.sleep(1.2)
    last, _ = queue.submit(order(3))
    queue.cancel(last.id)
    with Redis.from_url(redis_url, decode_responses=True) as client:
        assert client.zrange("{jobs}:all:a", 0, -1) == [last.id]
        assert client.zcard("{jobs}:dead") == 0
    queue.close()


def test_twenty_workers_at_once_take_each_job_once(redis_url: str) -> None:
    queue = RedisQueue(redis_url)
    made = {queue.submit(order(n))[0].id for n in range(100)}

    def work(_: int) -> list[str]:
        mine = []
        while lease := queue.take("w"):
            mine.append(lease.job.id)
        return mine

    with ThreadPoolExecutor(20) as workers:
        taken = [job for mine in workers.map(work, range(20)) for job in mine]
    queue.close()
    assert len(taken) == 100
    assert set(taken) == made


def test_the_same_order_from_many_at_once_is_one_job(redis_url: str) -> None:
    queue = RedisQueue(redis_url)
    with ThreadPoolExecutor(20) as clients:
        found = list(clients.map(lambda _: queue.submit(order(), "key"), range(40)))
    queue.close()
    assert len({job.id for job, _ in found}) == 1
    assert sum(new for _, new in found) == 1


def test_news_of_several_jobs_are_those_after_a_cursor_of_each(make: Make) -> None:
    queue = make()
    jobs = [queue.submit(order(n))[0].id for n in range(3)]
    lease = queue.take("w")
    assert lease
    queue.tell(lease, 1, [{"type": "log", "line": f"{n}"} for n in range(4)])
    told = lease.job.id
    last = {job: queue.events(job)[-1].cursor for job in jobs}
    assert queue.news(last) == {}
    assert queue.news({}) == {}
    everything = queue.events(told)
    assert queue.news({**last, told: everything[1].cursor, "nothing": ""}, 3) == {told: everything[2:5]}
    assert queue.news(dict.fromkeys(jobs, "")) == {job: queue.events(job) for job in jobs}
    with pytest.raises(ParamsError, match="cursor"):
        queue.news({told: "; DROP"})


def test_of_a_job_that_says_much_the_newest_is_kept_and_a_line_says_what_is_not(make: Make) -> None:
    queue = make(said=5000)
    job, _ = queue.submit(order())
    lease = queue.take("w")
    assert lease
    begun = queue.events(job.id)
    for n in range(1, 31):
        queue.tell(lease, n, [{"type": "log", "line": f"{n} {i} größer {'x' * 50}"} for i in range(1, 11)])
    gap, *kept = queue.events(job.id)
    gone = len(begun) + 300 - len(kept)
    assert str(gap.content["line"]).startswith(f"… {gone} events before this one are no longer kept")
    assert 4500 < sum(len(json.dumps(event.content, ensure_ascii=False).encode()) for event in kept) <= 5000
    assert [event.content["line"][:4].split()[0] for event in kept[-10:]] == ["30"] * 10
    everything = [gap, *kept]
    for i, event in enumerate(everything):
        assert queue.events(job.id, event.cursor) == everything[i + 1 :]
    assert queue.events(job.id, begun[-1].cursor) == everything  # whoever had read that far was overtaken
    assert queue.events(job.id, begun[-1].cursor, 3) == everything[:3]
    assert queue.news({job.id: ""}, 1) == {job.id: [gap]}
    assert queue.latest(job.id, 1000) == kept
    assert queue.end(lease, Outcome(Ending.SUCCEEDED))
    assert queue.events(job.id, kept[-1].cursor)[-1].end == "succeeded"
    places = [place(event.cursor) for event in queue.events(job.id)]
    assert places == sorted(set(places))


def test_a_cursor_that_was_made_up_finds_no_gap_where_there_is_none(redis_url: str) -> None:
    queue = RedisQueue(redis_url, said=500)
    job, _ = queue.submit(order())
    lease = queue.take("w")
    assert lease
    queue.tell(lease, 1, [{"type": "log", "line": "x" * 100}] * 20)
    time.sleep(0.01)
    queue.tell(lease, 2, [{"type": "log", "line": "y"}])
    last = queue.events(job.id)[-1]
    made_up = f"{place(last.cursor)[0] - 1}-0"
    assert queue.events(job.id, made_up) == [last]
    assert len(queue.events(job.id, "1-0")) > 2
    queue.close()


def test_where_a_job_ends_an_event_says_so(make: Make) -> None:
    queue = make()
    job, _ = queue.submit(order())
    queue.cancel(job.id)
    assert [event.end for event in queue.events(job.id)] == ["", "cancelled"]
    places = [place(event.cursor) for event in queue.events(job.id)]
    assert places == sorted(set(places))
    assert place("") < place("5-0") < place("10-2") < place("10-10")


def test_who_waits_for_events_gets_them_when_they_come(redis_url: str) -> None:
    queue = RedisQueue(redis_url)
    job, _ = queue.submit(order())
    last = queue.events(job.id)[-1].cursor
    with ThreadPoolExecutor(1) as reader:
        started = time.monotonic()
        asked = reader.submit(queue.events, job.id, last, 500, 10.0)
        time.sleep(0.2)
        queue.cancel(job.id)
        assert [event.content["state"] for event in asked.result()] == ["cancelled"]
    assert time.monotonic() - started < 5
    queue.close()


def test_the_backlog_of_all_tenants(make: Make) -> None:
    queue = make(attempts=1, lease=60)
    assert queue.backlog() == Backlog(0, 0, 0, 0.0)
    for n in range(3):
        queue.submit(order(n, tenant=f"tenant {n}"))
        time.sleep(0.002)
    time.sleep(0.2)
    lease = queue.take("w")
    assert lease
    found = queue.backlog()
    assert (found.waiting, found.running, found.dead) == (2, 1, 0)
    assert 0.2 <= found.oldest < 30
    queue.end(lease, Outcome(Ending.BROKEN, "it broke"))
    assert (queue.backlog().running, queue.backlog().dead) == (0, 1)


def test_a_job_whose_next_attempt_is_not_due_waits_and_is_not_old(make: Make) -> None:
    queue = make(pause=60)
    queue.submit(order())
    time.sleep(0.05)
    lease = queue.take("w")
    assert lease
    queue.end(lease, Outcome(Ending.BROKEN, "it broke"))
    assert queue.backlog() == Backlog(1, 0, 0, 0.0)
