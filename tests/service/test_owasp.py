"""OWASP API Security Top 10 (2023), item by item, over real HTTP: the service with its keys, jobs and limits in a live Redis."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from apps import app_with, rules, served
from finsight.adapters.jobs import RepositoryJobs
from finsight.adapters.oidc import Claims, OidcIssuer
from finsight.adapters.redis_failures import LIMIT
from finsight.adapters.redis_queue import RedisQueue
from finsight.bootstrap.released import sessions
from finsight.domain.jobs import Kind, Order
from finsight.service.caps import ANYBODYS
from finsight.service.jobs import Jobs
from finsight.service.policy_file import DEFAULT, PolicyFile
from live import ADMIN_KEY, Live, live

ADMIN = {"X-API-Key": ADMIN_KEY}
SHARED = "shares: [{kind: job, name: ID, actions: [jobs.read], tenants: [partner]}]"


@pytest.fixture(scope="module")
def running(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    queue, root = RedisQueue(redis_server), tmp_path_factory.mktemp("clone")

    def order(kind: Kind, parameters: dict[str, object], tenant: str, owner: str) -> Order:
        if kind is Kind.SCORE:
            return RepositoryJobs(root, root / "objects").order(kind, parameters, tenant, owner)
        return Order(kind, parameters, tenant, owner)

    with live(redis_server, limits="*=10000/second; predict=5/day") as opened:
        opened.app.state.parts = replace(opened.app.state.parts, jobs=Jobs(queue, order))  # type: ignore[arg-type]
        yield opened
    queue.close()


@pytest.fixture
def service(running: Live, redis_url: str) -> Live:
    """One service for all, each time with nothing in its Redis."""
    return running


def key(service: Live, tenant: str, role: str) -> dict[str, str]:
    return {"X-API-Key": service.make(tenant=tenant, roles=[role])["key"]}


def job(service: Live, headers: dict[str, str]) -> str:
    answer = service.http.post("/v1/jobs", json={"kind": "train", "parameters": {"train.seed": 1}}, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def refused(service: Live) -> list[tuple[str, str, int]]:
    """What the audit log says of refusals: tenant, action, status."""
    records = [record.entry for record in service.app.state.parts.rules.audit.records()]
    return [(one.tenant, one.action, one.status) for one in records if one and one.outcome == "refused"]


def test_api1_an_object_of_another_tenant_is_out_of_reach_and_looks_like_none(service: Live) -> None:
    ours, theirs = key(service, "ours", "admin"), key(service, "theirs", "admin")
    id_, key_id = job(service, ours), service.make(tenant="ours")["id"]
    asked = [("GET", f"/v1/jobs/{id_}"), ("GET", f"/v1/jobs/{id_}/log"), ("DELETE", f"/v1/jobs/{id_}"), ("DELETE", f"/v1/keys/{key_id}")]
    for method, path in asked:
        hidden = service.http.request(method, path, headers=theirs)
        none = service.http.request(method, path.replace(id_, "0" * 32).replace(key_id, "0" * 24), headers=theirs)
        assert hidden.status_code == none.status_code == 404
        assert re.sub("[0-9a-f]{24,}", "", hidden.json()["detail"]) == re.sub("0{24,}", "", none.json()["detail"])
    assert refused(service) == [("theirs", action, 404) for action in ("jobs.read", "jobs.read", "jobs.cancel", "keys.revoke")]
    assert service.http.get("/v1/jobs", headers=theirs).json()["jobs"] == []
    assert service.http.get(f"/v1/jobs/{id_}", headers=ours).json()["state"] == "queued"


def test_api1_an_access_list_opens_one_object_and_no_more(service: Live, tmp_path_factory: pytest.TempPathFactory) -> None:
    ours, partner = key(service, "ours", "trainer"), key(service, "partner", "trainer")
    shared, other = job(service, ours), "f" * 32
    file = tmp_path_factory.mktemp("policy") / "policy.yaml"
    file.write_text(DEFAULT.read_text(encoding="utf-8").replace("shares: []", SHARED.replace("ID", shared)), encoding="utf-8")
    before = service.app.state.parts
    service.app.state.parts = replace(before, rules=replace(before.rules, policy=PolicyFile(file)))
    try:
        assert service.http.get(f"/v1/jobs/{shared}", headers=partner).status_code == 200
        assert service.http.delete(f"/v1/jobs/{shared}", headers=partner).status_code == 404
        assert service.http.get(f"/v1/jobs/{other}", headers=partner).status_code == 404
    finally:
        service.app.state.parts = before


def test_api2_guessing_ends_and_no_credential_is_good_for_longer_than_it_says(service: Live) -> None:
    made = service.make()
    token = service.token(made)
    assert service.me(Authorization=f"Bearer {token}").status_code == 200
    assert service.http.post(f"/v1/keys/{made['id']}/rotate", json={"grace_seconds": 0}, headers=ADMIN).status_code == 200
    assert service.me(X_API_Key=made["key"]).status_code == 401
    assert service.me(Authorization=f"Bearer {token}").status_code == 401  # bought with the secret that was rotated out
    assert [service.me(X_API_Key=f"guess {n}").status_code for n in range(LIMIT)][-1] == 429
    assert service.me(**{"X_API_Key": ADMIN_KEY}).status_code == 429


def test_api3_no_property_is_set_or_shown_that_is_not_ones_business(service: Live) -> None:
    for more in ({"digest": "0" * 64}, {"maker": "admin"}, {"revoked": None}, {"expires": 9e12}):
        asked = {"name": "x", "roles": ["viewer"], **more}
        assert service.http.post("/v1/keys", json=asked, headers=ADMIN).status_code == 422
    for more in ({"owner": "admin"}, {"tenant": "theirs"}, {"state": "succeeded"}):
        assert service.http.post("/v1/jobs", json={"kind": "train", **more}, headers=ADMIN).status_code == 422
    service.make()
    shown = service.http.get("/v1/keys", headers=ADMIN).json()["keys"][0]
    assert not {"digest", "previous", "key", "client_secret"} & shown.keys()
    assert set(service.me(X_API_Key=ADMIN_KEY).json()) == {"subject", "tenant", "roles", "scopes"}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_api3_a_number_that_json_does_not_have_is_none(service: Live, value: str) -> None:
    body = '{"kind": "train", "parameters": {"train.lr": VALUE}}'.replace("VALUE", value)
    answer = service.http.post("/v1/jobs", content=body, headers={**ADMIN, "Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text


def test_api4_what_costs_is_counted_and_bounded(service: Live) -> None:
    scorer = key(service, "acme", "scorer")
    statuses = [service.http.post("/v1/predict", json={"texts": ["x"]}, headers=scorer).status_code for _ in range(7)]
    assert statuses == [200] * 5 + [429] * 2
    assert service.http.post("/v1/predict", json={"texts": ["x"] * 257}, headers=ADMIN).status_code == 422
    stranger = service.http.post("/v1/predict", content=b"[" + b" " * 30 * ANYBODYS + b"]", headers={"Content-Type": "application/json"})
    assert stranger.status_code == 401
    for limit in (0, 201, 10**9):
        assert service.http.get(f"/v1/jobs?limit={limit}", headers=ADMIN).status_code == 422
    trainer = key(service, "busy", "trainer")
    bodies = [{"kind": "train", "parameters": {"train.seed": n}} for n in range(51)]
    assert [service.http.post("/v1/jobs", json=body, headers=trainer).status_code for body in bodies] == [201] * 50 + [429]


def test_api5_a_function_is_for_the_roles_that_have_it(service: Live) -> None:
    viewer, scorer = key(service, "acme", "viewer"), key(service, "acme", "scorer")
    functions: list[tuple[str, str, dict[str, object]]] = [
        ("POST", "/v1/keys", {"name": "x", "roles": ["admin"]}),
        ("POST", "/v1/jobs", {"kind": "train"}),
        ("POST", "/v1/models/1/promote", {"alias": "champion"}),
        ("POST", "/v1/models/rollback", {}),
        ("GET", "/v1/audit", {}),
        ("POST", "/v1/predict", {"texts": ["x"]}),
    ]
    for method, path, body in functions:
        assert service.http.request(method, path, json=body, headers=viewer).status_code == 403, path
        assert service.http.request(method, path, json=body).status_code == 401, path
    assert service.http.post("/v1/jobs", json={"kind": "train"}, headers=scorer).status_code == 403
    for method in ("PUT", "PATCH", "TRACE", "OPTIONS", "HEAD"):
        assert service.http.request(method, "/v1/keys", headers=ADMIN).status_code == 405, method
    overridden = service.http.get("/v1/jobs", headers={**viewer, "X-HTTP-Method-Override": "POST", "X-Original-URL": "/v1/audit"})
    assert overridden.json() == {"jobs": [], "next": ""}


def test_api6_a_flow_that_matters_can_not_be_repeated_by_accident_or_flooded(service: Live) -> None:
    trainer, other = key(service, "acme", "trainer"), key(service, "other", "trainer")
    asked = {"kind": "train", "parameters": {"train.seed": 5}}
    first = service.http.post("/v1/jobs", json=asked, headers={**trainer, "Idempotency-Key": "monday"})
    again = service.http.post("/v1/jobs", json=asked, headers={**trainer, "Idempotency-Key": "monday"})
    assert (first.status_code, again.status_code, again.json()["id"]) == (201, 200, first.json()["id"])
    changed = {"kind": "train", "parameters": {"train.seed": 6}}
    assert service.http.post("/v1/jobs", json=changed, headers={**trainer, "Idempotency-Key": "monday"}).status_code == 422
    elsewhere = service.http.post("/v1/jobs", json=asked, headers={**other, "Idempotency-Key": "monday"})
    assert elsewhere.status_code == 201
    assert elsewhere.json()["id"] != first.json()["id"]
    ticket = service.http.post("/v1/auth/ticket", headers=trainer).json()["ticket"]
    assert service.own.tickets.take(ticket) is not None
    assert service.own.tickets.take(ticket) is None


@pytest.fixture
def listening() -> Iterator[tuple[str, socket.socket]]:
    """A place that somebody could have the service ask; it never may."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        opened.settimeout(0.3)
        yield f"127.0.0.1:{opened.getsockname()[1]}", opened


def test_api7_nothing_that_is_given_is_opened(service: Live, listening: tuple[str, socket.socket]) -> None:
    place, listener = listening
    for given in (f"http://{place}/x.csv", f"file://{place}/etc/passwd", "../../etc/passwd", "/etc/passwd", f"s3://{place}/x.csv"):
        answer = service.http.post("/v1/jobs", json={"kind": "score", "parameters": {"input": given}}, headers=ADMIN)
        assert answer.status_code == 422, answer.text
        assert "expected the id of an object" in answer.json()["detail"]
    headers = {**ADMIN, "Host": place, "Referer": f"http://{place}/", "X-Forwarded-Host": place, "Forwarded": f"host={place}"}
    assert service.http.get("/v1/me", headers=headers).status_code == 200
    assert place not in str(service.http.post("/v1/keys/", headers=headers).headers)
    with pytest.raises(TimeoutError):
        listener.accept()


@pytest.mark.parametrize("name", ["--help", "-x", "..", "a..b", "refs%2fheads%2fmain", "x@{1}", "x%00", "%2e%2e%2fparams.yaml", "1;ls"])
def test_api7_no_name_is_an_option_a_path_or_a_revision(service: Live, name: str) -> None:
    for path in (f"/v1/experiments/{name}/diff/workspace", f"/v1/models/{name}/report", f"/v1/lineage/{name}", f"/v1/jobs/{name}"):
        assert service.http.get(path, headers=ADMIN).status_code in (404, 405, 422), path


def test_api8_every_answer_tells_a_browser_what_it_must_not_do(service: Live) -> None:
    answers = [
        service.http.get("/livez"),
        service.http.get("/nothing"),
        service.http.get("/v1/me"),
        service.http.put("/v1/me"),
        service.http.post("/v1/auth/token", data={}),
        service.http.post("/v1/jobs", content=b"{", headers={**ADMIN, "Content-Type": "application/json"}),
        service.http.request("OPTIONS", "/v1/predict", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}),
        service.http.get("/v1/me", headers={**ADMIN, "Origin": "https://evil.example"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 401, 405, 400, 422, 405, 200]
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert answer.headers["Cache-Control"] == "no-store"
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
        assert answer.status_code == 200 or answer.headers["Content-Type"] == "application/problem+json"
        assert "Traceback" not in answer.text


@pytest.mark.parametrize("cursor", ["٣-٣", "1-1-1", "x", "-1", "99999999999999999999-0"])
def test_api8_a_forged_cursor_is_told_so(service: Live, cursor: str) -> None:
    id_ = job(service, ADMIN)
    for path in (f"/v1/jobs/{id_}/log", "/v1/jobs", "/v1/audit", "/v1/keys"):
        answer = service.http.get(path, params={"cursor": cursor}, headers=ADMIN)
        assert answer.status_code == 422, (path, answer.text)


def test_api8_a_page_of_another_site_can_not_send_a_form(service: Live) -> None:
    for origin in ("https://evil.example", "null", "http://[", f"{service.http.base_url}.evil.example"):
        assert service.http.post("/session", data={"key": ADMIN_KEY}, headers={"Origin": origin}).status_code == 403


def test_api6_signing_in_is_counted_whether_the_key_is_good_or_not(redis_url: str) -> None:
    with live(redis_url, limits="session.begin=3/day") as service:
        service.app.state.parts = replace(service.app.state.parts, sessions=sessions(redis_url))
        signed_in = [service.http.post("/session", data={"key": ADMIN_KEY}).status_code for _ in range(5)]
        assert signed_in == [303] * 3 + [429] * 2
        records = service.http.get("/v1/audit", headers=ADMIN).json()["records"]
        assert [(one["who"], one["action"], one["status"]) for one in records] == [("", "session.begin", 429)] + [
            ("admin", "session.begin", 303)
        ] * 3


def test_api9_there_is_one_version_and_nothing_beside_what_is_described(service: Live) -> None:
    document = service.http.get("/openapi.json").json()
    assert {path.split("/")[1] for path in document["paths"]} == {"v1", "livez", "readyz", "startupz", "healthz", "metrics"}
    for path in ("/docs", "/redoc", "/v0/predict", "/v2/predict", "/predict", "/debug", "/admin", "/.env", "/.git/config", "/v1/docs"):
        assert service.http.get(path, headers=ADMIN).status_code == 404, path
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            closed = path.startswith("/v1/") and path != "/v1/auth/token"
            assert not closed or operation["security"], (method, path)


class Careless(httpx.BaseTransport):
    """An issuer that sends what it should not."""

    def __init__(self, jwks: httpx.Response) -> None:
        self.jwks, self.asked = jwks, list[str]()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        if request.url.path.endswith("openid-configuration"):
            return httpx.Response(200, json={"issuer": "https://issuer.example", "jwks_uri": "https://issuer.example/keys"})
        return self.jwks


@pytest.mark.parametrize(
    "jwks",
    [
        httpx.Response(302, headers={"Location": "http://169.254.169.254/latest/meta-data"}),
        httpx.Response(200, content=b"x" * (2 << 20)),
        httpx.Response(200, content=b"[" * 100_000),
        httpx.Response(200, json={"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}),
        httpx.Response(200, json={"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "kid": ["a"]}]}),
        httpx.Response(200, json={"keys": "all"}),
    ],
    ids=["redirect", "large", "deep", "secret", "odd", "none"],
)
def test_api10_an_issuer_is_believed_no_more_than_it_has_to_be(jwks: httpx.Response) -> None:
    transport = Careless(jwks)
    issuer = OidcIssuer("https://issuer.example", Claims("finsight"), httpx.Client(transport=transport, follow_redirects=False))
    app = app_with(_Only(issuer), held_to=rules())  # type: ignore[arg-type]
    head = "eyJhbGciOiJFZERTQSIsImtpZCI6ImEifQ"  # {"alg":"EdDSA","kid":"a"}
    with served(app) as client:
        answer = client.get("/v1/me", headers={"Authorization": f"Bearer {head}.e30.eA"})
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    assert all(url.startswith("https://issuer.example/") for url in transport.asked)


class _Only:
    """A gate that knows an issuer's tokens alone."""

    def __init__(self, issuer: OidcIssuer) -> None:
        self._issuer = issuer

    def principal(self, presented: object) -> object:
        return self._issuer.principal(presented.bearer or "")  # type: ignore[attr-defined]
