"""Whether the service lives and is ready, for whoever keeps it running."""

from __future__ import annotations

from fastapi import APIRouter

from finsight.service.access import anybody

router = APIRouter(tags=["health"], dependencies=[anybody()])


@router.get("/livez")
def livez() -> dict[str, str]:
    """The process runs."""
    return {"status": "alive"}


@router.get("/readyz")
def readyz() -> dict[str, str]:
    """The bundle is verified and loaded; there is no service before that."""
    return {"status": "ready"}
