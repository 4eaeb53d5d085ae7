"""A headline on the page is asked as over REST: the same batches, kept results, limits and refusals."""

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import unescape

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from apps import Badges, Undecided, rules, served
from finsight.adapters.memory_results import MemoryResults
from finsight.adapters.redis_sessions import RedisSessions
from finsight.pipeline.predict import Model
from finsight.service import front_page
from finsight.service.app import create_app
from finsight.service.batching import Limits
from finsight.service.meters import Meters
from finsight.service.parts import Parts
from finsight.service.predictions import Predictions, Served


class Counted(Undecided):
    """A classifier that keeps what it was asked, and waits until it may answer."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()
        self.go.set()

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        assert self.go.wait(30)
        return super().logits(texts)


@contextmanager
def page(redis: str, model: Counted, limits: Limits = Limits(), allowance: str = "") -> Iterator[tuple[httpx.Client, str]]:  # noqa: B008
    """Somebody who has signed in to predict, and their token."""
    meters = Meters()
    found = Predictions(Served(Model(model, {}, 0.9, "fake"), "0" * 64), meters, limits, MemoryResults())
    parts = Parts(
        predictions=found,
        gate=Badges(),
        rules=rules(allowance),
        own=None,  # type: ignore[arg-type] # nobody here has a key
        sessions=RedisSessions(redis),
        meters=meters,
        running=(found.running,),
    )
    with served(create_app(parts)) as client:
        client.post("/session", data={"key": "ann:acme:scorer:predict"})
        token = re.search(r'name="csrf" value="([^"]+)"', client.get("/").text)
        assert token is not None
        yield client, token[1]


def said(answer: httpx.Response) -> str:
    (found,) = re.findall(r'role="alert">([^<]*)<', answer.text)
    return unescape(str(found))


def test_what_was_computed_over_rest_is_not_computed_again(redis_url: str) -> None:
    model = Counted()
    with page(redis_url, model) as (client, token):
        body = {"texts": ["profit rose"], "explain": True}
        assert client.post("/v1/predict", json=body, headers={"X-API-Key": "ann:acme:scorer"}).status_code == 200
        assert sorted(map(str.strip, model.asked)) == ["profit", "profit rose", "rose"]
        answer = client.post("/", data={"text": "profit rose", "csrf": token})
        assert answer.status_code == 200
        assert "but not sure" in answer.text
        assert len(re.findall('class="w ', answer.text)) == 2
        assert len(model.asked) == 3
        assert "Signed in as ann" in answer.text


def test_where_too_many_texts_wait_it_waits_no_more(redis_url: str) -> None:
    model = Counted()
    with page(redis_url, model, Limits(lanes=1, texts=1, waiting=1, patience=0)) as (client, token):
        model.go.clear()

        def ask(text: str) -> None:
            client.post("/v1/predict", json={"texts": [text]}, headers={"X-API-Key": "ann:acme:scorer"})

        others = [threading.Thread(target=ask, args=(text,)) for text in ("one", "two", "three")]
        for one in others:
            one.start()
            time.sleep(0.5)
        answer = client.post("/", data={"text": "profit <b>rose</b>", "csrf": token})
        model.go.set()
        for one in others:
            one.join()
        assert (answer.status_code, said(answer)) == (503, "too many texts wait; ask again later")
        assert int(answer.headers["Retry-After"]) >= 1
        assert ">profit &lt;b&gt;rose&lt;/b&gt;</textarea>" in answer.text  # what was typed stays


@pytest.mark.parametrize(
    ("text", "status", "says"),
    [("  ", 422, "Type a headline first."), ("x" * 1001, 422, "body.text: String should have at most 1000 characters")],
)
def test_what_is_no_headline_is_refused(redis_url: str, text: str, status: int, says: str) -> None:
    model = Counted()
    with page(redis_url, model) as (client, token):
        answer = client.post("/", data={"text": text, "csrf": token})
        assert (answer.status_code, said(answer)) == (status, says)
        assert model.asked == []


def test_the_limit_of_predictions_holds(redis_url: str) -> None:
    with page(redis_url, Counted(), allowance="predict=2/minute") as (client, token):
        answers = [client.post("/", data={"text": "x", "csrf": token}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert said(answers[2]).startswith("no more than 2 requests of this kind")
        assert "Retry-After" in answers[2].headers


def test_showing_the_page_counts_and_beyond_the_limit_nothing_outside_is_asked(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(front_page.core, "versions", lambda: [asked.append("MLflow")][1:])
    with page(redis_url, Counted(), allowance="me.read=2/minute") as (client, _):
        client.cookies.clear()
        assert all(client.get("/").status_code == 200 for _ in range(3)), "strangers cost nothing here"
        assert client.post("/session", data={"key": "bob:acme:viewer"}).status_code == 303
        assert [client.get("/").status_code for _ in range(2)] == [200, 200]
        assert asked == ["MLflow"] * 2
        answer = client.get("/")
        assert (answer.status_code, said(answer)) == (429, f"no more than 2 requests of this kind; wait {answer.headers['Retry-After']} s")
        assert "Signed in as bob" in answer.text
        assert "There is no version yet" not in answer.text
        assert asked == ["MLflow"] * 2
