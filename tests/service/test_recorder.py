"""The audit log as requests write it: each change and each refusal once, whoever forgets what."""

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import httpx
import pyrage
import pytest
from click.testing import CliRunner
from fastapi import Depends, FastAPI, WebSocket
from redis import Redis
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from apps import app_with, rules, served
from finsight.adapters.redis_audit import KEY, RedisAuditLog
from finsight.cli import main
from finsight.domain.access import Principal
from finsight.domain.audit import Entry, check
from finsight.errors import UnreachableError
from finsight.service.access import anybody, may
from finsight.service.client_address import networks
from finsight.service.permission import admit
from finsight.service.problems import Problem
from finsight.service.recorder import Folded
from memory_audit import MemoryAuditLog

ADMIN = {"X-API-Key": "root:acme:admin", "X-Request-ID": "request-0001"}
VIEWER = {"X-API-Key": "eve:acme:viewer"}


@dataclass
class Running:
    client: httpx.Client
    log: MemoryAuditLog
    app: FastAPI

    @property
    def outcomes(self) -> list[tuple[str, str, str, int]]:
        return [(one.who, one.action, one.outcome, one.status) for one in self.log.entries]


@pytest.fixture
def running() -> Iterator[Running]:
    app = app_with(held_to=rules("unknown=30/day"))  # a day, since a minute may end within a test
    log = app.state.parts.rules.audit

    def broken() -> None:
        raise RuntimeError("a secret")

    def conflict() -> None:
        raise Problem(409, "no")

    def lose() -> str:
        log.away = True
        return "changed"

    for path, route in {"/keys": lambda: "made", "/broken": broken, "/conflict": conflict, "/lose": lose}.items():
        app.add_api_route(path, route, methods=["GET", "POST", "DELETE"], dependencies=[may("keys.create")])
    app.add_api_route("/keys/{name}", lambda name: name, dependencies=[may("keys.read")])
    app.add_api_route("/open", lambda: "x", methods=["POST"], dependencies=[anybody()])
    with served(app) as client:
        yield Running(client, log, app)


def test_a_change_is_recorded_with_who_what_and_whence(running: Running) -> None:
    answer = running.client.post("/keys?ticket=secret", headers={**ADMIN, "X-Forwarded-For": "192.0.2.9"})
    assert answer.json() == "made"
    (found,) = running.log.entries
    assert found.when.endswith("+00:00")
    assert asdict(found) | {"when": ""} == {
        "when": "",
        "who": "root",
        "tenant": "acme",
        "action": "keys.create",
        "resource": "/keys",
        "outcome": "done",
        "status": 200,
        "correlation_id": "request-0001",
        "address": "127.0.0.1",
        "repeats": 0,
    }


def test_each_change_and_each_refusal_has_one_record_and_nothing_else_has(running: Running) -> None:
    client = running.client
    client.get("/keys", headers=ADMIN)  # reads
    client.get("/v1/audit", headers=ADMIN)
    client.get("/nothing")
    client.post("/v1/predict", headers=ADMIN, json={})
    client.post("/v1/predict", headers=ADMIN, content=b"{")
    client.post("/conflict", headers=ADMIN)  # changed nothing
    assert running.outcomes == []
    client.delete("/keys", headers=ADMIN)
    client.post("/keys", headers=VIEWER)
    client.get("/v1/audit", headers=VIEWER)
    client.get("/v1/audit")
    client.post("/open")  # says nothing of itself: recorded all the same
    client.post("/broken", headers=ADMIN)
    assert running.outcomes == [
        ("root", "keys.create", "done", 200),
        ("eve", "keys.create", "refused", 403),
        ("eve", "audit.read", "refused", 403),
        ("", "audit.read", "refused", 401),
        ("", "POST /open", "done", 200),
        ("root", "keys.create", "failed", 500),
    ]
    assert check(running.log.records(), running.log.written())[1] == ""


def test_nothing_is_changed_while_the_log_is_away(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    running.log.away = True
    answer = running.client.post("/keys", headers=ADMIN)
    assert (answer.status_code, answer.json()["detail"]) == (503, "the audit log is away")
    assert int(answer.headers["Retry-After"]) > 0
    assert running.client.get("/keys", headers=ADMIN).status_code == 200
    assert running.client.post("/keys", headers=VIEWER).status_code == 403  # refused anyhow
    running.log.away = False
    assert running.client.post("/keys", headers=ADMIN).status_code == 200


def test_a_change_whose_record_is_lost_is_not_passed_off_as_well_done(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    answer = running.client.post("/lose", headers=ADMIN)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:finsight:problem:not-recorded")
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    kept = Entry(**json.loads(line.partition("not recorded: ")[2]))
    assert (kept.who, kept.action, kept.outcome, kept.correlation_id) == ("root", "keys.create", "done", "request-0001")


def test_a_path_can_break_no_line(running: Running) -> None:
    running.app.add_api_route("/p/{name:path}", lambda name: name, methods=["POST"], dependencies=[may("keys.create")])
    assert running.client.post("/p/%0d%1b[31mFORGED%20" + "x" * 500, headers=ADMIN).status_code == 200
    (found,) = running.log.entries
    assert found.resource.startswith("/p/%0D%1B%5B31mFORGED%20xxx")
    assert len(found.resource) == 200


def test_repeated_refusals_are_counted_and_not_written_one_by_one(running: Running) -> None:
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda i: running.client.get(f"/keys/{i}").status_code, range(100)))
    assert codes.count(401) == 30
    assert codes.count(429) == 70
    assert sorted(one[2:] for one in running.outcomes) == [("refused", 401), ("refused", 429)]


def test_what_somebody_known_was_refused_is_told_thing_by_thing(running: Running) -> None:
    for name in ("a", "b", "a"):
        assert running.client.get(f"/keys/{name}", headers=VIEWER).status_code == 403
    assert [one.resource for one in running.log.entries] == ["/keys/a", "/keys/b"]


def test_strangers_with_a_network_of_their_own_are_one_stranger() -> None:
    log = MemoryAuditLog()
    app = app_with(held_to=rules("unknown=3/day", audit=log))
    app.state.parts = replace(app.state.parts, proxies=networks("127.0.0.0/8"))
    with served(app) as client:
        codes = [client.get("/v1/audit", headers={"X-Forwarded-For": f"2001:db8:1:2::{n:x}"}).status_code for n in range(5)]
        assert codes == [401, 401, 401, 429, 429]
        assert client.get("/v1/audit", headers={"X-Forwarded-For": "2001:db8:1:3::1"}).status_code == 401
        assert [(one.status, one.address) for one in log.entries] == [
            (401, "2001:db8:1:2::"),
            (429, "2001:db8:1:2::3"),
            (401, "2001:db8:1:3::1"),
        ]


def entry(i: int) -> Entry:
    return Entry(str(i), "", "", "x", "/", "refused", 401, "", "192.0.2.1")


def test_every_refusal_is_accounted_for() -> None:
    folded = Folded(seconds=1000, most=3)
    written = [one for i in range(50) for one in folded.add(i % 5, entry(i))]
    written += folded.due(float("inf"))
    assert sum(1 + one.repeats for one in written) == 50
    folded = Folded(seconds=1000)
    written = [one for i in range(50) for one in folded.add(i % 5, entry(i))]
    assert [one.when for one in written] == ["0", "1", "2", "3", "4"]
    rest = folded.due(float("inf"))
    assert [(one.when, one.repeats) for one in rest] == [(str(45 + i), 8) for i in range(5)]
    assert folded.due(float("inf")) == []


def test_a_time_later_repeats_are_written() -> None:
    folded = Folded(seconds=0)
    assert [one.when for one in folded.add("a", entry(1))] == ["1"]
    assert [one.when for one in folded.add("a", entry(2))] == ["2"]


def test_what_was_gathered_is_written_when_the_service_stops() -> None:
    log = MemoryAuditLog()
    with served(app_with(held_to=rules(audit=log))) as client:
        for _ in range(4):
            client.get("/v1/audit")
        assert len(log.kept) == 1
    assert [one.repeats for one in log.entries] == [0, 2]


def test_a_tenants_admin_reads_the_records_of_that_tenant_page_by_page() -> None:
    log = MemoryAuditLog()
    for i in range(1, 31):
        tenant = ("acme", "local", "")[i % 3]
        log.append(Entry(str(i), "ann", tenant, "keys.create", "/keys", "done", 201, "", "192.0.2.1"))

    def pages(client: httpx.Client, key: str) -> list[int]:
        found: list[int] = []
        query = "?limit=4"
        while True:
            page = client.get(f"/v1/audit{query}", headers={"X-API-Key": key}).json()
            assert len(page["records"]) <= 4
            found += [one["number"] for one in page["records"]]
            if page["next"] is None:
                return found
            query = f"?limit=4&cursor={page['next']}"

    with served(app_with(held_to=rules(audit=log))) as client:
        assert pages(client, "root:acme:admin") == list(range(30, 0, -3))
        assert pages(client, "root:local:admin") == [i for i in range(30, 0, -1) if i % 3]
        assert pages(client, "root:other:admin") == []
        first = client.get("/v1/audit?limit=1", headers=ADMIN).json()["records"][0]
        assert first["digest"] == log.kept[29].digest
        for wrong in ("cursor=x", "cursor=-1", "limit=0", "limit=201"):
            assert client.get(f"/v1/audit?{wrong}", headers=ADMIN).status_code == 422


class Interrupted(MemoryAuditLog):
    """Goes away when it has taken a number of records."""

    def append(self, entry: Entry):  # type: ignore[no-untyped-def]
        if len(self.kept) == 1:
            raise UnreachableError("away")
        return super().append(entry)


def test_a_refusal_stays_one_when_it_cannot_be_recorded() -> None:
    with served(app_with(held_to=rules(audit=Interrupted()))) as client:
        assert [client.get("/v1/audit").status_code for _ in range(2)] == [401, 401]
        assert client.get("/v1/audit", headers=VIEWER).status_code == 403


@pytest.mark.parametrize("sealed", [False, True])
def test_the_command_verifies_and_shows(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sealed: bool) -> None:
    monkeypatch.setenv("FINSIGHT_REDIS_URL", redis_url)
    if sealed:
        monkeypatch.setenv("FINSIGHT_ENCRYPTION_KEY", str(pyrage.x25519.Identity.generate()))
    anchor = str(tmp_path / "anchor.json")

    def cli(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["audit", *arguments])
        return done.exit_code, done.output

    from finsight.bootstrap import service
    from finsight.settings import load_settings

    log = service.audit_log(load_settings(), redis_url)
    with served(app_with(held_to=rules(audit=log))) as client:
        for _ in range(3):
            client.post("/v1/predict", json={}, headers=VIEWER)
        client.get("/v1/audit")
    code, said = cli("verify", "--anchor", anchor)
    assert (code, said.startswith("3 records hold; the last is 3 ")) == (0, True)
    assert cli("verify", "--anchor", anchor)[0] == 0
    code, said = cli("show", "-n", "2")
    lines = said.splitlines()
    assert lines[0].split()[0] == "3"
    assert "refused 403 and 1 more  acme/eve  predict  /v1/predict  127.0.0.1" in lines[0]
    assert len(lines) == 2
    assert [json.loads(line)["number"] for line in cli("show", "--json")[1].splitlines()] == [1, 2, 3]
    with Redis.from_url(redis_url) as redis:
        redis.xdel(KEY, "2-0")
        code, said = cli("verify", "--anchor", anchor)
        assert (code, "record 2 is missing: the one after 1 is 3; the 1 before hold" in said) == (3, True)
        redis.delete(KEY)
        code, said = cli("verify", "--anchor", anchor)
        assert (code, "record 1 is missing: the log ends with 0, and the anchor knows 3" in said) == (3, True)
    assert cli("verify")[0] == 0
    assert RedisAuditLog(Redis.from_url(redis_url)).written() == 0


@pytest.mark.parametrize(
    ("role", "status", "outcomes"),
    [("admin", 101, []), ("viewer", 403, [("ann", "predict", "refused", 403)]), ("", 403, [("ann", "predict", "refused", 403)])],
)
def test_a_socket_that_is_refused_is_recorded(role: str, status: int, outcomes: list[tuple[str, str, str, int]]) -> None:
    app = app_with()

    def asked(connection: HTTPConnection) -> None:
        admit(connection, Principal("ann", "acme", frozenset({role} - {""})), "predict")

    async def socket(opened: WebSocket) -> None:
        await opened.accept()
        await opened.close(1000)

    app.add_api_websocket_route("/ws", socket, dependencies=[Depends(asked)])
    try:
        with TestClient(app).websocket_connect("/ws") as opened:
            assert opened.receive()["code"] == 1000
            found = (101, "")
    except WebSocketDenialResponse as refused:
        found = (refused.status_code, refused.headers["content-type"])
    assert found == (status, "" if status == 101 else "application/problem+json")
    assert [(one.who, one.action, one.outcome, one.status) for one in app.state.parts.rules.audit.entries] == outcomes


def test_a_socket_that_is_closed_before_it_opens_is_recorded() -> None:
    app = app_with()

    async def socket(opened: WebSocket) -> None:
        await opened.close(1008)

    app.add_api_websocket_route("/ws", socket)
    with pytest.raises(WebSocketDisconnect), TestClient(app).websocket_connect("/ws"):
        pass
    assert [(one.action, one.outcome, one.status) for one in app.state.parts.rules.audit.entries] == [("GET /ws", "refused", 403)]
