"""Experiments of DVC's over REST: what was tried, what came of it, what is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from finsight.bootstrap import released as core
from finsight.errors import DataError
from finsight.service.access import may
from finsight.service.paging import Limit, page, page_cursor
from finsight.service.problems import Problem, ProblemDocument
from finsight.service.schemas import BaseSide, NewSide, example

router = APIRouter(prefix="/experiments", tags=["experiments"])
_EXPERIMENT = {
    "name": "muddy-axle",
    "commit": "8c1f2e0a9b7d4c3e5f60718293a4b5c6d7e8f901",
    "baseline": "10d7701ff69d70e375224e5fb38cd0911b88826d",
    "created": "2026-11-20T09:30:00+00:00",
    "params": {"train.lr": {"experiment": 0.00005, "workspace": 0.0001}},
    "metrics": {"macro_f1": {"experiment": 0.824, "workspace": 0.818}},
}
_AFTER = page_cursor("2026-11-20T09:30:00+00:00", "muddy-axle", "10d7701ff69d70e375224e5fb38cd0911b88826d")
_VERDICT = "no significant difference"
_METRIC = {
    "base": 0.818,
    "new": 0.824,
    "difference": 0.006,
    "low": -0.004,
    "high": 0.016,
    "p": 0.25,
    "verdict": _VERDICT,
}


class Changed(BaseModel):
    """A value that is not that of the workspace; null where one has none."""

    experiment: Any
    workspace: Any


class ExperimentAnswer(BaseModel):
    """An experiment, and what is other than in the workspace."""

    model_config = example(_EXPERIMENT, title="Experiment")

    name: str
    commit: str
    baseline: str = Field(description="The commit that it was started from.")
    created: str = Field(description="ISO 8601.")
    params: dict[str, Changed] = Field(description="Parameters that differ, by dotted keys.")
    metrics: dict[str, Changed] = Field(description="Numbers of the test rows that differ, by dotted keys.")


class ExperimentPage(BaseModel):
    """Experiments, newest first."""

    model_config = example({"items": [_EXPERIMENT], "next": None})

    items: list[ExperimentAnswer]
    next: str | None = Field(description="The cursor of the next page; null where this is the last.")


class Difference(BaseModel):
    """A metric of two models on the same rows."""

    base: float | None
    new: float | None
    difference: float
    low: float | None = Field(description="Lower end of the 95 % interval.")
    high: float | None = Field(description="Upper end of it.")
    p: float | None = Field(description="Corrected for the number of metrics and slices (Holm), but for the primary one.")
    verdict: str


class Comparison(BaseModel):
    """Whether a model is better than another, as `finsight compare` has it; slices, flips and formats stand beside the metrics."""

    model_config = example(
        {
            "base": "champion",
            "new": "muddy-axle",
            "rows": {"base": 970, "new": 970, "both": 970},
            "primary": "macro_f1",
            "verdict": _VERDICT,
            "sentence": "muddy-axle does not differ significantly in macro_f1: 0.818 → 0.824 (+0.006, …)",
            "metrics": {"macro_f1": _METRIC},
            "gates": [],
        },
        extra="allow",
    )

    base: str
    new: str
    rows: dict[str, int]
    primary: str = Field(description="The metric that decides.")
    verdict: str = Field(description="Of the primary metric, at 5 %.")
    sentence: str = Field(description="The verdict in words.")
    metrics: dict[str, Difference]
    gates: list[str] = Field(description="Gates of params.yaml that fail.")


@router.get("", dependencies=[may("experiments.read")])
def list_experiments(limit: Limit = 20, cursor: Annotated[str | None, _AFTER] = None) -> ExperimentPage:
    """List the experiments of this clone, newest first, with the parameters and metrics that are other than in the workspace."""
    log, here = core.experiment_log(), core.workspace()
    shown, following = page(log.all(), lambda one: one.order, limit, cursor)
    items = [
        ExperimentAnswer(
            name=one.name,
            commit=one.commit,
            baseline=one.baseline,
            created=one.created,
            params=_changed(outcome.params, here.params),
            metrics=_changed(_numbers(outcome.metrics), _numbers(here.metrics)),
        )
        for one, outcome in zip(shown, log.outcomes(shown), strict=True)
    ]
    return ExperimentPage(items=items, next=following)


@router.get(
    "/{base}/diff/{new}",
    dependencies=[may("experiments.read")],
    responses={404: {"model": ProblemDocument}, 409: {"model": ProblemDocument}},
)
def compare_experiments(request: Request, base: BaseSide, new: NewSide) -> Comparison:
    """Say whether one model is better than another, on the same test rows; it takes seconds."""
    with request.app.state.parts.slots.one():
        sides = core.resolve(base), core.resolve(new)
        try:
            found = core.compare(*sides)
        except DataError as error:  # both are there: what is wrong is that they don't go together, or lack their predictions
            raise Problem(409, str(error), "not-comparable") from None
    return Comparison(**found)


def _changed(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Changed]:
    keys = sorted({*ours, *theirs}) if ours else []
    return {key: Changed(experiment=ours.get(key), workspace=theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)}


def _numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if isinstance(value, int | float)}
