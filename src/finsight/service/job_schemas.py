"""What the routes of jobs take and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Header, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from finsight.domain.jobs import Kind, State
from finsight.service.schemas import RequestBody

_ID = "0d5c1f5a2b7e4e0c9f3b8a6d4c2e1f00"
_EXAMPLE: dict[str, Any] = {
    "id": _ID,
    "kind": "train",
    "parameters": {"train.lr": 3e-5},
    "owner": "admin",
    "state": "running",
    "attempt": 1,
    "created": "2026-11-27T12:00:00Z",
    "started": "2026-11-27T12:00:01Z",
    "ended": None,
    "stage": "train",
    "progress": 0.25,
    "metrics": {"validation_macro_f1": 0.81},
    "experiment": "",
    "result": "",
    "error": "",
    "correlation_id": "5f0c0c9ce1d64f4f",
}
JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="A job's id.", examples=[_ID])]
Cursor = Annotated[
    str,
    Query(
        pattern=r"^([0-9]{1,19}-[0-9]{1,19})?$",
        description="Only what comes after it; empty: from the beginning.",
        examples=["1764200000000-0"],
    ),
]
IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        max_length=100,
        pattern=r"^[\x21-\x7e]*$",
        description="Names the order for a day: sent again it is the same job.",
        examples=["nightly-2026-11-27"],
    ),
]
Value = bool | int | Annotated[float, Field(allow_inf_nan=False)] | str | None
Parameters = Annotated[
    dict[Annotated[str, Field(max_length=100, pattern=r"^[a-z0-9_.]+$")], Value | list[Value]],
    Field(max_length=100, json_schema_extra={"additionalProperties": False}),
]


class JobRequest(RequestBody):
    """What to do: up to a stage of the pipeline, `tune`, or `score`."""

    model_config = ConfigDict(json_schema_extra={"example": {"kind": "train", "parameters": {"train.lr": 3e-5}}})

    kind: Annotated[Kind, Field(strict=False)]  # a text until it is read
    parameters: Parameters = Field({})
    """Dotted keys of params.yaml; of a scoring `input`, the id of an uploaded object, and `text`, its column."""


class JobState(BaseModel):
    """A job and how far it has come; `correlation_id` is that of the request that ordered it first."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    id: str
    kind: Kind
    parameters: dict[str, Any]
    owner: str
    state: State
    attempt: int
    created: datetime
    started: datetime | None
    ended: datetime | None
    stage: str
    progress: float
    metrics: dict[str, float]
    experiment: str
    result: str
    error: str
    correlation_id: str


class JobPage(BaseModel):
    """Jobs, the newest first; `next` is the cursor of the next page, empty on the last."""

    model_config = ConfigDict(json_schema_extra={"example": {"jobs": [_EXAMPLE], "next": "41"}})

    jobs: list[JobState]
    next: str
