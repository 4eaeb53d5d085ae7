"""Whether the service lives and is ready, for whoever keeps it running."""

from __future__ import annotations

from fastapi import APIRouter, Request

from finsight.service.access import anybody
from finsight.service.parts import Parts
from finsight.service.problems import Problem, ProblemDocument

router = APIRouter(tags=["health"], dependencies=[anybody()])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process runs."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"model": ProblemDocument}})
async def readyz(request: Request) -> dict[str, str]:
    """A bundle is verified and loaded, and the service has not been told to end; says which bundle."""
    parts: Parts = request.app.state.parts
    if parts.life.draining:
        raise Problem(503, "the service is ending; what it has taken is still answered", "draining")
    served = parts.predictions.served
    version = {} if served.version is None else {"version": str(served.version)}
    return {"status": "ready", "bundle": served.digest, **version}
