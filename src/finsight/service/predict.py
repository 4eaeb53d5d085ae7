"""Predictions over REST."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from finsight.service.access import may
from finsight.service.parts import Parts

MAX_TEXTS, MAX_CHARACTERS = 256, 10_000
router = APIRouter(tags=["predictions"])


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

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "predictions": [{"label": "positive", "probabilities": {"negative": 0.01, "neutral": 0.05, "positive": 0.94}}],
            }
        }
    )

    predictions: list[Prediction]


@router.post("/predict", dependencies=[may("predict")])
def predict(asked: PredictRequest, request: Request) -> PredictResponse:
    """Label one or many texts."""
    parts: Parts = request.app.state.parts
    found = parts.model.predict(asked.texts)
    return PredictResponse(predictions=[Prediction(label=one.label, probabilities=one.probabilities) for one in found])
