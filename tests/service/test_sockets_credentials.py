"""Who opens a socket, and what becomes of an open one whose credential ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis

from finsight.adapters.redis_queue import RedisQueue
from finsight.adapters.redis_server import embedded
from finsight.domain.access import Principal
from finsight.service import open_socket
from finsight.service.entrance import entrance, house_rules
from finsight.service.parts import Parts
from finsight.service.plain_gates import OneKey, OpenGate
from finsight.service.policy_file import DEFAULT, PolicyFile
from finsight.settings import Settings
from sockets import Service, Told, parts_with, quick, rest, rules, service, until

ADMIN = "the-admins-own-key-for-tests"
PREDICT = "/v1/ws/predict"
TEXT = json.dumps({"id": 1, "text": "Profit rose"})
pytestmark = pytest.mark.timeout(120)


def guarded(redis: str, queue: RedisQueue | None = None, **given: Any) -> Parts:
    """Parts with the service's own gate and makers of credentials."""
    chosen = Settings(api_key=SecretStr(ADMIN))
    gate, own, _ = entrance(chosen, "127.0.0.1", redis)
    return parts_with(queue, gate=gate, own=own, **{"rules": house_rules(chosen, redis), "limits": quick(), **given})


@pytest.fixture
def running(redis_url: str) -> Iterator[Service]:
    queue = RedisQueue(redis_url)
    with service(guarded(redis_url, queue)) as made:
        yield made
    queue.close()


def make(running: Service, **asked: Any) -> dict[str, Any]:
    answer = running.http.post("/v1/keys", json={"name": "a key", "roles": ["trainer"], **asked}, headers={"X-API-Key": ADMIN})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def revoke(running: Service, key: dict[str, Any]) -> None:
    assert running.http.delete(f"/v1/keys/{key['id']}", headers={"X-API-Key": ADMIN}).status_code < 300


def ticket(running: Service, **headers: str) -> str:
    answer = running.http.post("/v1/auth/ticket", headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["ticket"])


def token(running: Service, key: dict[str, Any]) -> str:
    form = {"grant_type": "client_credentials", "client_id": key["id"], "client_secret": key["client_secret"]}
    return str(running.http.post("/v1/auth/token", data=form).json()["access_token"])


def test_a_key_a_token_and_a_ticket_open_one_each(running: Service) -> None:
    key = make(running)
    bearer = {"Authorization": f"Bearer {token(running, key)}"}
    ways: list[tuple[str, dict[str, Any]]] = [
        (PREDICT, {"key": key["key"]}),
        (PREDICT, {"key": None, "headers": bearer}),
        (f"{PREDICT}?ticket={ticket(running, X_API_Key=key['key'])}", {"key": None}),
        (f"{PREDICT}?ticket={ticket(running, **bearer)}", {"key": None}),
        (PREDICT, {"key": ADMIN}),
    ]
    for path, how in ways:
        with running.connect(path, **how) as client:
            time.sleep(0.5)  # it is looked at meanwhile
            client.send(TEXT)
            assert json.loads(client.recv(timeout=10))["id"] == 1


def test_a_ticket_opens_one_socket_within_its_time(running: Service) -> None:
    made = ticket(running, X_API_Key=ADMIN)
    running.connect(f"{PREDICT}?ticket={made}", None).close()
    late = "a-ticket-whose-second-has-passed"
    running.parts.own.tickets.put(late, Principal("key:x", "local", frozenset({"admin"})), 1)
    time.sleep(1.2)
    for bad in (made, late, "never-was", ""):
        status, problem, headers = running.refused(f"{PREDICT}?ticket={bad}", None)
        assert (status, problem["status"]) == (401, 401)
        assert headers["WWW-Authenticate"]
    unused = ticket(running, X_API_Key=ADMIN)
    assert running.refused(f"{PREDICT}?ticket={unused}", ADMIN)[0] == 400
    records = running.http.get("/v1/audit", headers={"X-API-Key": ADMIN}).json()
    assert '"status": 401' in json.dumps(records)
    assert made not in json.dumps(records)


def test_a_ticket_goes_as_far_as_who_got_it(running: Service) -> None:
    viewer = make(running, roles=["viewer"])
    assert running.refused(f"{PREDICT}?ticket={ticket(running, X_API_Key=viewer['key'])}", None)[0] == 403


@pytest.mark.parametrize("way", ["key", "token", "ticket"])
def test_a_key_that_is_revoked_closes_what_it_opened(running: Service, way: str) -> None:
    key = make(running)
    told = Told(running.parts.jobs.queue, "local")  # type: ignore[union-attr, arg-type]
    with_ticket = f"?ticket={ticket(running, X_API_Key=key['key'])}" if way == "ticket" else ""
    headers = {"Authorization": f"Bearer {token(running, key)}"} if way == "token" else {}
    client = running.connect(told.path + with_ticket, key["key"] if way == "key" else None, headers=headers)
    other = running.connect(told.path, ADMIN)
    revoke(running, key)
    began = time.monotonic()
    events, code, reason = rest(client)
    assert time.monotonic() - began < 10
    assert (events, code) == (told.all(), 4401)
    assert reason == "the credential has expired or was taken back; connect with a good one"
    records = running.http.get("/v1/audit", headers={"X-API-Key": ADMIN}).json()["records"]
    assert [(one["status"], one["action"], one["who"]) for one in records if one["status"] == 401] == [
        (401, "jobs.read", f"key:{key['id']}")
    ]
    time.sleep(0.5)
    assert running.closed(4401) == 1  # the other's is open
    other.close()


def test_a_key_that_expires_while_its_socket_is_open(running: Service) -> None:
    key = make(running)
    client = running.connect(PREDICT, key["key"])
    running.parts.own.keys.change(key["id"], lambda kept: replace(kept, expires=time.time() + 0.5))
    assert rest(client)[1] == 4401


def test_a_policy_that_changes_while_a_socket_is_open(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(DEFAULT.read_text())
    held_to = rules("*=100000/second", policy=PolicyFile(policy))
    with service(parts_with(rules=held_to, limits=quick())) as running, running.connect(PREDICT, "ann:acme:scorer") as client:
        time.sleep(1.1)
        policy.write_text(DEFAULT.read_text().replace("allow: [predict, score,", "allow: [score,"))
        _, code, reason = rest(client)
        assert (code, reason) == (4403, "the policy no longer allows predict; ask an admin of this service")
        assert running.refused(PREDICT, "ann:acme:scorer")[0] == 403
        found = [(entry.status, entry.action) for entry in held_to.audit.entries]  # type: ignore[attr-defined]
        assert found == [(403, "predict")]  # and the second is like the first


@pytest.mark.parametrize(
    ("origin", "opens"),
    [
        ("http://127.0.0.1:{port}", True),
        (None, True),
        ("https://evil.example", False),
        ("http://127.0.0.1:1", False),
        ("http://127.0.0.1:{port}.evil.example", False),
        ("null", False),
        ("http://[", False),
    ],
)
@pytest.mark.parametrize("gate", [OneKey(ADMIN), OpenGate()])
def test_a_page_of_another_origin_opens_none(gate: Any, origin: str | None, opens: bool) -> None:
    with service(parts_with(gate=gate)) as running:
        headers = {"Origin": origin.format(port=running.port)} if origin else {}
        if opens:
            running.connect(PREDICT, ADMIN, headers=headers).close()
            return
        status, problem, _ = running.refused(PREDICT, ADMIN, headers=headers)
        assert (status, problem["detail"]) == (403, "a page may open sockets of its own origin alone")
        found = [(entry.status, entry.action, entry.resource) for entry in running.parts.rules.audit.entries]  # type: ignore[attr-defined]
        assert found == [(403, "predict", PREDICT)]


def test_predictions_go_on_while_redis_is_away_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with embedded(tmp_path / "redis") as address, service(guarded(address, limits=quick())) as running:
        key = make(running)
        client = running.connect(PREDICT, key["key"])
        with Redis.from_url(address) as admin:
            admin.shutdown(nosave=True)
        for _ in range(4):
            client.send(TEXT)
            assert "prediction" in json.loads(client.recv(timeout=10))
            time.sleep(0.3)
        monkeypatch.setattr(open_socket, "SECONDS", 0.1)
        assert rest(client)[1:] == (1013, "an outside system does not answer; connect again in a while")
        again = running.connect(PREDICT, key["key"])  # its key is remembered
        again.close()
        assert running.refused(f"{PREDICT}?ticket=x", None)[0] == 503


def test_a_service_that_ends_opens_none(running: Service) -> None:
    with running.connect(PREDICT, ADMIN) as client:
        running.parts.sockets.ending.set()
        client.send(TEXT)  # which wakes the loop
        assert rest(client)[1] == 1012
    status, problem, _ = running.refused(PREDICT, ADMIN)
    assert (status, problem["type"]) == (503, "urn:finsight:problem:draining")
    until(lambda: running.open() == 0)
