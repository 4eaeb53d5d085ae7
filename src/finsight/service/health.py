"""Whether the service lives, has started, is ready and for what, for whoever keeps it running."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from finsight.errors import UnreachableError
from finsight.service.access import admitted, anybody, presented
from finsight.service.checks import Finding
from finsight.service.metrics import ACTION, local
from finsight.service.parts import Parts
from finsight.service.problems import Problem, ProblemDocument
from finsight.service.schemas import example

Purpose = Literal["predictions", "jobs", "scorings", "models", "credentials"]
# What has to answer for each; jobs and credentials are in Redis, and a job's files need room.
_NEEDS: Mapping[Purpose, tuple[str, ...]] = {
    "predictions": ("bundle",),
    "jobs": ("redis", "disk"),
    "scorings": ("redis", "objects", "disk"),
    "models": ("mlflow",),
    "credentials": ("redis",),
}
_NOT: dict[int | str, dict[str, Any]] = {503: {"model": ProblemDocument}}
router = APIRouter(tags=["health"], dependencies=[anybody()])


class Alive(BaseModel):
    """In a word."""

    model_config = example({"status": "alive"})

    status: str


class Started(BaseModel):
    """In a word."""

    model_config = example({"status": "started"})

    status: str


class Ready(BaseModel):
    """In a word, and the digest of the bundle that predicts; its version, where it is one of the registry's."""

    model_config = example({"status": "ready", "bundle": "0f" * 32, "version": 3})

    status: str
    bundle: str
    version: int | None


class Dependency(BaseModel):
    """Whether it answers, and how many seconds that took; what it said, for this host and those who may `metrics.read`."""

    ok: bool
    seconds: float
    detail: str | None


_SOUND = {"ok": True, "seconds": 0.002, "detail": None}
_AWAY = {"ok": False, "seconds": 2.0, "detail": None}


class Health(BaseModel):
    """`ok`, or `degraded` where a dependency does not answer; what the service is ready for, and each dependency."""

    model_config = example(
        {
            "status": "degraded",
            "ready": {"predictions": True, "jobs": True, "scorings": True, "models": False, "credentials": True},
            "dependencies": {"bundle": _SOUND, "redis": _SOUND, "mlflow": _AWAY},
        }
    )

    status: Literal["ok", "degraded"]
    ready: dict[Purpose, bool]
    dependencies: dict[str, Dependency]


@router.get("/livez")
async def livez() -> Alive:
    """Say that the process runs; no dependency is asked, since to start it anew would help none of them."""
    return Alive(status="alive")


@router.get("/startupz")
async def startupz() -> Started:
    """Say that the bundle was loaded and the service has begun: before that nothing answers here."""
    return Started(status="started")


@router.get("/readyz", responses=_NOT)
async def readyz(
    request: Request,
    purpose: Annotated[Purpose, Query(alias="for", description="What it has to be ready for.", examples=["predictions"])] = "predictions",
) -> Ready:
    """Say that the service has not been told to end, and can do what it is asked for: predictions, where nothing else is named.

    Predictions need no more than the bundle in service; a Redis or an MLflow that is away takes nothing from them.
    """
    parts: Parts = request.app.state.parts
    if parts.life.draining:
        raise Problem(503, "the service is ending; what it has taken is still answered", "draining")
    found = {} if purpose == "predictions" else await parts.checks.findings(*_NEEDS[purpose])  # a bundle that is loaded stays so
    if away := [name for name, finding in found.items() if not finding.ok]:
        raise Problem(503, f"not ready for {purpose}: {', '.join(away)} does not answer as it should; /healthz has more", "not-ready")
    served = parts.predictions.served
    return Ready(status="ready", bundle=served.digest, version=served.version)


@router.get("/healthz", responses=_NOT)
async def healthz(request: Request) -> Health:
    """Say how each dependency is, and for what the service is ready; 503, with the same members, where that is not predictions.

    What a dependency said may name an address: only this host sees it, and those who may `metrics.read`. An answer is up to five seconds
    old, and none is waited for longer than two.
    """
    parts: Parts = request.app.state.parts
    insider = await run_in_threadpool(_insider, request)
    found = await parts.checks.findings()
    ready = {purpose: _ready(purpose, found) and not parts.life.draining for purpose in _NEEDS}
    sound = all(finding.ok for finding in found.values())
    shown = {name: Dependency(ok=f.ok, seconds=round(f.seconds, 4), detail=f.detail if insider else None) for name, f in found.items()}
    health = Health(status="ok" if sound else "degraded", ready=ready, dependencies=shown)
    if not ready["predictions"]:
        raise Problem(503, "the service can't predict", "not-ready", more=health.model_dump(include={"ready", "dependencies"}))
    return health


def _ready(purpose: Purpose, found: Mapping[str, Finding]) -> bool:
    return all(found[name].ok for name in _NEEDS[purpose] if name in found)


def _insider(request: Request) -> bool:
    """Whether somebody may see what the dependencies said. Whose credential is not good, or can't be looked up, is a stranger here."""
    if local(request):
        return True
    try:
        if presented(request).given:
            admitted(request, ACTION)
            return True
    except (Problem, UnreachableError):
        pass
    return False
