"""Limits over HTTP: how often, how much, how many at once; and what goes on while Redis is away."""

import http.client
import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, Request
from redis import Redis

from apps import app_with, rules, served
from finsight.adapters.redis_audit import RedisAuditLog
from finsight.adapters.redis_server import embedded
from finsight.adapters.windows import SlidingWindows, amounts
from finsight.service.access import anybody, may
from finsight.service.rules import Limits

ANN = {"X-API-Key": "ann:acme:admin"}
BOB = {"X-API-Key": "bob:acme:admin"}


def document(answer: httpx.Response, status: int) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    content: dict[str, object] = answer.json()
    assert content["status"] == status
    assert content["correlation_id"] == answer.headers["X-Request-ID"]
    return content


def test_whoever_asks_too_often_is_told_when_to_come_back() -> None:
    with served(app_with(held_to=rules("*=3/day"))) as client:
        answers = [client.get("/v1/audit", headers=ANN) for _ in range(4)]
        assert [one.status_code for one in answers] == [200, 200, 200, 429]
        assert [one.headers["RateLimit-Remaining"] for one in answers] == ["2", "1", "0", "0"]
        assert {one.headers["RateLimit-Limit"] for one in answers} == {"3"}
        refused = answers[3]
        assert document(refused, 429)["type"] == "urn:finsight:problem:too-many-requests"
        assert 1 <= int(refused.headers["Retry-After"]) <= 86_400
        assert refused.headers["Retry-After"] == refused.headers["RateLimit-Reset"]
        assert client.get("/v1/audit", headers=BOB).status_code == 200
        assert client.post("/v1/predict", headers=ANN, json={}).status_code == 422  # let in


def test_wrong_credentials_are_counted_by_address_whatever_headers_say() -> None:
    with served(app_with(held_to=rules("unknown=3/day"))) as client:
        codes = [client.get("/v1/audit", headers={"X-API-Key": str(i), "X-Forwarded-For": f"192.0.2.{i}"}).status_code for i in range(5)]
        assert codes == [401, 401, 401, 429, 429]
        assert client.get("/v1/audit", headers=ANN).status_code == 200
        assert [client.get("/livez").status_code for _ in range(10)] == [200] * 10


def test_a_route_for_strangers_can_be_counted_too() -> None:
    app = app_with(held_to=rules("auth.token=2/day"))
    app.add_api_route("/token", lambda: "x", methods=["POST"], dependencies=[anybody("auth.token")])
    with served(app) as client:
        assert [client.post("/token").status_code for _ in range(3)] == [200, 200, 429]
    assert [(one.action, one.outcome, one.address) for one in app.state.parts.rules.audit.entries] == [
        ("auth.token", "done", "127.0.0.1"),
        ("auth.token", "done", "127.0.0.1"),
        ("auth.token", "refused", "127.0.0.1"),
    ]


@pytest.fixture(scope="module")
def small() -> Iterator[httpx.Client]:
    app = app_with(held_to=rules("*=10000/second", max_body=1000))

    @app.post("/echo", dependencies=[may("jobs.cancel")])
    async def echo(request: Request) -> int:
        return len(await request.body())

    with served(app) as client:
        yield client


def test_a_body_up_to_the_limit_is_taken(small: httpx.Client) -> None:
    assert small.post("/echo", content=b"x" * 1000, headers=ANN).json() == 1000
    assert small.post("/echo", content=iter([b"x" * 500] * 2), headers=ANN).json() == 1000


@pytest.mark.parametrize("path", ["/echo", "/v1/predict", "/nothing"])
def test_a_larger_body_is_refused_before_it_is_sent(small: httpx.Client, path: str) -> None:
    connection = http.client.HTTPConnection(small.base_url.host, small.base_url.port, timeout=10)
    connection.putrequest("POST", path)
    connection.putheader("Content-Length", "1001")
    connection.endheaders()
    answer = connection.getresponse()  # no byte of it was sent
    assert answer.status == 413
    assert json.load(answer)["type"] == "urn:finsight:problem:too-large"
    connection.close()


@pytest.mark.parametrize("path", ["/echo", "/v1/predict"])
def test_a_body_in_chunks_is_refused_as_soon_as_it_is_too_large(small: httpx.Client, path: str) -> None:
    sent = 0

    def long() -> Iterator[bytes]:
        nonlocal sent
        for sent in range(1, 20_000):
            yield b'{"' if sent == 1 else b"x" * 100

    try:
        answer = small.post(path, content=long(), headers=ANN)
    except (httpx.WriteError, httpx.ReadError):
        pass  # the service has hung up while it was being sent to
    else:
        document(answer, 413)
    assert 10 < sent < 19_999
    document(small.post(path, content=iter([b'{"', b"x" * 2000]), headers=ANN), 413)


def test_more_requests_at_once_are_sent_away_and_health_is_not() -> None:
    held, entered = threading.Event(), threading.Semaphore(0)
    app = app_with(held_to=rules(max_at_once=2))
    router = APIRouter(dependencies=[may("me.read")])

    @router.get("/slow")
    def slow() -> str:
        entered.release()
        held.wait(20)
        return "done"

    app.include_router(router)
    with served(app) as client, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.get, "/slow", headers=ANN) for _ in range(2)]
        for _ in waiting:
            assert entered.acquire(timeout=20)
        try:
            refused = client.get("/v1/audit", headers=ANN)
            assert document(refused, 503)["type"] == "urn:finsight:problem:busy"
            assert refused.headers["Retry-After"] == "1"
            assert client.get("/readyz").status_code == 200
        finally:
            held.set()
        assert [one.result().status_code for one in waiting] == [200, 200]
        assert client.get("/v1/audit", headers=ANN).status_code == 200


def test_while_redis_is_away_predictions_go_on_and_nothing_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    done = []
    with embedded(tmp_path / "redis") as address, Redis.from_url(address, socket_timeout=1) as client:
        counted = amounts("predict=4/day")
        app = app_with(held_to=rules(limits=Limits(SlidingWindows(counted, client), SlidingWindows(counted)), audit=RedisAuditLog(client)))
        app.add_api_route("/change", lambda: done.append(1), methods=["POST"], dependencies=[may("keys.create")])
        with served(app) as http:
            assert http.post("/change", headers=ANN).status_code == 200
            assert http.post("/v1/predict", headers=ANN, json={}).headers["RateLimit-Remaining"] == "3"
            os.kill(client.info()["process_id"], signal.SIGKILL)
            caplog.clear()
            refused = http.post("/change", headers=ANN)
            assert "audit log can't be reached" in str(document(refused, 503)["detail"])
            assert int(refused.headers["Retry-After"]) > 0
            assert done == [1]
            answers = [http.post("/v1/predict", headers=ANN, json={}) for _ in range(5)]
            assert [one.status_code for one in answers] == [422] * 4 + [429]  # let in as often as the replica's own window allows
            assert http.post("/v1/predict", headers={"X-API-Key": "x"}).status_code == 401
    said = [record.getMessage() for record in caplog.records if "each replica counts for itself" in record.getMessage()]
    assert len(said) == 1
    assert [record.levelno for record in caplog.records if "not recorded" in record.getMessage()] == [logging.ERROR] * 2
