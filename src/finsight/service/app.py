"""Predictions over REST, from an exported bundle."""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path
from typing import Annotated

import click
import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.exceptions import HTTPException

from finsight import __version__, bootstrap
from finsight.domain.metrics import softmax
from finsight.ports import Classifier
from finsight.settings import Settings

MAX_TEXTS, MAX_CHARACTERS = 256, 10_000
KEY_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False)


class PredictRequest(BaseModel):
    """Texts to label."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"texts": ["Operating profit rose to EUR 13.1 mn."]}})

    texts: Annotated[list[Annotated[str, StringConstraints(max_length=MAX_CHARACTERS)]], Field(min_length=1, max_length=MAX_TEXTS)]


class Prediction(BaseModel):
    """The label of one text, and the probability of each label."""

    label: str
    probabilities: dict[str, float]


class PredictResponse(BaseModel):
    """Predictions in the order of the texts."""

    predictions: list[Prediction]


def create_app(classifier: Classifier, key: str) -> FastAPI:
    """The service around one classifier; every route below ``/v1`` asks for ``key`` in the header ``X-API-Key``."""
    app = FastAPI(title="FinSight", version=__version__)

    def authenticated(given: Annotated[str | None, Depends(KEY_HEADER)]) -> None:
        if given is None or not hmac.compare_digest(given.encode(), key.encode()):
            raise HTTPException(401, "send the service's key in the header X-API-Key")

    @app.exception_handler(HTTPException)
    async def problem(_: Request, error: HTTPException) -> JSONResponse:
        return _problem(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return _problem(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")

    @app.get("/livez")
    def livez() -> dict[str, str]:
        """The process runs."""
        return {"status": "alive"}

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        """The bundle is verified and loaded; there is no service before that."""
        return {"status": "ready"}

    @app.post("/v1/predict", dependencies=[Depends(authenticated)])
    def predict(request: PredictRequest) -> PredictResponse:
        """Label one or many texts."""
        probs = softmax(classifier.logits(request.texts))
        labels = list(classifier.labels)
        return PredictResponse(
            predictions=[
                Prediction(label=labels[int(row.argmax())], probabilities={name: float(p) for name, p in zip(labels, row, strict=True)})
                for row in probs
            ]
        )

    return app


def _problem(status: int, detail: str) -> JSONResponse:
    """A problem document (RFC 9457)."""
    return JSONResponse({"type": "about:blank", "status": status, "detail": detail}, status, media_type="application/problem+json")


def run(bundle: Path, host: str, port: int) -> None:
    """Verify and load ``bundle``, then serve until interrupted; a key is made and printed when ``FINSIGHT_API_KEY`` is unset."""
    classifier = bootstrap.bundle_classifier(bundle)
    given = Settings().api_key
    key = given.get_secret_value() if given else secrets.token_urlsafe(24)
    if not given:
        click.echo(f"X-API-Key for this run: {key}   (set FINSIGHT_API_KEY to choose one)")
    click.echo(f"POST http://{host}:{port}/v1/predict, documentation at http://{host}:{port}/docs")
    uvicorn.run(create_app(classifier, key), host=host, port=port, log_level="warning")
