"""The socket of a job: everything that is said of it, once and in order, and each way that it ends."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from finsight.adapters.redis_queue import RedisQueue
from finsight.adapters.redis_server import embedded
from finsight.domain.jobs import Kind, Order
from finsight.service import job_feed
from finsight.service_ports import Ending
from serving import metric
from sockets import Service, Told, drop, lines_of, parts_with, quick, rest, service, until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def queue(redis_server: str) -> Iterator[RedisQueue]:
    made = RedisQueue(redis_server)
    yield made
    made.close()


@pytest.fixture(scope="module")
def running(queue: RedisQueue) -> Iterator[Service]:
    with service(parts_with(queue)) as made:
        yield made


def test_all_that_is_said_of_a_job_comes_live_and_the_socket_ends_with_it(running: Service, queue: RedisQueue) -> None:
    told = Told(queue)
    with running.connect(told.path) as client:
        assert client.response
        assert len(client.response.headers["X-Request-ID"]) == 16
        told.begin().say({"type": "stage", "stage": "train"})
        told.say({"type": "progress", "step": 1, "steps": 4, "epoch": 1, "loss": 0.5}, {"type": "log", "line": "größer"})
        began = time.monotonic()
        first = [client.recv(timeout=5) for _ in range(5)]
        assert time.monotonic() - began < 5
        told.say({"type": "metrics", "metrics": {"validation_macro_f1": 0.8}, "epoch": 1})
        told.end()
        events, code, reason = rest(client)
    assert len(first) + len(events) == len(told.all())
    assert events == told.all()[5:]
    assert (code, reason) == (1000, "succeeded")
    assert [event["type"] for event in told.all()] == ["state", "state", "stage", "progress", "log", "metrics", "state"]


def test_whoever_comes_again_with_a_cursor_misses_nothing_and_gets_nothing_twice(running: Service, queue: RedisQueue) -> None:
    told = Told(queue).begin()

    def work() -> None:
        for first in range(0, 1500, 5):
            told.log(*(f"line {n}" for n in range(first, first + 5)))
            time.sleep(0.003)
        told.end(Ending.FAILED)

    worker = threading.Thread(target=work)
    worker.start()
    found: list[dict[str, object]] = []
    cursor, code = "", 0
    for turn in itertools.count():
        client = running.connect(f"{told.path}?cursor={cursor}")
        if turn > 12:
            events, code, reason = rest(client)
            found += events
            break
        for _ in range(20 + 7 * turn):  # it reads some, and is gone in the middle of them
            found.append(json.loads(client.recv(timeout=10)))
        cursor = str(found[-1]["cursor"])
        drop(client)
    worker.join()
    assert (code, reason) == (1000, "failed")
    assert found == told.all()
    assert lines_of(found) == [f"line {n}" for n in range(1500)]


def test_many_sockets_on_a_job_cost_one_thread_and_one_question_at_a_time(running: Service, queue: RedisQueue, redis_server: str) -> None:
    told = Told(queue).begin()
    clients = [running.connect(told.path) for _ in range(30)]
    for client in clients:
        for _ in range(2):
            client.recv(timeout=10)
    time.sleep(0.5)
    feeds = [thread for thread in threading.enumerate() if thread.name.startswith("job-feed")]
    assert len(feeds) == 1
    with Redis.from_url(redis_server) as admin:
        admin.config_resetstat()
        began = time.monotonic()
        time.sleep(2)
        told.log("after a silence")
        for client in clients:
            assert "after a silence" in client.recv(timeout=5)
        asked = admin.info("commandstats")["cmdstat_xread"]["calls"]
    assert asked <= 10 + 6 * (time.monotonic() - began)  # not 30 times as many
    told.end()
    assert {rest(client)[1:] for client in clients} == {(1000, "succeeded")}
    until(lambda: running.open() == 0)


def test_a_job_that_has_ended_is_told_from_its_beginning_or_not_at_all(running: Service, queue: RedisQueue) -> None:
    told = Told(queue).begin()
    told.log(*(f"line {n}" for n in range(350)))  # some pages
    told.end()
    with running.connect(told.path) as client:
        assert rest(client) == (told.all(), 1000, "succeeded")
    with running.connect(f"{told.path}?cursor={told.all()[-1]['cursor']}") as client:
        assert rest(client) == ([], 1000, "succeeded")


def test_a_cursor_that_is_yet_to_come_keeps_nothing_from_the_others(running: Service, queue: RedisQueue) -> None:
    told = Told(queue).begin()
    with running.connect(f"{told.path}?cursor=9999999999999-0") as early, running.connect(told.path) as client:
        for _ in range(2):
            client.recv(timeout=5)
        told.log("for all")
        assert "for all" in client.recv(timeout=5)
        told.end()
        assert rest(client)[1] == 1000
        with pytest.raises(TimeoutError):
            early.recv(timeout=0.5)


def test_the_same_socket_ends_once_the_job_is_looked_at(running: Service, queue: RedisQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_feed, "LOOK", 0.3)
    told = Told(queue).begin()
    with running.connect(f"{told.path}?cursor=9999999999999-0") as early:
        told.end()
        assert rest(early) == ([], 1000, "succeeded")


def test_who_falls_behind_what_is_kept_reads_the_queue(running: Service, queue: RedisQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_feed, "KEPT", 3)
    told = Told(queue).begin()
    with running.connect(told.path) as client:
        for _ in range(2):
            client.recv(timeout=5)
        for first in range(0, 300, 50):
            told.log(*(f"{n}" for n in range(first, first + 50)))
            time.sleep(0.1)
        told.end()
        events, code, _ = rest(client)
    assert code == 1000
    assert events == told.all()[2:]


@pytest.mark.parametrize(
    ("path", "key", "status", "says"),
    [
        ("{own}", None, 401, "send a good key"),
        ("{own}", "nonsense", 401, "send a good key"),
        ("{own}", "ann:acme:nobody", 403, "ann may not do jobs.read"),
        ("{own}", "ann:acme:trainer:predict", 403, "ann may not do jobs.read"),
        ("{own}", "bob:elsewhere:admin", 404, "there is no job"),
        ("/v1/ws/jobs/" + "f" * 32, "ann:acme:trainer", 404, "there is no job"),
        ("/v1/ws/jobs/x", "ann:acme:trainer", 422, "path.job: "),
        ("{own}?cursor=x", "ann:acme:trainer", 422, "query.cursor: "),
        ("{own}?ticket=" + "x" * 65, "ann:acme:trainer", 422, "query.ticket: "),
        ("{own}?ticket=x", "ann:acme:trainer", 400, "send one credential"),
    ],
)
def test_who_is_refused_gets_a_problem_document(queue: RedisQueue, path: str, key: str | None, status: int, says: str) -> None:
    with service(parts_with(queue)) as running:
        found, problem, headers = running.refused(path.format(own=Told(queue).path), key)
        assert (found, problem["status"]) == (status, status)
        assert problem["detail"].startswith(says)
        assert problem["correlation_id"] == headers["X-Request-ID"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        refusals = [(entry.status, entry.action) for entry in running.parts.rules.audit.entries]  # type: ignore[attr-defined]
        hidden = (path, status) == ("{own}", 404)  # there is one, of another tenant
        assert refusals == ([(status, "jobs.read")] if status in (401, 403) or hidden else [])
        assert metric(running.http, "finsight_requests_total", route="/v1/ws/jobs/{job}", status=str(status)) == 1
        assert running.open() == 0


def test_a_job_that_is_deleted_while_it_is_followed(
    running: Service, queue: RedisQueue, redis_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_feed, "LOOK", 0.3)
    told = Told(queue)
    with running.connect(told.path) as client, Redis.from_url(redis_server) as admin:
        client.recv(timeout=5)
        admin.delete(f"{{jobs}}:job:{told.job.id}", f"{{jobs}}:events:{told.job.id}")
        admin.delete("{jobs}:queue", "{jobs}:all:acme", "{jobs}:active:acme")
        _, code, reason = rest(client)
    assert (code, reason) == (4404, f"job {told.job.id} is no longer there")
    assert running.refused(told.path)[0] == 404


def test_a_job_that_is_cancelled_while_it_waits(running: Service, queue: RedisQueue) -> None:
    told = Told(queue)
    with running.connect(told.path) as client:
        queue.cancel(told.job.id)
        assert rest(client)[1:] == (1000, "cancelled")


@pytest.mark.parametrize(("message", "code"), [("hello", 4400), (b"hello", 1003)])
def test_it_takes_no_messages(running: Service, queue: RedisQueue, message: str | bytes, code: int) -> None:
    with running.connect(Told(queue).path) as client:
        client.send(message)
        assert rest(client)[1] == code


def test_who_leaves_leaves_nothing_behind(running: Service, queue: RedisQueue) -> None:
    told = Told(queue)
    with running.connect(told.path) as client:
        client.close(1001, "bye")
    gone = running.connect(told.path)
    drop(gone)
    until(lambda: running.open() == 0)
    assert running.closed(1001) == 1
    assert not running.parts.sockets._open
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("job-feed")])


def test_who_reads_slowly_gets_everything_and_who_does_not_read_is_closed(queue: RedisQueue) -> None:
    told = Told(queue).begin()
    for first in range(0, 3000, 500):
        told.log(*(f"{n} {'x' * 1000}" for n in range(first, first + 500)))
    with service(parts_with(queue, limits=quick(slow=3.0))) as running:
        idle = running.connect_narrowly(told.path)
        until(lambda: running.closed(4411) == 1)
        # What it was sent fits into buffers: of 3 MB nothing is kept for it.
        assert metric(running.http, "finsight_socket_messages_total", sender="service") < 1500
        read, code, reason = rest(idle)
        assert (code, read) == (4411, told.all()[: len(read)])
        assert reason == "nothing was taken for 3 s; read faster, or ask for less"
        slow = running.connect_narrowly(told.path)
        for event in told.all():
            assert json.loads(slow.recv(timeout=5)) == event
            time.sleep(0.001)
        told.end()
        assert rest(slow)[1:] == (1000, "succeeded")


def test_a_peer_that_answers_no_ping_is_closed(queue: RedisQueue) -> None:
    with service(parts_with(queue), ping=1.0) as running:
        alive = running.connect(Told(queue).path)  # its library answers
        dead = running.raw(Told(queue).path)
        until(lambda: running.open() == 1)
        said = b""
        while more := dead.recv(4096):
            said += more
        assert b"\x03\xf3keepalive ping timeout" in said  # 1011
        time.sleep(2.5)
        assert running.open() == 1
        alive.close()
        dead.close()


def test_one_that_is_open_for_too_long(queue: RedisQueue) -> None:
    told = Told(queue)
    with service(parts_with(queue, limits=quick(age=0.5))) as running, running.connect(told.path) as client:
        assert rest(client) == (told.all(), 4410, "it was open for 0.5 s; connect again")


def test_the_end_of_the_service_is_said_and_another_goes_on(queue: RedisQueue) -> None:
    told = Told(queue).begin()
    with service(parts_with(queue)) as first, service(parts_with(queue)) as second:
        client = first.connect(told.path)
        told.log("before")
        read = [json.loads(client.recv(timeout=5)) for _ in range(3)]
        first.end()
        assert rest(client) == ([], 1012, "the service is ending; connect again")
        told.log("between")
        with second.connect(f"{told.path}?cursor={read[-1]['cursor']}") as again:
            told.end()
            events, code, _ = rest(again)
    assert code == 1000
    assert read + events == told.all()


def test_redis_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    with embedded(tmp_path / "redis") as address:
        queue = RedisQueue(address)
        told = Told(queue).begin()
        told.log("before")
        with service(parts_with(queue)) as running:
            client = running.connect(told.path)
            read = [json.loads(client.recv(timeout=5)) for _ in range(3)]
            time.sleep(0.5)
            with Redis.from_url(address) as admin:
                admin.shutdown(nosave=True)
            assert rest(client) == ([], 1013, "an outside system does not answer; connect again in a while")
            status, _, headers = running.refused(told.path)
            assert (status, headers["Retry-After"]) == (503, "5")
        queue.close()
    with embedded(tmp_path / "redis") as address:
        back = told.queue = RedisQueue(address)
        told.log("after")
        told.end()
        with service(parts_with(back)) as running, running.connect(f"{told.path}?cursor={read[-1]['cursor']}") as client:
            events, code, _ = rest(client)
        assert code == 1000
        assert read + events == told.all()
        back.close()


def test_sockets_of_one_principal_of_a_tenant_and_in_all_are_counted(queue: RedisQueue) -> None:
    path = f"/v1/ws/jobs/{queue.submit(Order(Kind.TRAIN, {}, 'acme', 'ann'))[0].id}"
    other = f"/v1/ws/jobs/{queue.submit(Order(Kind.TRAIN, {}, 'other', 'x'))[0].id}"
    with service(parts_with(queue, limits=quick(of_principal=2, of_tenant=3, at_once=4))) as running:
        opened = [running.connect(path, key) for key in ("ann:acme:viewer", "ann:acme:viewer", "bob:acme:viewer")]
        for key, says in (("ann:acme:viewer", "2 sockets of you are open"), ("cy:acme:viewer", "3 sockets of acme are open")):
            status, problem, headers = running.refused(path, key)
            assert (status, problem["type"], headers["Retry-After"]) == (429, "urn:finsight:problem:too-many-sockets", "60")
            assert problem["detail"].startswith(says)
        opened.append(running.connect(other, "dee:other:viewer"))
        assert running.refused(other, "eve:other:viewer")[0] == 503
        assert running.http.get("/v1/jobs", headers={"X-API-Key": "ann:acme:viewer"}).status_code == 200
        opened[0].close()
        until(lambda: running.open() == 3)
        opened[0] = running.connect(path, "ann:acme:viewer")
        for client in opened:
            client.close()
        assert [entry.status for entry in running.parts.rules.audit.entries] == [429, 429]  # type: ignore[attr-defined]
