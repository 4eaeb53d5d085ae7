"""The service: REST over the same core as the pipeline."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import click
import uvicorn
from fastapi import APIRouter, FastAPI

from finsight import __version__, runtime
from finsight.bootstrap import service
from finsight.service import experiments, health, lineage, models, pages, predict
from finsight.service.access import OneKey
from finsight.service.envelope import Envelope
from finsight.service.openapi import describe, operation_id
from finsight.service.parts import Parts
from finsight.service.problems import ProblemDocument, add_problems
from finsight.settings import Settings

# What any route may answer beside its own; in the OpenAPI document.
_PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": ProblemDocument} for status in (401, 403, 422, 429, 503)}


def create_app(parts: Parts) -> FastAPI:
    """The service around its parts: open routes of health, the rest below ``/v1``."""
    app = FastAPI(
        title="FinSight",
        version=__version__,
        docs_url=None,  # this page and the next load scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=operation_id,
    )
    app.state.parts = parts
    add_problems(app)
    app.add_middleware(Envelope)
    app.include_router(health.router)
    app.include_router(pages.router)
    v1 = APIRouter(prefix="/v1", responses=_PROBLEMS)
    for routes in (predict, models, experiments, lineage):
        v1.include_router(routes.router)
    app.include_router(v1)
    describe(app)
    return app


def described() -> dict[str, Any]:
    """The OpenAPI document, without a service."""
    return create_app(Parts(None, OneKey(secrets.token_urlsafe()))).openapi()  # type: ignore[arg-type] # nobody asks the parts


def run(bundle: Path, host: str, port: int) -> None:
    """Verify and load ``bundle``, then serve until interrupted; a key is made and printed when ``FINSIGHT_API_KEY`` is unset."""
    model = runtime.model(bundle)
    given = Settings().api_key
    key = given.get_secret_value() if given else secrets.token_urlsafe(24)
    if not given:
        click.echo(f"X-API-Key for this run: {key}   (set FINSIGHT_API_KEY to choose one)")
    click.echo(f"POST http://{host}:{port}/v1/predict, described by http://{host}:{port}/openapi.json")
    with service.redis() as address:
        parts = Parts(model, OneKey(key), sessions=service.sessions(address))
        uvicorn.run(create_app(parts), host=host, port=port, log_level="warning", server_header=False)
