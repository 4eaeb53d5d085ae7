"""Whether the service lives and is ready, for whoever keeps it running."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel

from finsight.service.access import anybody
from finsight.service.parts import Parts
from finsight.service.problems import Problem, ProblemDocument
from finsight.service.schemas import example

router = APIRouter(tags=["health"], dependencies=[anybody()])


class Alive(BaseModel):
    """In a word."""

    model_config = example({"status": "alive"})

    status: str


class Ready(BaseModel):
    """In a word, and the digest of the bundle that predicts; its version, where it is one of the registry's."""

    model_config = example({"status": "ready", "bundle": "0f" * 32, "version": 3})

    status: str
    bundle: str
    version: int | None


@router.get("/livez")
async def livez() -> Alive:
    """Say that the process runs."""
    return Alive(status="alive")


@router.get("/readyz", responses={503: {"model": ProblemDocument}})
async def readyz(request: Request) -> Ready:
    """Say that a bundle is verified and loaded, which, and that the service has not been told to end."""
    parts: Parts = request.app.state.parts
    if parts.life.draining:
        raise Problem(503, "the service is ending; what it has taken is still answered", "draining")
    served = parts.predictions.served
    return Ready(status="ready", bundle=served.digest, version=served.version)
