"""The OpenAPI document of a service at work."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from apps import app_with, served
from finsight.service import openapi
from finsight.service.app import described


def test_it_is_made_once_and_beside_the_loop_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    made, makes = [], openapi.get_openapi

    def make(**asked: Any) -> dict[str, Any]:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        made.append(1)
        return makes(**asked)

    monkeypatch.setattr(openapi, "get_openapi", make)
    with served(app_with()) as client, ThreadPoolExecutor(4) as several:
        answers = list(several.map(lambda _: client.get("/openapi.json"), range(8)))
    assert {(answer.status_code, answer.headers["Content-Type"]) for answer in answers} == {(200, "application/json")}
    assert len(made) == 1
    assert answers[0].json() == described()
