"""The service over HTTP, as a client sees it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import pytest

from apps import app_with
from conftest import Project
from finsight.bundle import bundle_digest
from servers import free_port, wait_for

KEY = "a-key-for-tests"


@pytest.fixture(scope="module")
def client(finished: Project, redis_server: str) -> Iterator[httpx.Client]:
    port = free_port()
    command = [sys.executable, "-m", "finsight.cli", "serve", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=finished.root, env={**os.environ, "FINSIGHT_API_KEY": KEY, "FINSIGHT_REDIS_URL": redis_server}, stdout=subprocess.PIPE
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/readyz", process)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as opened:
            yield opened
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=30)
        assert KEY.encode() not in out


def test_alive_and_ready(client: httpx.Client, finished: Project) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready", "bundle": bundle_digest(finished.root / "models/bundle"), "version": None}


def test_predictions_come_in_order_and_sum_to_one(client: httpx.Client) -> None:
    answer = client.post("/v1/predict", json={"texts": ["Profit rose", "Profit fell"]}, headers={"X-API-Key": KEY})
    assert answer.status_code == 200
    predictions = answer.json()["predictions"]
    assert len(predictions) == 2
    for prediction in predictions:
        assert sum(prediction["probabilities"].values()) == pytest.approx(1)
        assert prediction["label"] == max(prediction["probabilities"], key=prediction["probabilities"].get)


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}, {"X-API-Key": ""}])
def test_without_the_key_there_is_no_answer(client: httpx.Client, headers: dict[str, str]) -> None:
    answer = client.post("/v1/predict", json={"texts": ["x"]}, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"texts": []},
        {"texts": "x"},
        {"texts": [1]},
        {"texts": ["x"] * 257},
        {"texts": ["x" * 10_001]},
        {"texts": [""]},
        {"texts": [" \n\t"]},
        {"texts": ["x"], "explain": "no idea"},
        {"texts": ["x"], "path": "/etc/passwd"},
    ],
)
def test_what_is_no_request_is_a_problem_document(client: httpx.Client, body: dict[str, object]) -> None:
    answer = client.post("/v1/predict", json=body, headers={"X-API-Key": KEY})
    assert answer.status_code == 422
    assert answer.json()["status"] == 422
    assert answer.json()["detail"].startswith("body.")


def test_an_unknown_route_is_a_problem_document(client: httpx.Client) -> None:
    answer = client.get("/nothing", headers={"X-Request-ID": "mine-0001"})
    about = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "Not Found", "correlation_id": "mine-0001"}
    assert answer.json() == about
    assert answer.headers["X-Request-ID"] == "mine-0001"


@pytest.mark.parametrize("given", ["", "short", "x" * 65, "a b c d e f g", "<script>alert(1)</script>"])
def test_what_can_be_no_correlation_id_is_replaced(client: httpx.Client, given: str) -> None:
    answer = client.get("/livez", headers={"X-Request-ID": given})
    assert len(answer.headers["X-Request-ID"]) == 16
    assert answer.headers["X-Request-ID"] != given


def test_every_answer_tells_a_browser_what_it_must_not_do(client: httpx.Client) -> None:
    for answer in (client.get("/livez"), client.get("/nothing"), client.post("/v1/predict")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "Server" not in answer.headers
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_every_route_says_who_may_use_it() -> None:
    from fastapi.routing import iter_route_contexts

    from finsight.service.access import action_of
    from finsight.service.plain_gates import OneKey

    app = app_with(OneKey("x"))
    routes = [route for route in iter_route_contexts(app.routes) if getattr(route, "dependant", None)]
    assert len(routes) >= 3
    for route in routes:
        actions = [action for one in route.dependant.dependencies if one.call and (action := action_of(one.call))]
        assert len(actions) == 1, route.path
        closed = route.path == "/metrics" or (route.path.startswith("/v1") and route.path != "/v1/auth/token")  # the page's: by its session
        assert (actions == ["anybody"]) != closed, route.path


def test_a_tampered_bundle_is_not_served(finished: Project, tmp_path) -> None:
    import shutil

    shutil.copytree(finished.root / "models/bundle", tmp_path / "models/bundle")
    path = tmp_path / "models/bundle/tokenizer.json"
    path.write_bytes(path.read_bytes() + b" ")
    done = subprocess.run([sys.executable, "-m", "finsight.cli", "serve"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: models/bundle/tokenizer.json: SHA-256 is")


def test_without_a_key_of_ones_own_one_is_made_and_shown_once(finished: Project, copy_of: Callable[[Project], Project]) -> None:
    port, own = free_port(), copy_of(finished)  # with a Redis of its own
    environment = {k: v for k, v in os.environ.items() if k != "FINSIGHT_API_KEY"} | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "finsight.cli", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=own.root, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        key = process.stdout.readline().split()[4]
        wait_for(f"http://127.0.0.1:{port}/readyz", process)  # type: ignore[arg-type]
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/predict", json={"texts": ["x"]}, headers={"X-API-Key": key})
        process.terminate()
    assert answer.status_code == 200
    assert process.returncode == 0
    assert "bye bye" in (own.root / ".service/redis/redis.log").read_text()  # Redis ended with it
