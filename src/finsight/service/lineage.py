"""Where a version came from, and whether the data are fit, over REST."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from finsight.bootstrap import released as core
from finsight.pipeline.models import find
from finsight.service.access import may
from finsight.service.problems import ProblemDocument
from finsight.service.schemas import VersionName, example

router = APIRouter()
_CHAIN = [
    {"name": "bundle", "what": "sha256 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
    {"name": "code", "what": "git 8c1f2e0a9b7d4c3e5f60718293a4b5c6d7e8f901, clean, 96 files"},
]


class Link(BaseModel):
    """One link of the chain from the bundle back to code, data and machine."""

    name: str
    what: str


class Lineage(BaseModel):
    """Where a version came from, and whether all digests and signatures hold."""

    model_config = example(
        {
            "version": 2,
            "verified": True,
            "failure": None,
            "files": 24,
            "signature": "release",
            "chain": _CHAIN,
            "statement": {"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://slsa.dev/provenance/v1"},
        }
    )

    version: int
    verified: bool = Field(description="Whether bundle, reports and inputs are what the statement says, and a trusted key signed it.")
    failure: str | None = Field(description="The first thing that does not hold.")
    files: int = Field(description="Reports and inputs that were checked beside the bundle.")
    signature: str = Field(description="`release`, or `development`: made with a key that says nothing about who made it.")
    chain: list[Link] = Field(description="From the bundle to the machine; unchecked where `verified` is false.")
    statement: dict[str, Any] = Field(description="The in-toto statement with its SLSA provenance.")


class Validation(BaseModel):
    """What the stage `validate` found in the corpora; what a corpus format adds stands beside it."""

    model_config = example(
        {
            "critical": 0,
            "warning": 1,
            "rows": 4846,
            "repeated": 8,
            "conflicting": 2,
            "labels": {"negative": 604, "neutral": 2879, "positive": 1363},
            "expectations": {"corpus phrasebank: no text is empty": "ok", "all corpora: no text is repeated": "warning: got 8"},
        },
        extra="allow",
    )

    critical: int = Field(description="Failures that stop the pipeline.")
    warning: int = Field(description="Failures to read.")
    rows: int
    repeated: int
    conflicting: int
    labels: dict[str, int] = Field(description="Rows of each label.")
    expectations: dict[str, str] = Field(description="What was expected, and `ok` or what was found.")


@router.get("/lineage/{version}", tags=["lineage"], dependencies=[may("lineage.read")], responses={404: {"model": ProblemDocument}})
def show_lineage(request: Request, version: VersionName) -> Lineage:
    """Show where a version came from; every digest is computed anew and the signatures are checked, which takes seconds."""
    with request.app.state.parts.slots.one():
        found = find(core.versions(), version)
        traced = core.trace(found)
    return Lineage(version=found.number, verified=traced["failure"] is None, **traced)


@router.get("/data/validation", tags=["data"], dependencies=[may("data.read")], responses={404: {"model": ProblemDocument}})
def show_validation() -> Validation:
    """Show what the last validation of the data found."""
    return Validation(**core.validation())
