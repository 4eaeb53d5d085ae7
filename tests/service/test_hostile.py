"""What a client may send that means the service no good: slowly, in great number, in odd shapes; over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Response, WebSocket
from websockets.sync.client import connect

from apps import app_with, rules, served
from finsight.service import caps, wire
from finsight.service.access import anybody, may
from finsight.service.caps import ANYBODYS

ADMIN = {"X-API-Key": "root:acme:admin"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    found = app_with(held_to=rules("*=10000/second; unknown=10000/second", max_at_once=4))

    def broken() -> None:
        raise RuntimeError("a secret")

    large = b"x" * 10_000_000  # more than the system keeps for a connection
    found.add_api_route("/large", lambda: Response(large), dependencies=[anybody()])
    found.add_api_route("/broken", broken, methods=["GET", "POST"], dependencies=[may("keys.create")])
    return found


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[httpx.Client]:
    with served(app) as opened:
        yield opened


@contextmanager
def connected(client: httpx.Client, said: bytes) -> Iterator[socket.socket]:
    """A connection on which something was said."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), 20) as opened:
        opened.sendall(said)
        yield opened


def answer_on(opened: socket.socket, last: bytes = b"") -> bytes:
    """All that comes until the service ends the connection, or until something comes last."""
    found = b""
    while not (last and found.endswith(last)) and (piece := opened.recv(65536)):
        found += piece
    return found


def test_a_path_with_a_slash_too_many_is_not_redirected_nor_recorded_as_done(app: FastAPI, client: httpx.Client) -> None:
    log = app.state.parts.rules.audit
    before = len(log.entries)
    for path in ("/v1/keys/", "/v1/predict/"):
        answer = client.post(path, headers={"Host": "evil.example"})
        assert (answer.status_code, "Location" in answer.headers) == (404, False)
    assert len(log.entries) == before


def test_an_error_that_nobody_foresaw_has_the_headers_of_every_answer(app: FastAPI, client: httpx.Client) -> None:
    for method in ("GET", "POST"):
        answer = client.request(method, "/broken", headers={**ADMIN, "X-Request-ID": "mine-0001"})
        assert answer.status_code == 500
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Request-ID"] == answer.json()["correlation_id"] == "mine-0001"
        assert "secret" not in answer.text
        assert client.get("/livez").status_code == 200  # on the same connection
    assert app.state.parts.rules.audit.entries[-1].outcome == "failed"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_read_of_those_alone_who_are_known(client: httpx.Client, chunked: bool) -> None:
    body = b'{"texts": ["' + b"x" * 9000 + b'"' + b', "x"' * 255 + b"]" + b" " * 30 * ANYBODYS + b"}"
    pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]

    def sent(headers: dict[str, str]) -> httpx.Response:
        return client.post("/v1/predict", content=iter(pieces) if chunked else body, headers={**headers, **JSON})

    assert sent(ADMIN).status_code == 200
    for headers in ({}, {"X-API-Key": "nobody's"}):
        refused = sent(headers)
        assert refused.status_code == 401
        assert refused.headers["Connection"] == "close"
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    small = client.post("/v1/predict", json={"texts": ["x" * 9000] * 6})
    assert (small.status_code, small.headers.get("Connection")) == (401, None)


def test_a_large_body_of_a_stranger_is_refused_before_it_is_sent(client: httpx.Client) -> None:
    head = f"POST /v1/keys HTTP/1.1\r\nHost: x\r\nContent-Length: {ANYBODYS + 1}\r\n\r\n"
    with connected(client, head.encode()) as opened:
        assert answer_on(opened).startswith(b"HTTP/1.1 401 ")


def test_who_sends_a_body_slowly_takes_no_place_and_is_sent_away(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caps, "PATIENCE", 1.5)
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    slow = [socket.create_connection((client.base_url.host, client.base_url.port or 0), 20) for _ in range(8)]
    for one in slow:
        one.sendall(head)
    time.sleep(0.3)
    assert client.get("/v1/me", headers=ADMIN).status_code == 200  # with four places for eight
    for one in slow:
        answer = answer_on(one)
        one.close()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "urn:finsight:problem:too-slow"


def test_a_large_body_has_longer_as_long_as_it_comes(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caps, "PATIENCE", 0.5)
    monkeypatch.setattr(caps, "SLOWEST", 100_000)
    piece = b" " * 100_000

    def slowly() -> Iterator[bytes]:
        yield b'{"texts": ["x"]'
        for _ in range(3):
            yield piece
            time.sleep(0.4)
        yield b"}"

    assert client.post("/v1/predict", content=slowly(), headers={**ADMIN, **JSON}).status_code == 200


@pytest.mark.parametrize("said", [b"", b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_who_connects_and_does_not_say_what_for_is_hung_up_on(client: httpx.Client, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(wire, "HEAD", 0.5)
    began = time.monotonic()
    with connected(client, said) as opened:
        assert answer_on(opened) == b""
    assert 0.4 < time.monotonic() - began < 5
    whole = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(client, whole) as opened:
        assert b"alive" in answer_on(opened, b"}")
        time.sleep(0.7)  # idle after an answer: uvicorn's own time counts
        opened.sendall(whole)
        assert b"alive" in answer_on(opened, b"}")
        opened.sendall(whole[:9])
        assert answer_on(opened) == b""


def test_a_socket_and_a_slow_answer_are_not_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD", 0.3)
    app = app_with(held_to=rules())

    async def echo(opened: WebSocket) -> None:
        await opened.accept()
        await opened.send_text(await opened.receive_text())

    app.add_api_websocket_route("/echo", echo)
    app.add_api_route("/slow", lambda: time.sleep(0.8), dependencies=[anybody()])
    with served(app) as client:
        host = f"{client.base_url.host}:{client.base_url.port}"
        with connect(f"ws://{host}/echo") as opened:
            time.sleep(0.8)
            opened.send("still there")
            assert opened.recv(10) == "still there"
        two = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost"  # the second not whole
        with connected(client, two) as opened_twice:
            assert b"null" in answer_on(opened_twice, b"null")
            opened_twice.sendall(b": x\r\n\r\n")
            assert b"alive" in answer_on(opened_twice, b"}")


def test_a_head_has_an_end(client: httpx.Client) -> None:
    for more in (b"X: " + b"y" * wire.LARGEST, b"".join(b"X-%d: y\r\n" % n for n in range(7000))):
        with connected(client, b"GET /livez HTTP/1.1\r\nHost: x\r\n" + more) as opened:
            assert answer_on(opened).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("more", [b"X: " + b"y" * 4000 + b"\r\n", b"y" * 4000])
@pytest.mark.parametrize("begun", [b"0\r\n", b"0\r\nX: ", b"1;"])
def test_trailers_have_an_end_and_so_have_the_notes_of_a_chunk(client: httpx.Client, begun: bytes, more: bytes) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(client, head + begun) as opened, contextlib.suppress(OSError):
        for _ in range(200 * wire.LARGEST // len(more)):
            opened.sendall(more)
        pytest.fail("all of it was taken")


def test_a_trailer_is_no_header(client: httpx.Client) -> None:
    head = b"GET /v1/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(client, head + b"0\r\nX-API-Key: root:acme:admin\r\n\r\n") as opened:
        assert answer_on(opened).startswith(b"HTTP/1.1 401 ")


def test_who_takes_no_answer_keeps_nobody_else_out(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "TAKING", 2.0)
    end = time.monotonic() + 60
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            slow = stack.enter_context(socket.socket())
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect((client.base_url.host, client.base_url.port))
            slow.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        while client.get("/v1/me", headers=ADMIN).status_code == 200:
            assert time.monotonic() < end, "the places were never taken"
        while client.get("/v1/me", headers=ADMIN).status_code == 503:
            assert time.monotonic() < end, "they are never free again"


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 2\r\nContent-Length: 3",
        b"Content-Length: -2",
        b"Content-Length: 2x",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: chunked, identity",
        b"Content-Length : 2",
    ],
)
def test_a_request_that_two_servers_could_read_in_two_ways_is_refused(client: httpx.Client, framing: bytes) -> None:
    said = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n{}GET /v1/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(client, said) as opened:
        answer = answer_on(opened)
    assert answer.split(b" ")[1] in (b"400", b"501")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("body", [b"[" * 60_000, b'{"texts": [' + b"9" * 5000 + b"]}", b'{"texts": ["\xff"]}', b'{"texts": ["\\ud800"]}'])
def test_json_of_odd_shapes_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v1/predict", content=body, headers={**ADMIN, **JSON})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_what_was_begun_when_the_service_ended_is_recorded(app: FastAPI) -> None:
    own = app_with(held_to=rules())
    entered, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        go_on.wait(20)

    own.add_api_route("/slow", slow, methods=["POST"], dependencies=[may("keys.create")])
    server = uvicorn.Server(uvicorn.Config(own, port=0, log_level="critical", timeout_graceful_shutdown=1))
    running = threading.Thread(target=lambda: asyncio.run(server.serve()))
    running.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    asking = threading.Thread(target=lambda: _asked(f"http://127.0.0.1:{port}/slow"))
    asking.start()
    try:
        assert entered.wait(20)
        server.should_exit = True
        time.sleep(1.5)
    finally:
        go_on.set()
        running.join(20)
        asking.join(20)
    assert [(one.who, one.action, one.outcome) for one in own.state.parts.rules.audit.entries] == [("root", "keys.create", "failed")]


def _asked(url: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(url, headers=ADMIN)
