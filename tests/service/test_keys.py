"""API keys over HTTP: made, shown once, narrowed, rotated, revoked; and what nobody may make."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from redis import Redis

from finsight.domain.access import Principal
from finsight.domain.keys import digest_of, parts_of
from finsight.service import keys
from finsight.service.remembered import LATELY, MOST, SECONDS, Remembered, RememberedPrincipal
from finsight.service.sessions import COOKIE
from live import ADMIN_KEY, Live, live


@pytest.fixture(scope="module")
def running(redis_server: str) -> Iterator[Live]:
    with live(redis_server) as opened:
        yield opened


@pytest.fixture
def service(running: Live, redis_url: str) -> Live:
    """One service for all, each time with nothing in its Redis."""
    return running


def problem(answer: httpx.Response, status: int, said: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]


def test_a_key_opens_the_service_as_who_it_was_made_for(service: Live) -> None:
    made = service.make(roles=["viewer", "scorer"], scopes=["me.read"], tenant="acme")
    assert parts_of(made["key"]) == (made["id"], made["client_secret"])
    me = {"subject": f"key:{made['id']}", "tenant": "acme", "roles": ["scorer", "viewer"], "scopes": ["me.read"]}
    assert service.me(X_API_Key=made["key"]).json() == me
    assert service.me(X_API_Key=ADMIN_KEY).json() == {"subject": "admin", "tenant": "local", "roles": ["admin"], "scopes": []}


def test_nearly_the_key_is_not_the_key(service: Live) -> None:
    made = service.make()
    key = made["key"]
    last = "A" if key[-1] != "A" else "B"
    for wrong in (key[:-1] + last, key[:-1], key + "A", key.upper(), f"fsk_{'0' * 24}_{made['client_secret']}", made["client_secret"]):
        answer = service.me(X_API_Key=wrong)
        problem(answer, 401, "send a good key")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="finsight", ApiKey'
    problem(service.me(Authorization=f"Bearer {key}"), 401, "send a good key")
    assert service.me(X_API_Key=key).status_code == 200


def test_two_credentials_are_refused(service: Live) -> None:
    problem(service.me(X_API_Key=ADMIN_KEY, Authorization="Bearer x"), 400, "one credential")
    headers = [("X-API-Key", ADMIN_KEY), ("X-API-Key", "other")]
    problem(service.http.get("/v1/me", headers=headers), 400, "one credential")


def test_a_scope_narrows_and_never_adds(service: Live) -> None:
    narrowed = service.make(scopes=["predict"])
    problem(service.me(X_API_Key=narrowed["key"]), 403, "may not do me.read")
    viewer = service.make(roles=["viewer"], scopes=["keys.create"])
    problem(
        service.http.post("/v1/keys", json={"name": "x", "roles": ["viewer"]}, headers={"X-API-Key": viewer["key"]}), 403, "keys.create"
    )


def test_a_scope_may_be_the_beginning_of_actions(service: Live) -> None:
    maker = service.make(roles=["trainer", "scorer"], scopes=["keys.*", "jobs.create.*"])
    made = service.make(maker["key"], roles=["trainer"], scopes=["jobs.create.*"])
    assert service.make(maker["key"], roles=["trainer"], scopes=["jobs.create.train"])["scopes"] == ["jobs.create.train"]
    problem(service.me(X_API_Key=made["key"]), 403, "narrowed to jobs.create.*")


@pytest.mark.parametrize(
    ("maker", "asked", "said"),
    [
        ({"roles": ["scorer"]}, {"roles": ["admin"]}, "the role admin"),
        ({"roles": ["scorer"]}, {"roles": ["scorer", "trainer"]}, "the role trainer"),
        ({"roles": ["scorer"], "scopes": ["keys.create", "predict"]}, {"roles": ["scorer"]}, "every scope"),
        ({"roles": ["scorer"], "scopes": ["keys.create", "predict"]}, {"roles": ["scorer"], "scopes": ["me.read"]}, "the scope me.read"),
        (
            {"roles": ["scorer"], "scopes": ["keys.create", "jobs.create.train"]},
            {"roles": ["scorer"], "scopes": ["jobs.create.*"]},
            "the scope jobs.create.*",
        ),
        ({"roles": ["admin"], "tenant": "acme"}, {"roles": ["viewer"], "tenant": "local"}, "the tenant local"),
        ({"roles": ["scorer"], "days": 1}, {"roles": ["scorer"], "days": 2}, "outlive"),
    ],
)
def test_nobody_makes_a_key_with_more_than_they_have(service: Live, maker: dict, asked: dict, said: str) -> None:
    key = service.make(**maker)["key"]
    answer = service.http.post("/v1/keys", json={"name": "more", **asked}, headers={"X-API-Key": key})
    problem(answer, 403, said)
    assert answer.json()["type"] == "urn:finsight:problem:more-than-yours"


def test_what_one_has_one_can_give(service: Live) -> None:
    maker = service.make(roles=["scorer"], scopes=["keys.create", "predict"], tenant="acme", days=10)
    made = service.make(maker["key"], roles=["scorer"], scopes=["predict"])
    assert (made["tenant"], made["created_by"]) == ("acme", f"key:{maker['id']}")
    assert made["expires"] == maker["expires"]  # 90 days otherwise


def test_rotation_is_no_way_to_a_stronger_key(service: Live) -> None:
    strong, weak = service.make(roles=["admin"]), service.make(roles=["scorer"])
    path = f"/v1/keys/{strong['id']}/rotate"
    problem(service.http.post(path, json={}, headers={"X-API-Key": weak["key"]}), 403, "the role admin")
    assert service.me(X_API_Key=strong["key"]).status_code == 200


def test_a_rotated_key_has_a_new_secret_and_the_old_one_for_a_while(service: Live) -> None:
    made, admin = service.make(), {"X-API-Key": ADMIN_KEY}
    path = f"/v1/keys/{made['id']}/rotate"
    second = service.http.post(path, json={"grace_seconds": 1}, headers=admin).json()
    assert second["id"] == made["id"]
    assert second["key"] != made["key"]
    assert service.me(X_API_Key=made["key"]).status_code == service.me(X_API_Key=second["key"]).status_code == 200
    time.sleep(1.1)
    assert service.me(X_API_Key=made["key"]).status_code == 401
    third = service.http.post(path, json={"grace_seconds": 0}, headers=admin).json()
    assert service.me(X_API_Key=second["key"]).status_code == 401
    assert service.me(X_API_Key=third["key"]).status_code == 200


def test_a_revoked_key_ends_for_good(service: Live) -> None:
    made, admin = service.make(), {"X-API-Key": ADMIN_KEY}
    path = f"/v1/keys/{made['id']}"
    assert service.http.delete(path, headers=admin).status_code == 204
    assert service.me(X_API_Key=made["key"]).status_code == 401
    first = service.http.get("/v1/keys", headers=admin).json()["keys"][0]["revoked"]
    assert service.http.delete(path, headers=admin).status_code == 204
    assert service.http.get("/v1/keys", headers=admin).json()["keys"][0]["revoked"] == first
    problem(service.http.post(f"{path}/rotate", json={}, headers=admin), 409, "has ended")
    problem(service.http.delete(f"/v1/keys/{'0' * 24}", headers=admin), 404, "there is no key ")


def test_an_expired_key_is_none(service: Live) -> None:
    from dataclasses import replace

    made = service.make()
    service.own.keys.change(made["id"], lambda key: replace(key, expires=time.time() - 1))
    assert service.me(X_API_Key=made["key"]).status_code == 401
    assert service.buy(made).status_code == 401


def test_another_tenants_keys_are_not_there(service: Live) -> None:
    theirs = service.make(roles=["admin"], tenant="theirs")
    ours = service.make(roles=["admin"], tenant="ours")
    headers = {"X-API-Key": ours["key"]}
    for answer in (
        service.http.delete(f"/v1/keys/{theirs['id']}", headers=headers),
        service.http.post(f"/v1/keys/{theirs['id']}/rotate", json={}, headers=headers),
    ):
        problem(answer, 404, "there is no key ")
    problem(service.http.get("/v1/keys?tenant=theirs", headers=headers), 403, "sees its keys alone")
    assert [key["id"] for key in service.http.get("/v1/keys", headers=headers).json()["keys"]] == [ours["id"]]
    of_theirs = service.http.get("/v1/keys?tenant=theirs", headers={"X-API-Key": ADMIN_KEY}).json()["keys"]
    assert [key["id"] for key in of_theirs] == [theirs["id"]]
    assert service.me(X_API_Key=theirs["key"]).status_code == 200


def test_what_was_tried_on_another_tenants_keys_is_recorded(service: Live) -> None:
    theirs, ours = service.make(roles=["admin"], tenant="theirs"), service.make(roles=["admin"], tenant="ours")
    headers = {"X-API-Key": ours["key"]}
    tried = service.http.delete(f"/v1/keys/{theirs['id']}", headers=headers)
    none = service.http.delete(f"/v1/keys/{'0' * 24}", headers=headers)
    assert tried.json()["detail"].replace(theirs["id"], "") == none.json()["detail"].replace("0" * 24, "")
    (found,) = [one for one in service.http.get("/v1/audit", headers=headers).json()["records"] if one["outcome"] == "refused"]
    assert (found["who"], found["action"], found["resource"]) == (f"key:{ours['id']}", "keys.revoke", f"/v1/keys/{theirs['id']}")


def test_a_tenant_has_so_many_keys_and_no_more(service: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MOST", 3)
    made = [service.make(tenant="acme") for _ in range(3)]
    admin = {"X-API-Key": ADMIN_KEY}
    asked = {"name": "one more", "roles": ["viewer"], "tenant": "acme"}
    service.http.delete(f"/v1/keys/{made[0]['id']}", headers=admin)  # it is kept for 30 days
    problem(service.http.post("/v1/keys", json=asked, headers=admin), 409, "acme has 3 keys")
    assert service.http.post("/v1/keys", json={**asked, "tenant": "other"}, headers=admin).status_code == 201


def test_pages_follow_one_another_and_show_no_secret(service: Live) -> None:
    made = [service.make(name=f"key {n}") for n in range(5)]
    service.me(X_API_Key=made[0]["key"])
    seen, cursor = [], ""
    while cursor is not None:
        answer = service.http.get(f"/v1/keys?limit=2{cursor and '&cursor=' + cursor}", headers={"X-API-Key": ADMIN_KEY})
        for key in made:
            assert key["client_secret"] not in answer.text
        seen += answer.json()["keys"]
        cursor = answer.json()["next"]
    assert [key["id"] for key in seen] == [key["id"] for key in reversed(made)]
    assert seen[-1]["last_used"] is not None
    assert all("digest" not in key and "previous" not in key for key in seen)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "x", "roles": []},
        {"name": "x", "roles": ["root"]},
        {"name": "", "roles": ["viewer"]},
        {"name": "a\nb", "roles": ["viewer"]},
        {"name": "<script>", "roles": ["viewer"]},
        {"name": "x", "roles": ["viewer"], "days": 0},
        {"name": "x", "roles": ["viewer"], "days": 367},
        {"name": "x", "roles": ["viewer"], "tenant": "../acme"},
        {"name": "x", "roles": ["viewer"], "scopes": ["*"]},
        {"name": "x", "roles": ["viewer"], "scopes": ["me.raed"]},
        {"name": "x", "roles": ["viewer"], "scopes": ["jobs.create"]},
        {"name": "x", "roles": ["viewer"], "scopes": ["jobs.cre*"]},
        {"name": "x", "roles": ["viewer"], "digest": "0" * 64},
        {"name": "x", "roles": ["viewer"], "expires": 9e9},
    ],
)
def test_what_can_be_no_key_is_refused(service: Live, body: dict) -> None:
    problem(service.http.post("/v1/keys", json=body, headers={"X-API-Key": ADMIN_KEY}), 422, "body")


def test_an_id_is_an_id(service: Live) -> None:
    for wrong in ("x", "*", "0" * 23, "finsight:key:1"):
        problem(service.http.delete(f"/v1/keys/{wrong}", headers={"X-API-Key": ADMIN_KEY}), 422, "path.key_id")


def test_without_redis_there_are_no_answers_but_503(tmp_path_factory: pytest.TempPathFactory) -> None:
    from finsight.adapters.redis_server import embedded

    with embedded(tmp_path_factory.mktemp("ends")) as address, live(address) as service:
        made = service.make()
        token = service.token(made)
        with Redis.from_url(address) as client:
            client.shutdown(nosave=True)
        for answer in (service.me(X_API_Key=made["key"]), service.me(Authorization=f"Bearer {token}"), service.buy(made)):
            problem(answer, 503, "Redis")
            assert answer.headers["Retry-After"] == "5"
            assert made["client_secret"] not in answer.text


def test_a_key_that_was_good_a_moment_ago_predicts_while_redis_is_away(tmp_path_factory: pytest.TempPathFactory) -> None:
    from finsight.adapters.redis_server import embedded
    from finsight.service.access import Credentials

    with embedded(tmp_path_factory.mktemp("ends")) as address, live(address) as service:
        good, revoked, never, narrowed = service.make(), service.make(), service.make(), service.make(scopes=["me.read"])
        for key in (good, revoked, narrowed):
            assert service.me(X_API_Key=key["key"]).status_code == 200
        service.http.delete(f"/v1/keys/{revoked['id']}", headers={"X-API-Key": ADMIN_KEY})
        assert service.me(X_API_Key=revoked["key"]).status_code == 401
        with Redis.from_url(address) as client:
            client.shutdown(nosave=True)
        gate = service.app.state.parts.gate
        somebody = gate.principal(Credentials(key=good["key"]))
        assert somebody == RememberedPrincipal(f"key:{good['id']}", "local", frozenset({"scorer"}), frozenset({"predict"}))
        problem(service.me(X_API_Key=good["key"]), 503, "only predictions")
        answer = service.http.post("/v1/keys", json={"name": "x", "roles": ["viewer"]}, headers={"X-API-Key": ADMIN_KEY})
        problem(answer, 503, "Redis")
        for key in (revoked, never, narrowed):
            problem(service.me(X_API_Key=key["key"]), 503, "Redis does not answer")


def test_a_redis_that_is_silent_holds_up_one_prediction_and_not_each(tmp_path_factory: pytest.TempPathFactory) -> None:
    from finsight.adapters.redis_server import embedded
    from finsight.service.access import Credentials

    with embedded(tmp_path_factory.mktemp("silent")) as address, live(address) as service, Redis.from_url(address) as client:
        made, gate = service.make(), service.app.state.parts.gate
        assert service.me(X_API_Key=made["key"]).status_code == 200
        process = client.info("server")["process_id"]
        os.kill(process, signal.SIGSTOP)
        try:
            assert isinstance(gate.principal(Credentials(key=made["key"])), RememberedPrincipal)
            began = time.monotonic()
            for _ in range(50):
                assert isinstance(gate.principal(Credentials(key=made["key"])), RememberedPrincipal)
            assert time.monotonic() - began < 0.5
        finally:
            os.kill(process, signal.SIGCONT)
        time.sleep(1.1)
        assert type(gate.principal(Credentials(key=made["key"]))) is Principal


def test_what_is_remembered_is_bounded_and_not_for_long() -> None:
    now = [0.0]
    remembered, somebody = Remembered(lambda: now[0]), Principal("admin", "local", frozenset({"admin"}))
    for n in range(MOST + 1):
        remembered.note(str(n), somebody)
    assert remembered.find("0") is None
    assert remembered.find("1") is not None
    now[0] = SECONDS
    assert remembered.find("1") is not None
    now[0] += 0.1
    assert remembered.find("1") is None


def test_what_was_looked_up_a_moment_ago_is_known_from_there_alone() -> None:
    now = [0.0]
    remembered, somebody = Remembered(lambda: now[0]), Principal("admin", "local", frozenset({"admin"}))
    remembered.note("k", somebody, "10.0.0.1")
    assert remembered.lately("k", "10.0.0.1") == somebody
    assert remembered.lately("k", "10.0.0.2") is None
    assert remembered.lately("other", "10.0.0.1") is None
    now[0] = LATELY + 0.1
    assert remembered.lately("k", "10.0.0.1") is None
    assert remembered.find("k") is not None
    remembered.note("k", None, "10.0.0.1")
    assert remembered.find("k") is None


def test_a_key_that_was_taken_back_predicts_for_a_second_at_most(redis_url: str) -> None:
    with live(redis_url, limits="predict=7/minute") as service:
        made = service.make()

        def predicts() -> httpx.Response:
            return service.http.post("/v1/predict", json={"texts": ["Profit rose"]}, headers={"X-API-Key": made["key"]})

        left = [int(predicts().headers["RateLimit-Remaining"]) for _ in range(5)]
        assert left == [6, 5, 4, 3, 2]  # those that are known from a moment ago count too
        assert service.http.delete(f"/v1/keys/{made['id']}", headers={"X-API-Key": ADMIN_KEY}).status_code == 204
        assert service.me(X_API_Key=made["key"]).status_code == 401  # nothing but predictions goes by what is known
        assert predicts().status_code == 401
        again = service.make()
        headers = {"X-API-Key": again["key"]}
        assert service.http.post("/v1/predict", json={"texts": ["Profit rose"]}, headers=headers).status_code == 200
        # Taken back by another replica, which this one does not hear of.
        service.own.keys.change(again["id"], lambda key: key.taken_back(time.time()))
        time.sleep(LATELY + 0.1)
        assert service.http.post("/v1/predict", json={"texts": ["Profit rose"]}, headers=headers).status_code == 401


def signed_in(key: str, service: Live, cookie: str = "") -> str:
    """The cookie of a session that begins with a key, or of one that is looked at again; empty where there is none."""
    with httpx.Client(base_url=service.http.base_url, cookies={COOKIE: cookie} if cookie else None) as browser:
        if not cookie:
            assert browser.post("/session", data={"key": key}).status_code == 303
        return browser.cookies[COOKIE] if browser.get("/live/jobs").status_code == 200 else ""


def test_a_session_of_the_page_ends_with_the_secret_that_it_began_with(service: Live, redis_url: str) -> None:
    made = service.make(roles=["viewer"])
    session = signed_in(made["key"], service)
    with Redis.from_url(redis_url, decode_responses=True) as client:
        (kept,) = [str(client.get(name)) for name in client.keys("finsight:session:*")]
    assert not any(secret in kept for secret in (made["client_secret"], digest_of(made["client_secret"]), session))
    path, admin = f"/v1/keys/{made['id']}", {"X-API-Key": ADMIN_KEY}
    rotated = service.http.post(f"{path}/rotate", json={"grace_seconds": 3600}, headers=admin).json()
    later = signed_in(rotated["key"], service)
    assert (signed_in("", service, session), signed_in("", service, later)) == (session, later)
    service.http.post(f"{path}/rotate", json={"grace_seconds": 0}, headers=admin)
    assert (signed_in("", service, session), signed_in("", service, later)) == ("", "")


@pytest.mark.parametrize("before", [{"api_key": SecretStr("another-key-that-has-leaked")}, {"auth": "off"}])
def test_a_session_ends_where_another_key_of_the_admins_is_set(service: Live, redis_url: str, before: dict[str, Any]) -> None:
    with live(redis_url, **before) as earlier:
        session = signed_in("another-key-that-has-leaked", earlier)
        assert signed_in("", earlier, session)
    assert not signed_in("", service, session)
    assert signed_in("", service, signed_in(ADMIN_KEY, service))
