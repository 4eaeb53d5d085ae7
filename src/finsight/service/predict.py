"""Predictions over REST."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import to_json

from finsight.pipeline import predict as core
from finsight.pipeline.explain import Explanation
from finsight.service.access import may
from finsight.service.batching import FullError
from finsight.service.gone import CLIENT_GONE, GoneError, unless_gone
from finsight.service.parts import Parts
from finsight.service.predictions import Rows, Served
from finsight.service.problems import Problem
from finsight.service.schemas import RequestBody

MAX_TEXTS, MAX_CHARACTERS, MAX_EXPLAINED = 256, 10_000, 4
router = APIRouter(tags=["predictions"])

Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_CHARACTERS, pattern=r"\S")]


class PredictRequest(RequestBody):
    """Texts to label, and what to say of them."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"texts": ["Operating profit rose to EUR 13.1 mn."], "explain": True}]},
    )

    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    probabilities: Annotated[bool, Field(description="Whether the probability of each label is answered.")] = True
    explain: Annotated[bool, Field(description=f"Whether each word's effect is answered; for at most {MAX_EXPLAINED} texts.")] = False
    abstain: Annotated[bool, Field(description="Whether `label` is null where the model is not sure.")] = False


class Word(BaseModel):
    """A word of a text, and by how much the probability of the text's label falls without it."""

    text: str
    effect: float


class Prediction(BaseModel):
    """The label of one text, and how sure that is.

    `score` is the mean of the labels' places between -1 and 1 by their probabilities, null where labels have no order. `sure` says whether
    the label is one of those that were right as often as wanted, null where that is not known. `label` is of the most probable one.
    """

    label: str | None
    score: float | None
    sure: bool | None
    probabilities: dict[str, float] | None = Field(None, description="Absent where they were not asked for.")
    words: list[Word] | None = Field(None, description="Absent where no explanation was asked for.")


class ModelInService(BaseModel):
    """The bundle that all predictions of an answer come from."""

    bundle: str = Field(description="Its digest.")
    version: int | None = Field(description="Its number in the registry; null where it is not from there.")
    format: str


class PredictResponse(BaseModel):
    """Predictions in the order of the texts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": {"bundle": "0f" * 32, "version": 3, "format": "onnx-int8"},
                    "predictions": [
                        {
                            "label": "positive",
                            "score": 0.91,
                            "sure": True,
                            "probabilities": {"negative": 0.02, "neutral": 0.05, "positive": 0.93},
                            "words": [{"text": "Operating", "effect": 0.01}, {"text": "profit", "effect": 0.02}],
                        }
                    ],
                }
            ]
        }
    )

    model: ModelInService
    predictions: list[Prediction]


@router.post("/predict", dependencies=[may("predict")], response_model=PredictResponse)
async def predict(asked: PredictRequest, request: Request) -> Response:
    """Label one or many texts."""
    try:
        served, rows, words = await predicted(asked, request)
    except GoneError:
        return Response(status_code=CLIENT_GONE)
    # Built without the response model, which is there for the document: checking our own answer again costs more than making it.
    return Response(to_json(answer(asked, served, served.model.read(rows), words)), media_type="application/json")


async def predicted(asked: PredictRequest, request: Request) -> tuple[Served, Rows, list[Explanation] | None]:
    """Probabilities of texts, with those of all other requests: the bundle that gave them, a row a text, and explanations where asked for.

    :raises Problem: 422 where too many are to be explained, 503 where too many texts wait.
    :raises GoneError: when the client does not wait for it.
    """
    parts: Parts = request.app.state.parts
    if asked.explain and len(asked.texts) > MAX_EXPLAINED:
        raise Problem(422, f"body.explain: got {len(asked.texts)} texts, expected at most {MAX_EXPLAINED}; ask in several requests")
    try:
        if asked.explain:
            return await unless_gone(request, parts.predictions.explain(asked.texts))
        return *await unless_gone(request, parts.predictions.ask(asked.texts)), None
    except FullError as full:
        parts.meters.refused.inc()
        raise Problem(503, "too many texts wait; ask again later", "busy", {"Retry-After": str(full.seconds)}) from None
    except GoneError:
        parts.meters.gone.inc()
        raise


def answer(asked: PredictRequest, served: Served, found: list[core.Prediction], words: list[Explanation] | None) -> dict[str, Any]:
    """What :class:`PredictResponse` describes."""
    predictions = []
    for i, one in enumerate(found):
        known: dict[str, Any] = {
            "label": None if asked.abstain and not one.sure else one.label,
            "score": one.score,
            "sure": one.sure,
        }
        if asked.probabilities:
            known["probabilities"] = one.probabilities
        if words is not None:
            known["words"] = [{"text": word.text, "effect": word.effect} for word in words[i].words]
        predictions.append(known)
    return {"model": {"bundle": served.digest, "version": served.version, "format": served.model.format}, "predictions": predictions}
