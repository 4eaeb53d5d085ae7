"""Whether the service lives and is ready, for whoever keeps it running."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from finsight.service.access import anybody
from finsight.service.schemas import example

router = APIRouter(tags=["health"], dependencies=[anybody()])


class Health(BaseModel):
    """In a word."""

    model_config = example({"status": "ready"})

    status: str


@router.get("/livez")
def livez() -> Health:
    """Say that the process runs."""
    return Health(status="alive")


@router.get("/readyz")
def readyz() -> Health:
    """Say that the bundle is verified and loaded; there is no service before that."""
    return Health(status="ready")
