"""Each role × each route and socket of the app × what is one's own tenant's and another's.

What is expected stands here, written by hand, and not in the policy's file. A route that the table does not know fails.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.exceptions import WebSocketException
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from apps import app_with, rules, served
from finsight.adapters.folder_artifacts import FolderArtifacts
from finsight.adapters.redis_queue import RedisQueue
from finsight.bootstrap.credentials import credential_stores
from finsight.domain.actions import ACTIONS
from finsight.domain.jobs import Kind, Limits, Order
from finsight.domain.keys import ApiKey
from finsight.service.access import ANYBODY, may
from finsight.service.access import actions as actions_of
from finsight.service.gate import Credentialing
from finsight.service.jobs import Jobs
from finsight.service.tokens import Tokens
from finsight.service.uploads import Scoring
from finsight.settings import load_settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")  # MLflow's
VIEWER = {"me.read", "auth.ticket", "jobs.read", "experiments.read", "models.read", "lineage.read", "data.read"}
SCORER = VIEWER | {"predict", "score", "jobs.create", "jobs.create.score", "jobs.cancel"}
KINDS = {f"jobs.create.{kind}" for kind in ("train", "evaluate", "export", "register", "validate", "score", "tune")}
TRAINER = SCORER | KINDS
RELEASER = VIEWER | {"predict", "models.promote", "models.rollback"}
MONITOR = {"metrics.read"}
ADMIN = TRAINER | RELEASER | MONITOR | {"keys.create", "keys.read", "keys.revoke", "audit.read"}
MAY: dict[str, set[str]] = {
    "viewer": VIEWER, "scorer": SCORER, "trainer": TRAINER, "releaser": RELEASER, "monitor": MONITOR, "admin": ADMIN, "nobody": set(),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A route.

    :param action: what it asks for; ``anybody`` where it asks for no credential.
    :param names: for each tenant, what its path's parameters are, where it is about a thing of a tenant's.
    :param body: what is sent; {} goes as far as the door, since what is wrong with it is told only to who may send it.
    :param lacking: how anybody is told that they have no session, where the answer is no page to begin one.
    """

    action: str
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    body: object = None
    lacking: int = 200


NOTHING = {"version": "1", "base": "1", "new": "2"}  # which a registry without versions does not have
KEYS = {"own": {"key_id": "a" * 24}, "other": {"key_id": "b" * 24}}
JOBS: dict[str, dict[str, str]] = {"own": {"job": "a" * 32}, "other": {"job": "b" * 32}}  # what their ids are is known later
ROUTES: dict[tuple[str, str], Row] = {
    ("GET", "/openapi.json"): Row(ANYBODY),
    ("GET", "/livez"): Row(ANYBODY),
    ("GET", "/readyz"): Row(ANYBODY),
    ("GET", "/startupz"): Row(ANYBODY),
    ("GET", "/healthz"): Row(ANYBODY),
    ("POST", "/v1/predict"): Row("predict", body={}),
    ("POST", "/v1/score"): Row("score", body={}),
    ("POST", "/v1/jobs"): Row("jobs.create", body={}),
    ("GET", "/v1/jobs"): Row("jobs.read"),
    ("GET", "/v1/jobs/{job}"): Row("jobs.read", JOBS),
    ("GET", "/v1/jobs/{job}/log"): Row("jobs.read", JOBS),
    ("GET", "/v1/jobs/{job}/result"): Row("jobs.read", JOBS),
    ("DELETE", "/v1/jobs/{job}"): Row("jobs.cancel", JOBS),
    ("WS", "/v1/ws/jobs/{job}"): Row("jobs.read", JOBS),
    ("WS", "/v1/ws/predict"): Row("predict"),
    ("GET", "/v1/models"): Row("models.read"),
    ("GET", "/v1/models/{version}"): Row("models.read"),
    ("POST", "/v1/models/{version}/promote"): Row("models.promote", body={}),
    ("POST", "/v1/models/rollback"): Row("models.rollback", body={}),
    ("GET", "/v1/models/{version}/report"): Row("models.read"),
    ("GET", "/v1/models/{version}/card"): Row("models.read"),
    ("GET", "/v1/experiments"): Row("experiments.read"),
    ("GET", "/v1/experiments/{base}/diff/{new}"): Row("experiments.read"),
    ("GET", "/v1/lineage/{version}"): Row("lineage.read"),
    ("GET", "/v1/data/validation"): Row("data.read"),
    # The page's own routes ask for a session; test_pages has what each role may do there.
    ("GET", "/"): Row(ANYBODY),
    ("POST", "/"): Row(ANYBODY),
    ("POST", "/session"): Row(ANYBODY),
    ("POST", "/session/end"): Row(ANYBODY),
    ("POST", "/promote"): Row(ANYBODY),
    ("POST", "/rollback"): Row(ANYBODY),
    ("GET", "/models/{version}/report"): Row(ANYBODY),
    ("GET", "/static/live.js"): Row(ANYBODY),
    ("POST", "/jobs"): Row(ANYBODY),
    ("GET", "/jobs/{job}"): Row(ANYBODY, JOBS),
    ("POST", "/jobs/{job}/cancel"): Row(ANYBODY, JOBS),
    ("GET", "/live/jobs"): Row(ANYBODY, lacking=401),
    ("GET", "/live/jobs/{job}"): Row(ANYBODY, JOBS, lacking=401),
    ("GET", "/session/oidc"): Row(ANYBODY, lacking=404),  # no issuer is set
    ("GET", "/session/oidc/callback"): Row(ANYBODY, lacking=404),
    ("GET", "/metrics"): Row("metrics.read"),
    ("GET", "/v1/audit"): Row("audit.read"),
    ("POST", "/v1/auth/token"): Row(ANYBODY),
    ("POST", "/v1/auth/ticket"): Row("auth.ticket"),
    ("GET", "/v1/me"): Row("me.read"),
    ("POST", "/v1/keys"): Row("keys.create", body={}),
    ("GET", "/v1/keys"): Row("keys.read"),
    ("POST", "/v1/keys/{key_id}/rotate"): Row("keys.create", KEYS, body={}),
    ("DELETE", "/v1/keys/{key_id}"): Row("keys.revoke", KEYS),
}


SURFACE = actions_of(app_with())


def test_every_route_and_socket_is_in_the_table_and_asks_for_its_action() -> None:
    assert SURFACE.keys() == ROUTES.keys()
    for key, row in ROUTES.items():
        assert SURFACE[key] == [row.action] or (row.action, SURFACE[key]) == (ANYBODY, []), key


def test_each_action_of_the_table_is_one() -> None:
    for action in {row.action for row in ROUTES.values()} - {ANYBODY}:
        assert any(one == action or one.startswith(f"{action}.") for one in ACTIONS), action
    assert set(ACTIONS) == ADMIN - {"jobs.create"}


def test_a_route_or_socket_that_nobody_wrote_down_is_found() -> None:
    app = app_with()

    async def socket(opened: WebSocket) -> None:
        await opened.accept()

    app.add_api_websocket_route("/v1/ws/new", socket)
    app.add_api_route("/v1/new", lambda: 1, methods=["DELETE"], dependencies=[may("keys.revoke")])
    new = {key: actions for key, actions in actions_of(app).items() if key not in ROUTES}
    assert new == {("WS", "/v1/ws/new"): [], ("DELETE", "/v1/new"): ["keys.revoke"]}


@pytest.fixture(scope="module")
def app(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    settings = load_settings()
    stores = credential_stores(redis_server, settings, 1)
    own = Credentialing(stores.keys, stores.tickets, stores.failures, Tokens(stores.keys, stores.signing))
    amounts = "; ".join(f"{name}=100000/second" for name in ("*", "predict", "unknown", "auth.token"))
    jobs = Jobs(RedisQueue(redis_server), lambda kind, parameters, tenant, owner: Order(kind, parameters, tenant, owner))
    scoring = Scoring(FolderArtifacts(tmp_path_factory.mktemp("objects")))
    return app_with(held_to=rules(amounts), own=own, jobs=jobs, scoring=scoring)


@pytest.fixture(autouse=True)
def things(app: FastAPI) -> None:
    """A key and a job of each tenant, which the case before may have ended."""
    own: Credentialing = app.state.parts.own
    queue: RedisQueue = app.state.parts.jobs.queue
    for tenant, whose in (("acme", "own"), ("elsewhere", "other")):
        id_ = KEYS[whose]["key_id"]
        own.keys.add(ApiKey(id_, "a key", tenant, frozenset({"viewer"}), frozenset(), "0" * 64, 0.0, time.time() + 1000, "key:x"))
        JOBS[whose]["job"] = queue.submit(Order(Kind.SCORE, {}, tenant, "ann"), "", Limits(1000, 1000))[0].id


@pytest.fixture(scope="module", autouse=True)
def _empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db")
        yield


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[httpx.Client]:
    with served(app) as opened:
        yield opened


def asked(client: httpx.Client, method: str, path: str, row: Row, headers: dict[str, str]) -> int:
    """The status of the answer; a socket that opens is a 101, one that is refused has the status of its refusal."""
    headers = {**headers, "Via": "1.1 proxy"}  # from elsewhere: this host may read the metrics
    if method != "WS":
        return client.request(method, path, json=row.body, headers=headers).status_code
    url = f"ws://{client.base_url.netloc.decode()}{path}"
    try:
        with connect(url, additional_headers=headers, proxy=None, compression=None):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


@pytest.mark.parametrize("whose", ["own", "other"])
@pytest.mark.parametrize("role", [*MAY, None])
@pytest.mark.parametrize(("method", "path"), SURFACE)
def test_a_role_may_what_the_table_says(client: httpx.Client, method: str, path: str, role: str | None, whose: str) -> None:
    row = ROUTES[method, path]
    key = {"X-API-Key": f"ann:{'acme' if whose == 'own' or row.names else 'other'}:{role}"} if role else {}
    status = asked(client, method, path.format(**NOTHING | row.names.get(whose, {})), row, key)
    if row.action == ANYBODY:
        assert status in (200, 303, 400, 422, row.lacking)
    elif role is None:
        assert status == 401
    elif row.action not in MAY[role]:
        assert status == 403
    elif row.names and whose == "other":
        assert status == 404
    else:
        assert status not in (401, 403, 429, *([404] if row.names else []))
        assert status < 500


@pytest.mark.parametrize("role", MAY)
@pytest.mark.parametrize(("scope", "opened"), [("data.read", "data.read"), ("jobs.create.*", "jobs.create")])
def test_scopes_close_what_they_do_not_name(client: httpx.Client, role: str, scope: str, opened: str) -> None:
    for (method, path), row in ROUTES.items():
        if row.action != ANYBODY:
            narrowed = {"X-API-Key": f"ann:acme:{role}:{scope}"}
            status = asked(client, method, path.format(**NOTHING | row.names.get("own", {})), row, narrowed)
            assert (status == 403) == (row.action != opened or row.action not in MAY[role]), (method, path)


@pytest.mark.parametrize("role", MAY)
@pytest.mark.parametrize("scope", ["", "jobs.*", "jobs.create.*", "jobs.create.train", "jobs.create.score", "jobs.read"])
def test_a_kind_of_job_is_asked_of_role_and_scope(client: httpx.Client, role: str, scope: str) -> None:
    named = {"": KINDS, "jobs.*": KINDS, "jobs.create.*": KINDS}.get(scope, {scope})
    for kind in Kind:
        answer = client.post("/v1/jobs", json={"kind": kind}, headers={"X-API-Key": f"ann:acme:{role}:{scope}"})
        assert (answer.status_code != 403) == (f"jobs.create.{kind}" in MAY[role] & named), kind
        assert answer.status_code in (200, 201, 403)


def test_a_socket_is_asked_as_a_route_is() -> None:
    """The way that the matrix asks sockets, on one that opens and one that does not."""
    app = app_with()

    async def socket(opened: WebSocket) -> None:
        await opened.accept()

    def closed() -> None:
        raise WebSocketException(1008)

    app.add_api_websocket_route("/open", socket)
    app.add_api_websocket_route("/closed", socket, dependencies=[Depends(closed)])
    with served(app) as client:
        assert asked(client, "WS", "/open", Row(ANYBODY), {}) == 101
        assert asked(client, "WS", "/closed", Row(ANYBODY), {}) == 403
