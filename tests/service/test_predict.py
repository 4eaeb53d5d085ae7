"""Predictions, metrics and a good end over HTTP, as a client sees them."""

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from conftest import LABELS, Project
from finsight.bundle import bundle_digest
from finsight.service.predict import MAX_EXPLAINED, PredictResponse
from serving import HEADERS, KEY, TEXTS, metric, serving


@pytest.fixture(scope="module")
def client(finished: Project) -> Iterator[httpx.Client]:
    with serving(finished.root) as (opened, _):
        yield opened


def test_an_answer_is_what_the_document_says_and_names_the_bundle(client: httpx.Client, finished: Project) -> None:
    answer = client.post("/v1/predict", json={"texts": TEXTS}).json()
    parsed = PredictResponse.model_validate(answer, strict=True)
    assert parsed.model.bundle == bundle_digest(finished.root / "models/bundle")
    assert parsed.model.version is None
    for prediction in parsed.predictions:
        assert prediction.probabilities is not None
        assert list(prediction.probabilities) == LABELS
        assert prediction.score == pytest.approx(prediction.probabilities["positive"] - prediction.probabilities["negative"])
    assert [set(one) for one in answer["predictions"]] == [{"label", "score", "sure", "probabilities"}] * 2
    assert answer["predictions"] == client.post("/v1/predict", json={"texts": TEXTS}).json()["predictions"]


def test_options(client: httpx.Client) -> None:
    asked = {"texts": TEXTS, "probabilities": False, "explain": True, "abstain": True}
    answer = client.post("/v1/predict", json=asked).json()
    PredictResponse.model_validate(answer, strict=True)
    for text, one in zip(TEXTS, answer["predictions"], strict=True):
        assert "probabilities" not in one
        assert (one["label"] is None) == (not one["sure"])
        assert [word["text"] for word in one["words"]] == text.split()
    too_many = client.post("/v1/predict", json={"texts": ["x"] * (MAX_EXPLAINED + 1), "explain": True})
    assert (too_many.status_code, too_many.json()["detail"][:13]) == (422, "body.explain:")


@pytest.mark.parametrize("body", [b"", b"{", b'{"texts": ["\\ud800"]}', b'{"texts": ["\xff"]}', b"[]", b"null", b'{"texts": NaN}'])
def test_what_is_no_json_request_is_a_problem_document(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v1/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_other_types_than_json_are_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/predict", content=json.dumps({"texts": TEXTS}), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422
    assert client.post("/v1/predict", data={"texts": "x"}).status_code == 422


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "🚀" * 5000, "مرحبا", "a" * 10_000, "\u202e\u200b x"])
def test_odd_texts_get_an_answer(client: httpx.Client, text: str) -> None:
    assert client.post("/v1/predict", json={"texts": [text]}).status_code == 200


def test_concurrent_requests_each_get_their_own_answer_in_few_batches(client: httpx.Client) -> None:
    texts = [f"Operating profit rose to EUR {n} mn" for n in range(128)]
    together = client.post("/v1/predict", json={"texts": texts}).json()["predictions"]
    with serving_pool(client) as ask:
        alone = list(ask(texts))
    for one, other in zip(together, alone, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=0.2)  # int8 differs by what it is computed with
        assert sum(other["probabilities"].values()) == pytest.approx(1)
    assert metric(client, "finsight_result_cache_total", cache="memory", found="yes") >= 128


@contextmanager
def serving_pool(client: httpx.Client) -> Iterator[object]:
    def ask(text: str) -> dict[str, object]:
        return client.post("/v1/predict", json={"texts": [text]}).json()["predictions"][0]

    with ThreadPoolExecutor(32) as pool:
        yield lambda texts: pool.map(ask, texts)


def test_predictions_are_held_against_what_the_model_was_made_with(client: httpx.Client, finished: Project) -> None:
    for label, rows in finished.json("prepare.json")["splits"]["train"]["labels"].items():
        assert metric(client, "finsight_training_rows", label=label) == rows
    for name in ("accuracy", "macro_f1"):
        assert metric(client, "finsight_model_test_score", metric=name) == finished.json("metrics.json")[name]
    assert 'finsight_prediction_drift_psi{of="confidence"}' in client.get("/metrics").text


def test_metrics_name_routes_by_template_alone(client: httpx.Client) -> None:
    for path in ("/v1/nothing-1", "/nothing/2", "/livez"):
        client.get(path)
    client.request("BREW", "/v1/predict")
    text = client.get("/metrics").text
    assert "nothing" not in text
    assert "BREW" not in text
    assert metric(client, "finsight_requests_total", method="GET", route="unknown", status="404") >= 2
    assert metric(client, "finsight_requests_total", route="/v1/predict", status="200") >= 1
    assert metric(client, "finsight_request_seconds_count", route="/v1/predict") >= 1
    assert metric(client, "finsight_batch_texts_sum") >= 1
    assert metric(client, "finsight_model_info") == 1
    assert metric(client, "finsight_texts_waiting") == 0
    assert metric(client, "finsight_predictions_total") >= 1
    assert metric(client, "finsight_prediction_drift_rows") >= 1
    assert metric(client, "finsight_queue_up") == 1
    assert metric(client, "finsight_disk_size_bytes", place="project") > 0


def test_metrics_are_open_to_this_host_alone(client: httpx.Client) -> None:
    with httpx.Client(base_url=client.base_url) as stranger:
        assert stranger.get("/metrics").status_code == 200
        assert stranger.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 401
        for header in ("X-Forwarded-Proto", "X-Envoy-Attempt-Count"):  # of a service mesh, whose proxy is in the same pod
            assert stranger.get("/metrics", headers={header: "1"}).status_code == 401
        assert stranger.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1", **HEADERS}).status_code == 200


def test_a_request_whose_client_is_gone_is_dropped(client: httpx.Client) -> None:
    body = json.dumps({"texts": [f"{n} " + "long text " * 900 for n in range(256)]}).encode()
    head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=10) as opened:
        opened.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(0.3)
    end = time.monotonic() + 10
    while metric(client, "finsight_clients_gone_total") == 0:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert metric(client, "finsight_texts_waiting") == 0


def test_on_sigterm_it_says_so_answers_what_it_took_and_ends_with_0(finished: Project) -> None:
    with serving(finished.root, "--no-cache", FINSIGHT_DRAIN_SECONDS="1.5") as (client, process):
        asked = {"texts": [f"{n} " + "long text " * 900 for n in range(64)]}
        answers: list[int] = []

        def ask() -> None:
            answers.append(httpx.post(f"{client.base_url}/v1/predict", json=asked, headers=HEADERS, timeout=60).status_code)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["type"]) == (503, "urn:finsight:problem:draining")
        assert ready.headers["Connection"] == "close"
        assert client.post("/v1/predict", json={"texts": TEXTS}).status_code == 200
        for thread in threads:
            thread.join()
        assert answers == [200] * 4
        client.close()
        assert process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{client.base_url}/readyz")


def test_on_sigterm_a_socket_is_told_so_and_the_process_ends_with_0(finished: Project) -> None:
    with serving(finished.root) as (client, process):
        url = f"ws://127.0.0.1:{client.base_url.port}/v1/ws/predict"
        with connect(url, additional_headers=HEADERS, proxy=None) as opened:
            opened.send(json.dumps({"id": 1, "text": TEXTS[0]}))
            posted = client.post("/v1/predict", json={"texts": TEXTS[:1]}).json()
            assert json.loads(opened.recv(timeout=20)) == {"id": 1, "model": posted["model"], "prediction": posted["predictions"][0]}
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                opened.recv(timeout=20)
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1012
        client.close()
        assert process.wait(30) == 0
