"""What is left of who asks: guessing, addresses, tickets, switched-off authentication, and secrets that must not be seen."""

import base64
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import WebSocket
from pydantic import SecretStr
from redis import Redis
from starlette.requests import HTTPConnection

from finsight.adapters.redis_connection import connect
from finsight.adapters.redis_failures import LIMIT, RedisFailures
from finsight.adapters.redis_tickets import RedisTickets
from finsight.bootstrap.credentials import loopback, ways_in
from finsight.domain.access import Principal
from finsight.errors import ParamsError
from finsight.service.access import action_of, may_open
from finsight.service.client_address import address_of, networks
from finsight.service.plain_gates import OneKey
from finsight.service.serving import run
from finsight.settings import Settings
from live import ADMIN_KEY, Live, live


@pytest.fixture(scope="module")
def running(redis_server: str) -> Iterator[Live]:
    with live(redis_server) as opened:
        yield opened


@pytest.fixture
def service(running: Live, redis_url: str) -> Live:
    """One service for all, each time with nothing in its Redis."""
    return running


def guess(service: Live, times: int, **headers: str) -> list[int]:
    return [service.me(X_API_Key=f"guess {n}", **headers).status_code for n in range(times)]


def test_guessing_ends_after_twenty_a_minute_even_for_what_is_right(service: Live) -> None:
    made = service.make()
    assert LIMIT == 20
    assert guess(service, LIMIT) == [401] * LIMIT
    for answer in (
        service.me(X_API_Key="guess"),
        service.me(X_API_Key=made["key"]),
        service.me(X_API_Key=ADMIN_KEY),
        service.me(Authorization="Bearer x"),
        service.buy(made),
    ):
        assert answer.status_code == 429
        assert 50 <= int(answer.headers["Retry-After"]) <= 60
    assert service.me().status_code == 401  # presents nothing, so guesses nothing


def test_every_way_in_counts(service: Live) -> None:
    made = service.make()
    for _ in range(5):
        assert service.me(X_API_Key=ADMIN_KEY + "x").status_code == 401
        assert service.me(Authorization="Bearer a.b.c").status_code == 401
        assert service.buy(made, client_secret="x").status_code == 401
        assert service.me(X_API_Key=made["key"][:-1] + "~").status_code == 401
    assert service.me(X_API_Key=ADMIN_KEY).status_code == 429


def test_what_is_good_or_not_presented_is_not_counted(service: Live) -> None:
    for _ in range(LIMIT + 5):
        assert service.me().status_code == 401
        assert service.me(X_API_Key=ADMIN_KEY).status_code == 200


def test_the_window_slides(redis_url: str) -> None:
    now = [1000.0]
    failures = RedisFailures(connect(redis_url), lambda: now[0])
    for n in range(LIMIT):
        assert failures.wait("192.0.2.1") == 0
        now[0] = 1000.0 + n
        failures.add("192.0.2.1")
    assert failures.wait("192.0.2.1") == pytest.approx(41)
    assert failures.wait("192.0.2.2") == 0
    now[0] = 1060.0
    assert failures.wait("192.0.2.1") == 0
    failures.add("192.0.2.1")
    assert failures.wait("192.0.2.1") == pytest.approx(1)
    with Redis.from_url(redis_url) as client:
        assert client.ttl("finsight:failures:192.0.2.1") <= 61


def test_an_ipv6_customer_is_one_address(redis_url: str) -> None:
    failures = RedisFailures(connect(redis_url))
    for n in range(LIMIT):
        failures.add(f"2001:db8:1:2::{n:x}")
    assert failures.wait("2001:db8:1:2:ffff::1") > 0
    assert failures.wait("2001:db8:1:3::1") == 0
    for _ in range(LIMIT):
        failures.add("::ffff:192.0.2.9")
    assert failures.wait("192.0.2.9") > 0


def test_a_client_can_not_give_itself_another_address(redis_url: str, service: Live) -> None:
    seen = [service.me(X_API_Key="x", X_Forwarded_For=f"203.0.113.{n}").status_code for n in range(LIMIT + 1)]
    assert seen == [401] * LIMIT + [429]
    with Redis.from_url(redis_url) as client:
        client.flushall()
    with live(redis_url, trusted_proxies="127.0.0.0/8") as behind:
        seen = [behind.me(X_API_Key="x", X_Forwarded_For=f"203.0.113.{n}, 198.51.100.7").status_code for n in range(LIMIT + 1)]
        assert seen == [401] * LIMIT + [429]
        assert behind.me(X_API_Key=ADMIN_KEY, X_Forwarded_For="198.51.100.8").status_code == 200


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", ["203.0.113.5"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.5, 10.0.0.2"], "203.0.113.5"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["1.1.1.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
        ("fd00::1", ["2001:DB8::5"], "2001:db8::5"),
        (None, ["203.0.113.5"], "local"),
    ],
)
def test_the_address_is_the_nearest_that_nobody_trusted_vouches_for(peer: str | None, forwarded: list[str], expected: str) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope = {"type": "http", "headers": headers, "client": (peer, 1) if peer else None}
    assert address_of(HTTPConnection(scope), networks("10.0.0.0/8, fd00::/8")) == expected


def test_a_network_that_is_none_is_one_line() -> None:
    with pytest.raises(ParamsError, match="FINSIGHT_TRUSTED_PROXIES: '10.0.0.0/99' does not"):
        networks("10.0.0.0/99")
    assert networks("") == ()


SOMEBODY = Principal("oidc:ada", "acme", frozenset({"scorer"}), frozenset({"predict"}))


def test_a_ticket_is_good_once_and_not_for_long(redis_url: str) -> None:
    tickets = RedisTickets(connect(redis_url))
    tickets.put("first", SOMEBODY, 30)
    assert tickets.take("first") == SOMEBODY
    assert tickets.take("first") is None
    assert tickets.take("never") is None
    tickets.put("second", SOMEBODY, 1)
    with Redis.from_url(redis_url) as client:
        (name,) = client.scan_iter("finsight:ticket:*")
        assert b"second" not in name
    time.sleep(1.1)
    assert tickets.take("second") is None


def test_of_many_that_present_a_ticket_at_once_one_is_let_in(redis_url: str) -> None:
    tickets, found = RedisTickets(connect(redis_url)), []
    tickets.put("one", SOMEBODY, 30)
    threads = [threading.Thread(target=lambda: found.append(tickets.take("one"))) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(found, key=str) == sorted([SOMEBODY] + [None] * 7, key=str)


def ticket_of(service: Live, key: str) -> str:
    answer = service.http.post("/v1/auth/ticket", headers={"X-API-Key": key})
    assert answer.status_code == 201
    assert answer.json()["expires_in"] == 30
    return str(answer.json()["ticket"])


def test_a_ticket_opens_one_socket(service: Live) -> None:
    from starlette.testclient import TestClient, WebSocketDenialResponse

    async def whose(websocket: WebSocket, principal: Annotated[Principal, may_open("me.read")]) -> None:
        await websocket.accept()
        await websocket.send_text(principal.subject)
        await websocket.close()

    service.app.add_api_websocket_route("/whose", whose)
    made = service.make()
    with TestClient(service.app) as client:
        ticket = ticket_of(service, made["key"])
        with client.websocket_connect(f"/whose?ticket={ticket}") as opened:
            assert opened.receive_text() == f"key:{made['id']}"
        with client.websocket_connect("/whose", headers={"X-API-Key": made["key"]}) as opened:
            assert opened.receive_text() == f"key:{made['id']}"
        for wrong in (f"?ticket={ticket}", "?ticket=x", "", f"?key={made['key']}"):
            with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect(f"/whose{wrong}"):
                pass
            assert refused.value.status_code == 401
            assert refused.value.headers["content-type"] == "application/problem+json"
    assert service.me(X_API_Key=ticket_of(service, made["key"])).status_code == 401  # a ticket is no key


def test_a_ticket_ends_with_its_key(service: Live) -> None:
    from finsight.service.access import Credentials

    made, gate = service.make(), service.app.state.parts.gate
    good, ended = ticket_of(service, made["key"]), ticket_of(service, made["key"])
    assert gate.principal(Credentials(ticket=good)).subject == f"key:{made['id']}"
    service.http.delete(f"/v1/keys/{made['id']}", headers={"X-API-Key": ADMIN_KEY})
    assert gate.principal(Credentials(ticket=ended)) is None


def test_every_route_of_keys_and_tokens_says_who_may_use_it(service: Live) -> None:
    from fastapi.routing import iter_route_contexts

    found = {}
    for route in iter_route_contexts(service.app.routes):
        if getattr(route, "dependant", None):
            actions = [action for one in route.dependant.dependencies if one.call and (action := action_of(one.call))]
            found |= {(method, route.path): actions for method in route.methods or ()}
    for route, action in {
        ("POST", "/v1/keys"): "keys.create",
        ("GET", "/v1/keys"): "keys.read",
        ("POST", "/v1/keys/{key_id}/rotate"): "keys.create",
        ("DELETE", "/v1/keys/{key_id}"): "keys.revoke",
        ("GET", "/v1/me"): "me.read",
        ("POST", "/v1/auth/ticket"): "auth.ticket",
        ("POST", "/v1/auth/token"): "anybody",
    }.items():
        assert found[route] == [action]


def test_the_document_says_how_to_come_in(service: Live) -> None:
    document = service.http.get("/openapi.json").json()
    assert set(document["components"]["securitySchemes"]) == {"APIKeyHeader", "HTTPBearer"}
    assert document["paths"]["/v1/me"]["get"]["security"] == [{"APIKeyHeader": []}, {"HTTPBearer": []}]
    assert "security" not in document["paths"]["/v1/auth/token"]["post"]
    form = document["paths"]["/v1/auth/token"]["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"]
    assert form["schema"]["properties"]["grant_type"]["enum"] == ["client_credentials"]


def test_no_secret_is_in_an_answer_or_a_log(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answers: list[httpx.Response] = []
    with live(redis_url) as service:
        service.http.event_hooks["response"] = [lambda answer: (answer.read(), answers.append(answer))]
        made = service.make()
        token, ticket = service.token(made), ticket_of(service, made["key"])
        shown = len(answers)
        service.me(X_API_Key=made["key"])
        service.me(Authorization=f"Bearer {token}")
        service.me(X_API_Key=ADMIN_KEY)
        service.me(X_API_Key=made["key"] + "x")
        service.me(Authorization=f"Bearer {token}x")
        service.buy(made, scope="keys.create")
        service.buy(made, grant_type="password")
        service.buy(made, client_id="x")
        service.http.get("/v1/keys", headers={"X-API-Key": ADMIN_KEY})
        service.http.post("/v1/keys", json={"name": made["key"], "roles": ["viewer"]}, headers={b"X-API-Key": (made["key"] + "é").encode()})
    assert len(answers) - shown == 10
    said = "".join(answer.text + str(answer.headers) for answer in answers[shown:])
    logged = "\n".join(
        f"{record.getMessage()} {record.args}" for record in caplog.records if record.name.startswith(("finsight", "uvicorn"))
    )
    assert "GET /v1/me" in logged
    for secret in (made["client_secret"], token, token.split(".")[2], ticket, ADMIN_KEY):
        assert secret not in said
        assert secret not in logged


def test_the_admins_key_is_told_from_others_by_digest() -> None:
    from finsight.service.access import Credentials

    key = OneKey("sésame")
    assert key.principal(Credentials("sésame")) == Principal("admin", "local", frozenset({"admin"}))
    for wrong in ("sesame", "s", "", "sésame ", None):
        assert key.principal(Credentials(wrong)) is None


def test_switched_off_everybody_is_the_admin_and_only_on_loopback(redis_url: str) -> None:
    with live(redis_url, auth="off") as service:
        assert service.me().json()["subject"] == "admin"
        assert service.me(Host="localhost:8080", Origin="http://[::1]:3000").json()["subject"] == "admin"
        for foreign in (
            {"Host": "evil.example"},
            {"Host": "127.0.0.1.evil.example"},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
        ):
            assert service.me(**foreign).status_code == 403
    for host in ("0.0.0.0", "::", "", "192.0.2.1", "no.such.name.invalid"):
        with pytest.raises(ParamsError, match="FINSIGHT_AUTH=off"):
            ways_in(Settings(auth="off"), host)
        assert ways_in(Settings(), host) == {"key", "token", "oidc"}
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        assert loopback(host)
        assert ways_in(Settings(auth="off"), host) == frozenset()
    for wrong in ("", "on", "key,off", "password"):
        with pytest.raises(ParamsError, match="expected off, or some of"):
            ways_in(Settings(auth=wrong), "127.0.0.1")


def test_serve_refuses_a_public_address_before_it_loads_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINSIGHT_AUTH", "off")
    monkeypatch.setattr("signal.signal", lambda *_: None)  # pytest's own stays
    with pytest.raises(ParamsError, match="0.0.0.0 can be reached from other machines"):
        run(Path("there is no bundle here"), "0.0.0.0", 8080)


def test_without_a_key_of_the_admins_one_is_made_each_time(redis_url: str) -> None:
    from finsight.service.entrance import entrance

    made = [entrance(Settings(), "127.0.0.1", redis_url)[2] for _ in range(2)]
    assert all(key and len(key) == 32 for key in made)
    assert made[0] != made[1]
    assert entrance(Settings(api_key=SecretStr(ADMIN_KEY)), "127.0.0.1", redis_url)[2] is None


@pytest.mark.parametrize("weak", ["short", "fourteen-signs", "fifteen and more with blanks", "fünfzehn-und-mehr", "fifteen-\t-and-more"])
def test_an_admins_key_that_could_be_guessed_or_sent_by_nobody_is_refused(redis_url: str, weak: str) -> None:
    from finsight.service.entrance import entrance

    with pytest.raises(ParamsError, match="FINSIGHT_API_KEY: expected 15") as caught:
        entrance(Settings(api_key=SecretStr(weak)), "127.0.0.1", redis_url)
    assert weak not in str(caught.value)


def test_a_redis_that_drops_what_it_likes_is_refused_at_the_start(redis_url: str) -> None:
    from finsight.service.entrance import entrance

    with Redis.from_url(redis_url) as client:
        try:
            for policy, good in (("volatile-ttl", True), ("allkeys-lru", False), ("noeviction", True)):
                client.config_set("maxmemory-policy", policy)
                if good:
                    entrance(Settings(), "127.0.0.1", redis_url)
                    continue
                with pytest.raises(ParamsError, match="maxmemory-policy is allkeys-lru"):
                    entrance(Settings(), "127.0.0.1", redis_url)
        finally:
            client.config_set("maxmemory-policy", "noeviction")


def test_a_token_with_a_head_of_odd_shape_is_none(service: Live) -> None:
    for head in (b"[" * 4000 + b"]" * 4000, b'{"a":' * 2000 + b"1" + b"}" * 2000, b"[1]", b"\xff", b'{"kid": 5, "typ": "at+jwt"}'):
        token = base64.urlsafe_b64encode(head).decode().rstrip("=") + ".e30.eA"
        assert service.me(Authorization=f"Bearer {token}").status_code == 401
