"""Traces as a collector gets them: over HTTP, in protobuf."""

import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from apps import app_with, served
from clones import copy_tree
from conftest import Project
from finsight import tracing
from finsight.adapters.redis_queue import RedisQueue
from finsight.domain.jobs import Kind, Order
from finsight.errors import UnreachableError
from finsight.service.jobs import Jobs
from finsight.service.worker import Worker
from otlp import Received, Receiver, receiving
from servers import S3_KEY, S3_SECRET
from serving import serving

SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
KEY = {"X-API-Key": "ann:acme:trainer"}
TEXT = "the text of a client"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Traces of this process, all of them."""
    with receiving() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_on")
        tracing.start("api")
        yield found
        tracing.stop()


@pytest.mark.long
def test_nothing_is_traced_nor_imported_unless_asked() -> None:
    asked = (
        "import sys, finsight.service.app, finsight.command, finsight.adapters.buckets; from finsight import tracing; tracing.start('api');"
        "print(tracing.on(), [name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, text=True)
    assert done.stdout == "False []\n", done.stderr
    for off in ({"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}):
        named = {**environment, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", **off}
        assert subprocess.run([sys.executable, "-c", asked], env=named, capture_output=True, text=True).stdout == "False []\n"


def test_a_request_goes_on_with_its_clients_trace_and_carries_the_correlation_id(collector: Receiver) -> None:
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with served(app_with()) as client:
        headers = {"traceparent": f"00-{trace}-{parent}-01", "X-Request-ID": "mine-0001", **KEY}
        assert client.post("/v1/predict", json={"texts": ["a text of a client"]}, headers=headers).status_code == 200
        assert client.get("/v1/jobs/nothing-here?ticket=s3cret", headers=KEY).status_code == 422
        client.get("/readyz")
    tracing.stop()
    (span,) = collector.named("finsight-api", "POST /v1/predict")
    assert (span.trace, span.parent, span.kind, span.error) == (trace, parent, SERVER, False)
    assert span.attributes["finsight.correlation_id"] == "mine-0001"
    assert span.attributes["http.response.status_code"] == 200
    assert [one.name for one in collector.spans] == ["POST /v1/predict", "GET /v1/jobs/{job}"]  # health is not traced
    assert "s3cret" not in str(collector.spans)
    assert "a text of a client" not in str(collector.spans)


def test_an_error_is_on_the_span_with_the_correlation_id_and_without_the_text(collector: Receiver) -> None:
    app = app_with()

    async def broken() -> None:
        raise RuntimeError(TEXT)

    async def away() -> None:
        raise UnreachableError("MLflow at http://user:s3cret@host: no answer")

    app.add_api_route("/broken", broken)
    app.add_api_route("/away", away)
    with served(app) as client:
        said = {path: client.get(path) for path in ("/broken", "/away")}
    tracing.stop()
    assert [answer.status_code for answer in said.values()] == [500, 503]
    for path, kind, words in (
        ("/broken", "RuntimeError", "[hidden]"),
        ("/away", "finsight.errors.UnreachableError", "MLflow at http://host: no answer"),
    ):
        (span,) = collector.named("finsight-api", f"GET {path}")
        (event,) = span.events
        assert span.error
        assert (event["name"], event["exception.type"], event["exception.message"]) == ("exception", kind, words)
        assert event["finsight.correlation_id"] == said[path].headers["X-Request-ID"]
        assert "test_tracing.py" in event["exception.stacktrace"]
    assert TEXT not in str(collector.spans)


def test_of_predictions_a_share_is_traced_where_nothing_else_is_said(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_TRACES_SAMPLER")
    drawn = iter([tracing.SHARE - 0.01, tracing.SHARE, 0.9])
    monkeypatch.setattr("finsight.tracing.random.random", lambda: next(drawn))
    with served(app_with()) as client:
        for _ in range(3):
            assert client.post("/v1/predict", json={"texts": ["x"]}, headers=KEY).status_code == 200
        assert client.get("/v1/me", headers=KEY).status_code == 200
    tracing.stop()
    assert [span.name for span in collector.spans] == ["POST /v1/predict", "GET /v1/me"]


def test_a_socket_is_a_span_until_it_closes(collector: Receiver) -> None:
    import json

    from websockets.sync.client import connect

    with served(app_with()) as client:
        url = str(client.base_url).replace("http", "ws", 1) + "/v1/ws/predict"
        with connect(url, additional_headers=KEY) as socket:
            socket.send(json.dumps({"id": 1, "text": "Profit rose"}))
            assert json.loads(socket.recv())["id"] == 1
    tracing.stop()
    (span,) = collector.named("finsight-api", "WS /v1/ws/predict")
    assert (span.kind, span.attributes["http.response.status_code"]) == (SERVER, 101)


def test_a_job_goes_on_with_its_requests_trace_in_worker_and_process(collector: Receiver, redis_url: str, tmp_path: Path) -> None:
    from finsight.adapters.job_process import plain_environment
    from finsight.adapters.jobs import Work

    queue = RedisQueue(redis_url)

    def order(kind: Kind, parameters: Any, tenant: str, owner: str) -> Order:
        return Order(kind, parameters, tenant, owner)

    def work(_: Any) -> Work:
        script = "echo $TRACEPARENT $FINSIGHT_CORRELATION_ID; exit 3"
        return Work([["sh", "-c", script]], tmp_path, plain_environment())

    with served(app_with(jobs=Jobs(queue, order))) as client:
        made = client.post("/v1/jobs", json={"kind": "train"}, headers={**KEY, "X-Request-ID": "ordered-by-me"})
        assert made.json()["correlation_id"] == "ordered-by-me"
        assert client.post("/v1/jobs", json={"kind": "train"}, headers=KEY).json()["correlation_id"] == "ordered-by-me"  # the same job
    said: list[str] = []
    Worker(queue, work, say=lambda line: said.append(f"{tracing.CORRELATION.get()} {line}")).once(lambda: False)
    assert tracing.CORRELATION.get() == ""
    job = made.json()["id"]
    lines = [event.content["line"] for event in queue.events(job) if event.content["type"] == "log"]
    queue.close()
    tracing.stop()
    (publish, *_), (run,) = collector.named("finsight-api", "jobs publish"), collector.named("finsight-api", "job train")
    assert (publish.kind, run.kind) == (PRODUCER, CONSUMER)
    assert [one.name for one in collector.above(run)] == ["jobs publish", "POST /v1/jobs"]
    (line,) = lines
    assert re.fullmatch(f"00-{run.trace}-{run.id}-0[13] ordered-by-me", line)  # sampled; 2 says that the id is random
    assert all(line.startswith("ordered-by-me ") for line in said)
    assert run.attributes["finsight.ending"] == "broken"
    assert (run.error, run.events[0]["finsight.correlation_id"]) == (True, "ordered-by-me")


@pytest.mark.long
def test_a_collector_that_is_away_costs_no_answer_and_little_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    caplog.set_level(logging.CRITICAL)
    tracing.start("api")
    with served(app_with()) as client:
        assert [client.get("/v1/me", headers=KEY).status_code for _ in range(20)] == [200] * 20
    began = time.monotonic()
    tracing.stop()
    assert time.monotonic() - began < 10


@pytest.mark.long
def test_a_collector_that_takes_and_never_answers_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
        tracing.start("api")
        for _ in range(2048):
            with tracing.span("x"):
                pass
        began = time.monotonic()
        tracing.stop()
        assert time.monotonic() - began < 9


@pytest.mark.long
def test_a_variable_that_can_not_be_is_told_in_one_line(in_folder: Path) -> None:
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "-1"}
    command = [sys.executable, "-m", "finsight.cli", "fastest"]
    done = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: OTEL_…: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_one_trace_spans_request_queue_worker_stage_and_storage(
    finished: Project, redis_url: str, mlflow_server: str, s3: tuple[str, Path], tmp_path: Path
) -> None:
    clone = copy_tree(tmp_path / "clone")
    clone("git", "add", "-A")
    clone("git", "commit", "-qm", "tree")
    clone("dvc", "status")  # makes .dvc/tmp
    (s3[1] / "traced").mkdir(exist_ok=True)
    with receiving() as collector:
        env = {
            **clone.env,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_SERVICE_NAME": "front",
            "FINSIGHT_REDIS_URL": redis_url,
            "FINSIGHT_OBJECTS": "s3://traced/objects",
            "MLFLOW_TRACKING_URI": mlflow_server,
            "AWS_ENDPOINT_URL": s3[0],
            "AWS_ACCESS_KEY_ID": S3_KEY,
            "AWS_SECRET_ACCESS_KEY": S3_SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        bundle = str(finished.root / "models/bundle")
        command = [sys.executable, "-m", "finsight.cli", "worker", "--bundle", bundle]
        named = {**env, "OTEL_SERVICE_NAME": "back"}
        with serving(clone.root, "--bundle", bundle, **env) as (client, _):
            worker = subprocess.Popen(command, cwd=clone.root, env=named, stderr=subprocess.PIPE, text=True)
            try:
                jobs = _asked(client)
            finally:
                worker.terminate()
                log = worker.communicate(timeout=60)[1]
        validated, scored = jobs["validate"], jobs["score"]
        (validate,), (read,) = collector.named("finsight-stage", "stage validate"), collector.named("finsight-cli", "finsight score-object")
        path = [(one.service, one.name) for one in collector.above(validate)]
        assert path == [("back", "job validate"), ("front", "jobs publish"), ("front", "POST /v1/jobs")]
        assert {one.attributes["finsight.correlation_id"] for one in (validate, *collector.above(validate))} == {validated}
        assert {one.service for one in collector.spans if one.trace == validate.trace} == {"front", "back", "finsight-stage"}
        assert [one.name for one in collector.above(read)] == ["job score", "jobs publish", "POST /v1/score"]
        below = [one for one in collector.spans if one.trace == read.trace and one.name.startswith("s3 ")]
        _are_calls(below, "s3")
        assert {"front", "finsight-cli"} == {one.service for one in below}
        assert {"s3 PutObject", "s3 GetObject"} <= {one.name for one in below}
        (listed,) = collector.named("front", "GET /v1/models")
        asked = [one for one in collector.spans if one.trace == listed.trace and one.name.startswith("mlflow ")]
        _are_calls(asked, "mlflow")
        assert all(collector.above(one)[0].id == listed.id for one in asked)
        assert [line for line in log.splitlines() if validated in line and '"event": "validate ' in line], log
        assert [line for line in log.splitlines() if scored in line and validate.trace not in line and read.trace in line], log
        assert S3_SECRET not in str(collector.spans) + log


def _asked(client: httpx.Client) -> dict[str, str]:
    """A validation and a scoring, done; the correlation id of each."""
    table = b"text\nProfit rose\nSales fell\n"
    answers = {
        "validate": client.post("/v1/jobs", json={"kind": "validate"}),
        "score": client.post("/v1/score", content=table, headers={"Content-Type": "text/csv"}),
    }
    for kind, answer in answers.items():
        assert answer.status_code in (201, 202), answer.text
        path = f"/v1/jobs/{answer.json()['id']}"
        end = time.monotonic() + 480
        while client.get(path).json()["state"] in ("queued", "running"):
            assert time.monotonic() < end
            time.sleep(1)  # within the limits of a credential
        assert client.get(path).json()["state"] == "succeeded", (kind, client.get(f"{path}/log").text)
    assert client.get("/v1/models").status_code == 200
    return {kind: answer.headers["X-Request-ID"] for kind, answer in answers.items()}


def _are_calls(spans: list[Received], system: str) -> None:
    assert spans
    assert {(one.kind, one.attributes["peer.service"]) for one in spans} == {(CLIENT, system)}
    assert all(one.seconds > 0 for one in spans)
