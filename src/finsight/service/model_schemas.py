"""What the routes of the registry take and answer."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, model_validator

from finsight.service.problems import ProblemDocument
from finsight.service.schemas import Alias, RequestBody, Why, example

_VERSION = {
    "version": 2,
    "aliases": ["challenger"],
    "created": "2026-11-20T09:30:00.000+00:00",
    "archived": False,
    "description": "minilm: accuracy 0.853, macro-F1 0.824 on 970 test rows",
    "metrics": {"accuracy": 0.853, "macro_f1": 0.824},
    "commercial_use": False,
    "forbidden_by": "corpus phrasebank (CC-BY-NC-SA-3.0)",
    "signature": "release",
    "commit": "8c1f2e0a9b7d4c3e5f60718293a4b5c6d7e8f901",
    "clean": True,
    "bundle": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "run": "0f3c1d5e7a9b4c2d8e6f1a3b5c7d9e0f",
    "tags": {"protocol": "finbert split", "signature": "release"},
}
_MOVED = {"alias": "champion", "version": 2, "before": 1, "message": "version 2 is champion now, instead of 1: macro_f1 0.818 → 0.824"}

_LINE = {
    "when": "2026-11-20T09:31:00+00:00",
    "who": "anna",
    "action": "register",
    "alias": "challenger",
    "from": "",
    "to": "2",
    "why": "",
}
_WHY = "gates.primary: macro_f1 has to be not worse, it is: worse"
# As the validator has it, for clients that check what they send.
_REASONED: dict[str, Any] = {
    "if": {"properties": {"force": {"const": True}}, "required": ["force"]},
    "then": {"properties": {"why": {"pattern": r"\S"}}, "required": ["why"]},
}


class Version(BaseModel):
    """A version of the model, as the registry has it."""

    model_config = example(_VERSION)

    version: int
    aliases: list[str]
    created: str = Field(description="ISO 8601, UTC.")
    archived: bool
    description: str
    metrics: dict[str, float] = Field(description="Of the test rows.")
    commercial_use: bool | None = Field(description="Whether its corpora and backbone allow it; null where that is not known.")
    forbidden_by: str | None = Field(description="What forbids commercial use.")
    signature: str = Field(description="`release`, `development`, or `none`.")
    commit: str | None = Field(description="The git revision that it was made from.")
    clean: bool | None = Field(description="Whether the tree was that revision and no more.")
    bundle: str = Field(description="SHA-256 of its bundle.")
    run: str = Field(description="The run of the tracker that it came from.")
    tags: dict[str, str]


class VersionPage(BaseModel):
    """Versions, newest first."""

    model_config = example({"items": [_VERSION], "next": "WzJd"})

    items: list[Version]
    next: str | None = Field(description="The cursor of the next page; null where this is the last.")


class AuditLine(BaseModel):
    """Who changed what in the registry."""

    when: str
    who: str
    action: str
    alias: str
    came_from: str = Field(alias="from", description="The version that the alias pointed to; empty where there was none.")
    to: str
    why: str


class VersionDetails(Version):
    """A version, and what was done to it."""

    model_config = example({**_VERSION, "log": [_LINE]})

    log: list[AuditLine]


class Promotion(RequestBody):
    """Which alias shall point to the version."""

    model_config = example({"alias": "champion", "why": "", "force": False}, extra="forbid", **_REASONED)

    alias: Alias = "champion"
    why: Why = ""
    force: bool = Field(False, description="Even where a gate fails; needs `why`, and the audit log says so.")

    @model_validator(mode="after")
    def _reasoned(self) -> Promotion:
        if self.force and not self.why.strip():
            raise ValueError("force needs why: the audit log keeps the reason")
        return self


class Rollback(RequestBody):
    """Which alias shall point to what it pointed to before."""

    model_config = example({"alias": "champion", "why": "wrong on dividends"}, extra="forbid")

    alias: Alias = "champion"
    why: Why = ""


class Moved(BaseModel):
    """Where an alias points now."""

    model_config = example(_MOVED)

    alias: str
    version: int
    before: int | None = Field(description="The version that it pointed to; null where there was none.")
    message: str


class GateProblem(ProblemDocument):
    """Why a version is not promoted, one by one."""

    model_config = example(
        {
            "type": "urn:finsight:problem:gates",
            "title": "Conflict",
            "status": 409,
            "detail": f"version 2 is not promoted to champion: {_WHY}; force with a reason promotes it all the same",
            "correlation_id": "5f0c0c9ce1d64f4f",
            "failures": [_WHY],
        }
    )

    failures: list[str] = Field(default_factory=list)


class Metrics(BaseModel):
    """What the stage `evaluate` found out about a version."""

    model_config = example({"n": 970, "accuracy": 0.853, "accuracy_low": 0.83, "accuracy_high": 0.875, "macro_f1": 0.824}, extra="allow")

    n: int = Field(description="Test rows.")
    accuracy: float
    macro_f1: float
