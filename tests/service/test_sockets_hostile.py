"""Sockets against clients that misbehave: none holds up the others, leaves a connection open, or fills the log with its own faults."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from starlette.websockets import WebSocketDisconnect
from test_sockets_predict import PATH, SCORER, Lengths, ask, parts_around
from uvicorn.protocols.utils import ClientDisconnected

from apps import Badges, app_with
from finsight.adapters.redis_queue import RedisQueue
from finsight.domain.access import Principal
from finsight.service.access import Credentials
from finsight.service.socket_protocol import SocketProtocol
from finsight.service.sockets import SocketLimits
from serving import metric
from sockets import Service, Told, close_of, frame, handshake, parts_with, quick, rest, service, until

pytestmark = pytest.mark.timeout(120)


class Slow(Badges):
    """It takes its time for handshakes, and none of its looks at open sockets ends before it may; ``broken`` is a credential like that."""

    def __init__(self) -> None:
        self.may = threading.Event()

    def principal(self, presented: Credentials) -> Principal | None:
        time.sleep(0.3)
        if presented.key == "broken":
            raise RuntimeError("broken")
        return super().principal(presented)

    def still(self, presented: Credentials, principal: Principal) -> Principal | None:
        assert self.may.wait(30)
        return super().principal(presented)


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged as an error. uvicorn's own records go no further than its handlers, which each server sets anew."""

    def seen(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            caplog.handler.emit(record)
        return True

    caplog.set_level(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(seen)
    yield caplog
    logging.getLogger("uvicorn.error").removeFilter(seen)


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    with service(parts_with(gate=Slow())) as made:
        yield made
        until(lambda: not protocols(made))


def protocols(running: Service) -> list[SocketProtocol]:
    return [one for one in running.server.server_state.connections if isinstance(one, SocketProtocol)]


def said(client: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    found = b""
    while more := client.recv(4096):
        found += more
    return found


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ([f"X-{n}: x" for n in range(200)], 431),
        (["Authorization: Bearer " + "x" * 9000], 431),
        (["Content-Length: 5"], 400),
    ],
)
def test_a_handshake_that_is_none_is_answered_and_leaves_no_connection(shared: Service, more: list[str], status: int) -> None:
    client = socket.create_connection(("127.0.0.1", shared.port), timeout=5)
    client.sendall(handshake(PATH, "", *more))
    assert said(client).startswith(f"HTTP/1.1 {status} ".encode())
    client.close()


@pytest.mark.parametrize("path", ["/v1/ws/nothing", "/v1/jobs", "/"])
@pytest.mark.parametrize("key", [None, SCORER])
def test_where_there_is_no_socket_a_problem_document_says_so(shared: Service, path: str, key: str | None) -> None:
    status, problem, headers = shared.refused(path, key)
    assert (status, problem["detail"]) == (404, "there is no socket at this path")
    assert problem["correlation_id"] == headers["X-Request-ID"]
    assert not shared.parts.rules.audit.entries  # type: ignore[attr-defined]
    assert metric(shared.http, "finsight_requests_total", status="403") == 0


def test_what_nobody_foresaw_in_a_handshake_is_a_problem_document_and_in_the_log(shared: Service, errors: pytest.LogCaptureFixture) -> None:
    status, problem, headers = shared.refused(PATH, "broken")
    assert (status, problem["correlation_id"]) == (500, headers["X-Request-ID"])
    assert [record.getMessage() for record in errors.records] == [f"{problem['correlation_id']}: unforeseen"]


@pytest.mark.parametrize("early", [b"\x81\x05hello", frame(8, b"\x03\xe8"), frame(9, b"x")])
@pytest.mark.parametrize("key", ["", SCORER])
def test_frames_before_the_answer_to_the_handshake_wait_for_it(
    shared: Service, errors: pytest.LogCaptureFixture, early: bytes, key: str
) -> None:
    client = socket.create_connection(("127.0.0.1", shared.port), timeout=5)
    client.sendall(handshake(PATH, key))
    time.sleep(0.1)
    client.sendall(early)
    assert client.recv(4096).startswith(b"HTTP/1.1 101 " if key else b"HTTP/1.1 401 ")
    client.close()
    time.sleep(0.1)
    assert not errors.records


def test_who_is_gone_before_the_answer_to_the_handshake(shared: Service, errors: pytest.LogCaptureFixture) -> None:
    client = socket.create_connection(("127.0.0.1", shared.port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sendall(handshake(PATH, SCORER))
    time.sleep(0.1)
    client.close()
    time.sleep(0.5)
    assert not errors.records
    assert not shared.parts.sockets._open


def test_a_client_that_is_gone_before_the_answer_is_no_failure_of_the_service() -> None:
    """Of a server that notices in time: this one reads nothing before it has answered."""
    app, taken = app_with(), iter(["websocket.connect", "websocket.disconnect"])
    headers = [(b"host", b"x"), (b"x-api-key", SCORER.encode())]
    where = {"path": PATH, "raw_path": PATH.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1)}

    async def receive() -> dict[str, Any]:
        return {"type": next(taken), "code": 1006}

    async def send(message: object) -> None:
        raise ClientDisconnected

    with suppress(ClientDisconnected, WebSocketDisconnect):
        asyncio.run(app({"type": "websocket", "scheme": "ws", "subprotocols": [], "headers": headers, **where}, receive, send))
    meters = app.state.parts.meters.registry
    counted = {s.labels["status"]: s.value for m in meters.collect() for s in m.samples if s.name == "finsight_requests_total"}
    assert counted == {"499": 1}
    assert meters.get_sample_value("finsight_clients_gone_total") == 1


@pytest.mark.parametrize("opcode", [9, 10])
def test_pings_and_pongs_without_end_end_the_socket(shared: Service, opcode: int) -> None:
    client = shared.raw(PATH, SCORER)
    client.sendall(frame(opcode, b"") * 100)
    with pytest.raises(TimeoutError):
        client.settimeout(0.3)
        while client.recv(4096):
            pass
    client.settimeout(10)
    client.sendall(frame(opcode, b"") * 1000)
    assert close_of(said(client)) == 1008
    client.close()


@pytest.mark.long
def test_what_is_read_is_unpacked_when_it_is_its_turn() -> None:
    model = Lengths()
    model.gate.clear()
    with service(parts_around(model)) as running:
        client = running.raw(PATH, SCORER)
        client.sendall(frame(1, ask(1, "x").encode()) * 1500)
        until(lambda: metric(running.http, "finsight_texts_waiting") > 20)
        (waiting,) = [one.queue.qsize() for one in protocols(running)]
        assert waiting < 200  # 4 KiB; all of them were read at once
        model.gate.set()
        answers = b""
        while answers.count(b'"prediction"') < 1500:
            answers += client.recv(1 << 20)
        client.close()


@pytest.mark.long
def test_a_peer_whose_pong_stands_behind_its_messages_is_none_that_is_gone() -> None:
    model = Lengths()
    model.gate.clear()
    with service(parts_around(model), ping=0.3) as running, running.connect(PATH, SCORER) as client:
        for n in range(100):
            client.send(ask(n, f"text {n}"))
        time.sleep(1)
        model.gate.set()
        assert [json.loads(client.recv(timeout=10))["id"] for n in range(100)] == list(range(100))
        time.sleep(0.8)
        assert running.open() == 1


@pytest.mark.parametrize(("breach", "code"), [(b"\x81\x05hello", 1002), (frame(1, b"\xff"), 1007)])
def test_a_breach_behind_a_message_is_no_error_of_the_service(errors: pytest.LogCaptureFixture, breach: bytes, code: int) -> None:
    model = Lengths()
    model.gate.clear()
    with service(parts_around(model)) as running:
        client = running.raw(PATH, SCORER)
        client.sendall(frame(1, ask(1, "x").encode()))
        until(lambda: metric(running.http, "finsight_lanes_busy") == 1)
        client.sendall(breach)
        assert close_of(client.recv(4096)) == code
        model.gate.set()
        until(lambda: running.closed(code) == 1)
        client.close()
    assert not errors.records


def test_a_peer_that_goes_on_sending_does_not_put_off_the_end() -> None:
    model = Lengths()
    model.gate.clear()
    with service(parts_around(model)) as running, running.connect(PATH, SCORER) as client:
        for n in range(500):
            client.send(ask(n, f"text {n}"))
        until(lambda: metric(running.http, "finsight_texts_waiting") > 20)
        running.end()
        until(running.parts.sockets.ending.is_set)
        model.gate.set()
        answers, code, _ = rest(client)
    assert [answer["id"] for answer in answers] == list(range(len(answers)))
    assert 20 < len(answers) <= 40
    assert code == 1012


@pytest.mark.long
def test_looks_that_nobody_answers_take_no_threads_of_requests() -> None:
    gate = Slow()
    with service(parts_with(gate=gate, limits=quick(of_principal=50))) as running:
        opening = [threading.Thread(target=lambda: clients.append(running.connect(PATH, SCORER))) for _ in range(45)]
        clients: list[object] = []
        for thread in opening:
            thread.start()
        for thread in opening:
            thread.join()
        time.sleep(0.6)  # each is being looked at
        began = time.monotonic()
        assert running.http.get("/v1/me", headers={"X-API-Key": SCORER}).status_code == 200
        assert time.monotonic() - began < 5
        gate.may.set()
        for client in clients:
            client.close()  # type: ignore[attr-defined]


@pytest.mark.long
def test_a_queue_that_does_not_answer_followers_takes_no_threads_of_requests(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, may = RedisQueue(redis_url), threading.Event()
    told, events = Told(queue), queue.events

    def late(*asked: Any) -> Any:
        assert may.wait(60)
        return events(*asked)

    monkeypatch.setattr(queue, "events", late)
    with service(parts_with(queue, limits=SocketLimits(of_principal=50))) as running:
        clients = [running.connect(told.path) for _ in range(45)]
        time.sleep(0.3)
        began = time.monotonic()
        assert running.http.get("/v1/me", headers={"X-API-Key": SCORER}).status_code == 200
        assert time.monotonic() - began < 5
        may.set()
        assert {json.loads(client.recv(timeout=10))["state"] for client in clients} == {"queued"}
        queue.cancel(told.job.id)
        assert {rest(client)[1] for client in clients} == {1000}
    queue.close()


def test_a_number_that_json_does_not_know_is_null(redis_url: str) -> None:
    queue = RedisQueue(redis_url)
    told = Told(queue).begin()
    told.say({"type": "metrics", "metrics": {"loss": float("nan"), "best": float("inf")}})
    with service(parts_with(queue)) as running, running.connect(told.path) as client:
        found = [client.recv(timeout=5) for _ in range(3)]
        logged = running.http.get(f"/v1/jobs/{told.job.id}/log?format=jsonl", headers={"X-API-Key": "ann:acme:trainer"}).text
    assert str(found[2]).endswith('"metrics":{"loss":null,"best":null}}')
    assert logged.splitlines() == found
    queue.close()


def test_whoever_comes_back_too_late_is_told_what_is_gone(redis_url: str) -> None:
    queue = RedisQueue(redis_url, said=2000)
    told = Told(queue).begin()
    cursor = told.all()[-1]["cursor"]
    told.log(*(f"line {n} {'x' * 100}" for n in range(100)))
    told.end()
    with service(parts_with(queue)) as running, running.connect(f"{told.path}?cursor={cursor}") as client:
        events, code, _ = rest(client)
        assert (code, events) == (1000, told.all())
        assert "events before this one are no longer kept" in events[0]["line"]
        with running.connect(f"{told.path}?cursor={events[0]['cursor']}") as again:
            assert rest(again)[0] == events[1:]
    queue.close()
