"""The socket of predictions: answers in order, as many at a time as may be, and each way that it ends."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed

from apps import Undecided
from finsight.pipeline.predict import Model
from finsight.service.batching import Limits
from finsight.service.meters import Meters
from finsight.service.predictions import Predictions, Served
from serving import metric
from sockets import Service, close_of, drop, frame, parts_with, quick, rest, service, until

PATH = "/v1/ws/predict"
SCORER = "ann:acme:scorer"
pytestmark = pytest.mark.timeout(120)


class Lengths(Undecided):
    """Its logits say how long a text is; it is held up while ``gate`` is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        assert self.gate.wait(30)
        self.asked += len(texts)
        if any("broken" in text for text in texts):
            raise ValueError("broken")
        return np.array([[len(text) / 100, 0, 0] for text in texts], dtype=np.float32)


def parts_around(model: Lengths, limits: Limits = Limits(), **given: Any) -> Any:  # noqa: B008
    meters = Meters()
    found = Predictions(Served(Model(model, {}, None, "fake"), "0" * 64), meters, limits)
    return parts_with(predictions=found, meters=meters, running=(found.running,), **given)


@pytest.fixture
def model() -> Iterator[Lengths]:
    made = Lengths()
    yield made
    made.gate.set()


@pytest.fixture
def running(model: Lengths) -> Iterator[Service]:
    with service(parts_around(model)) as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    """One for tests that leave nothing behind."""
    with service(parts_around(Lengths())) as made:
        yield made
        assert not made.parts.sockets._open


def ask(name: object, text: str, **options: Any) -> str:
    return json.dumps({"id": name, "text": text, **options})


def test_answers_come_in_order_and_are_those_of_the_route(running: Service) -> None:
    texts = [f"{'Profit rose ' * (n % 7 + 1)}{n}" for n in range(200)]
    posted = running.http.post("/v1/predict", json={"texts": texts}, headers={"X-API-Key": SCORER}).json()
    with running.connect(PATH, SCORER) as client:
        sender = threading.Thread(target=lambda: [client.send(ask(n, text)) for n, text in enumerate(texts)])
        sender.start()
        answers = [json.loads(client.recv(timeout=10)) for _ in texts]
        sender.join()
        client.close()
    assert [answer["id"] for answer in answers] == list(range(200))
    assert [answer["prediction"] for answer in answers] == posted["predictions"]
    assert all(answer["model"] == posted["model"] for answer in answers)
    until(lambda: running.closed(1000) == 1)
    assert metric(running.http, "finsight_socket_messages_total", sender="client", route=PATH) == 200


def test_options_are_those_of_the_route(shared: Service) -> None:
    options = {"probabilities": False, "explain": True, "abstain": True}
    posted = shared.http.post("/v1/predict", json={"texts": ["Profit rose"], **options}, headers={"X-API-Key": SCORER}).json()
    with shared.connect(PATH, SCORER) as client:
        for n in range(8):  # more explanations than may wait: those of one socket wait for each other
            client.send(ask(f"n{n}", "Profit rose", **options))
        answers = [json.loads(client.recv(timeout=10)) for _ in range(8)]
    assert [answer["id"] for answer in answers] == [f"n{n}" for n in range(8)]
    assert {json.dumps(answer["prediction"]) for answer in answers} == {json.dumps(posted["predictions"][0])}
    assert [word["text"] for word in answers[0]["prediction"]["words"]] == ["Profit", "rose"]
    assert set(answers[0]["prediction"]) == {"label", "score", "sure", "words"}


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"text": "x" * 10_001}, "text: String should have at most 10000 characters"),
        ({"text": " "}, "text: "),
        ({"text": 1}, "text: "),
        ({}, "text: Field required"),
        ({"text": "x", "explain": "no idea"}, "explain: "),
        ({"text": "x", "abstain": "yes"}, "abstain: "),
        ({"text": "x", "probabilities": 1}, "probabilities: "),
        ({"text": "x", "path": "/etc/passwd"}, "path: Extra inputs are not permitted"),
        ({"text": "\ud800"}, "text: "),
    ],
)
def test_what_is_wrong_with_a_message_is_answered_by_its_id(shared: Service, message: dict[str, Any], says: str) -> None:
    with shared.connect(PATH, SCORER) as client:
        assert client.response
        client.send(ask("before", "Profit rose"))
        client.send(json.dumps({"id": 7, **message}))
        client.send(ask("after", "Profit fell"))
        before, wrong, after = (json.loads(client.recv(timeout=10)) for _ in range(3))
        assert wrong["id"] == 7
        error = wrong["error"]
        assert (error["status"], error["type"]) == (422, "urn:finsight:problem:invalid-request")
        assert error["detail"].startswith(says)
        assert error["correlation_id"] == client.response.headers["X-Request-ID"]
        assert [before["id"], after["id"]] == ["before", "after"]
        assert "prediction" in before
        assert "prediction" in after


@pytest.mark.parametrize(
    "message",
    [
        "hello",
        "[]",
        "null",
        '{"text": "x"}',
        '{"id": null, "text": "x"}',
        '{"id": true, "text": "x"}',
        '{"id": 1.5, "text": "x"}',
        '{"id": -1, "text": "x"}',
        '{"id": "", "text": "x"}',
        '{"id": "\\ud800", "text": "x"}',
        json.dumps({"id": "x" * 65, "text": "x"}),
        '{"id": ' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"id": 1, "text": "x"',
    ],
)
def test_what_can_not_be_answered_ends_the_socket_after_the_answers_before_it(shared: Service, message: str) -> None:
    with shared.connect(PATH, SCORER) as client:
        client.send(ask("before", "Profit rose"))
        client.send(message)
        answers, code, reason = rest(client)
    assert [answer["id"] for answer in answers] == ["before"]
    assert (code, reason[:27]) == (4400, "a message is a JSON object ")


def test_a_binary_frame(shared: Service) -> None:
    with shared.connect(PATH, SCORER) as client:
        client.send(ask(1, "x").encode())
        assert rest(client) == ([], 1003, "a binary frame came; send text")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ([frame(1, b"x" * 200_000)], 1009),
        ([frame(1, b"x" * 100_000, fin=False), frame(0, b"x" * 100_000)], 1009),
        ([bytes([0x81, 0xFF]) + struct.pack("!Q", 2**40) + bytes(4)], 1009),
        ([frame(1, b"", fin=False), *[frame(0, b"", fin=False)] * 1000], 1008),
        ([frame(1, b"\xff\xfe")], 1007),
        ([bytes([0x81, 5]) + b"hello"], 1002),  # not masked
        ([frame(1, b"x", fin=False), frame(1, b"x")], 1002),
        ([frame(0x71, b"x")], 1002),  # compressed, which nobody agreed on
        ([frame(0, b"x")], 1002),
    ],
)
def test_what_breaks_the_protocol(shared: Service, sent: list[bytes], code: int) -> None:
    before = shared.closed(code)
    client = shared.raw(PATH, SCORER)
    client.sendall(b"".join(sent))
    said = b""
    while more := client.recv(4096):
        said += more
    assert close_of(said) == code
    client.close()
    until(lambda: shared.closed(code) > before)
    until(lambda: shared.open() == 0)
    assert not shared.parts.sockets._open


def test_no_compression_is_agreed_on(shared: Service) -> None:
    with shared.connect(PATH, SCORER, compression="deflate") as client:
        assert client.response
        assert "Sec-WebSocket-Extensions" not in client.response.headers


def test_no_more_is_read_while_as_many_are_in_flight_as_may(running: Service, model: Lengths) -> None:
    model.gate.clear()
    with running.connect_narrowly(PATH, SCORER) as client:
        sender = threading.Thread(target=lambda: [client.send(ask(n, f"text {n} {'x' * 5000}")) for n in range(600)])
        sender.start()
        time.sleep(1.5)
        taken = metric(running.http, "finsight_socket_messages_total", sender="client")
        assert taken <= running.parts.sockets.limits.in_flight
        assert sender.is_alive()  # 3 MB do not fit into buffers: it is held up
        assert metric(running.http, "finsight_texts_waiting") <= running.parts.sockets.limits.in_flight
        model.gate.set()
        found = [json.loads(client.recv(timeout=10))["id"] for _ in range(600)]
        sender.join()
    assert found == list(range(600))


def test_who_does_not_read_is_closed(model: Lengths) -> None:
    with service(parts_around(model)) as running:
        running.parts.sockets.limits = quick(slow=1.0)
        client = running.connect_narrowly(PATH, SCORER)

        def send() -> None:
            try:
                while True:
                    client.send(ask("x" * 60, "text"))
            except ConnectionClosed:
                pass

        sender = threading.Thread(target=send)
        sender.start()
        until(lambda: running.closed(4411) == 1, 60)
        until(lambda: not running.parts.sockets._open)
        sender.join(10)  # with what it had sent unread, the connection is reset
        assert not sender.is_alive()


def test_a_peer_that_answers_no_ping_is_closed_whatever_it_does_not_read(model: Lengths) -> None:
    with service(parts_around(model), ping=0.4) as running:
        dead = running.raw(PATH, SCORER)
        until(lambda: running.closed(1011) + running.closed(1005) == 1)
        assert close_of(dead.recv(4096)) == 1011
        assert not running.parts.sockets._open
        dead.close()


def test_pings_whose_answers_nobody_takes_do_not_pile_up(running: Service) -> None:
    client = running.raw(PATH, SCORER)
    with pytest.raises((ConnectionError, TimeoutError)):
        while True:
            client.sendall(frame(9, b"x" * 125) * 1000)
    client.close()
    until(lambda: running.open() == 0)


def test_messages_beyond_the_limit_are_answered_so_and_end_the_socket_in_the_end(model: Lengths) -> None:
    with service(parts_around(model, allowance="predict=6/minute")) as running:
        running.parts.sockets.limits = quick(refused=10)
        with running.connect(PATH, SCORER) as client:  # the handshake is one
            for n in range(16):
                client.send(ask(n, "Profit rose"))
            answers, code, reason = rest(client)
        assert ["prediction" in answer for answer in answers] == [True] * 5 + [False] * 10
        error = answers[-1]["error"]
        assert (error["status"], error["type"]) == (429, "urn:finsight:problem:too-many-requests")
        assert 0 < error["retry_after"] <= 60
        assert code == 4429
        assert reason.startswith("no more than 6 messages; wait ")
        assert running.refused(PATH, SCORER)[0] == 429
        found = [(entry.status, entry.action, entry.who) for entry in running.parts.rules.audit.entries]
        assert found == [(429, "predict", "ann")]  # the second is like the first
        assert model.asked == 5


def test_a_service_with_too_much_to_do_says_so_for_the_message(model: Lengths) -> None:
    parts = parts_around(model, limits=Limits(lanes=1, texts=1, waiting=2, patience=0.0))
    with service(parts) as running, running.connect(PATH, SCORER) as client:
        client.send(ask("warm", "x"))
        client.recv(timeout=10)
        model.gate.clear()
        for n in range(12):
            client.send(ask(n, f"x{n}"))
        until(lambda: metric(running.http, "finsight_predictions_refused_total") > 0)
        model.gate.set()
        answers = [json.loads(client.recv(timeout=10)) for _ in range(12)]
    assert [answer["id"] for answer in answers] == list(range(12))
    errors = [answer["error"] for answer in answers if "error" in answer]
    assert {(error["status"], error["type"]) for error in errors} == {(503, "urn:finsight:problem:busy")}
    assert all(error["retry_after"] >= 1 for error in errors)
    assert "prediction" in answers[0]


def test_one_that_says_nothing_is_closed(model: Lengths) -> None:
    with service(parts_around(model)) as running:
        running.parts.sockets.limits = quick(idle=1.5)
        with running.connect(PATH, SCORER) as client:
            for n in range(4):
                time.sleep(0.5)
                client.send(ask(n, "x"))
                client.recv(timeout=5)
            assert rest(client) == ([], 4408, "no message came for 1.5 s; connect again when there is one")


def test_the_end_of_the_service_comes_after_the_answers_that_it_owes(running: Service, model: Lengths) -> None:
    model.gate.clear()
    with running.connect(PATH, SCORER) as client:
        for n in range(10):
            client.send(ask(n, f"x{n}"))
        until(lambda: metric(running.http, "finsight_socket_messages_total", sender="client") == 10)
        running.end()
        until(running.parts.sockets.ending.is_set)
        client.send(ask(10, "too late"))
        model.gate.set()
        answers, code, reason = rest(client)
    assert [answer["id"] for answer in answers] == list(range(10))
    assert (code, reason) == (1012, "the service is ending; connect again")


def test_what_goes_wrong_inside_says_no_more_than_that(shared: Service) -> None:
    with shared.connect(PATH, SCORER) as client:
        client.send(ask(1, "broken"))
        found = rest(client)
    assert found == ([], 1011, "something unforeseen went wrong; the log says what, under the correlation id")


def test_what_nobody_waits_for_any_more_is_not_computed(running: Service, model: Lengths) -> None:
    model.gate.clear()
    client = running.connect(PATH, SCORER)
    for n in range(30):
        client.send(ask(n, f"x{n}"))
    until(lambda: metric(running.http, "finsight_texts_waiting") > 20)
    drop(client)
    until(lambda: metric(running.http, "finsight_texts_waiting") == 0)
    assert not running.parts.sockets._open
    model.gate.set()


@pytest.mark.parametrize(("key", "status"), [(None, 401), ("ann:acme:viewer", 403), ("ann:acme:scorer:jobs.read", 403)])
def test_who_may_not_predict_opens_none(shared: Service, key: str | None, status: int) -> None:
    assert shared.refused(PATH, key)[0] == status
