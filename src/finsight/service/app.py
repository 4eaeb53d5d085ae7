"""The service: REST over the same core as the pipeline."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import click
import uvicorn
from fastapi import APIRouter, FastAPI

from finsight import __version__, runtime
from finsight.bootstrap.service import job_queue, repository_jobs
from finsight.service import health, jobs, predict
from finsight.service.access import OneKey
from finsight.service.backstage import backstage
from finsight.service.envelope import Envelope
from finsight.service.parts import Parts
from finsight.service.problems import ProblemDocument, add_problems
from finsight.settings import Settings

# What any route may answer beside its own; in the OpenAPI document.
_PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": ProblemDocument} for status in (401, 403, 422, 429, 503)}


def create_app(parts: Parts) -> FastAPI:
    """The service around its parts: open routes of health, the rest below ``/v1``."""
    app = FastAPI(title="FinSight", version=__version__, docs_url=None, redoc_url=None)  # both load scripts from elsewhere
    app.state.parts = parts
    add_problems(app)
    app.add_middleware(Envelope)
    app.include_router(health.router)
    v1 = APIRouter(prefix="/v1", responses=_PROBLEMS)
    v1.include_router(predict.router)
    v1.include_router(jobs.router)
    app.include_router(v1)
    return app


def run(bundle: Path, host: str, port: int, worker: bool = True) -> None:
    """Verify and load ``bundle``, then serve until interrupted; a key is made and printed when ``FINSIGHT_API_KEY`` is unset.

    :param worker: whether to run jobs here too, where the settings name no Redis.
    """
    model = runtime.model(bundle)
    given = Settings().api_key
    key = given.get_secret_value() if given else secrets.token_urlsafe(24)
    if not given:
        click.echo(f"X-API-Key for this run: {key}   (set FINSIGHT_API_KEY to choose one)")
    click.echo(f"POST http://{host}:{port}/v1/predict, described by http://{host}:{port}/openapi.json")
    with backstage(bundle, worker) as redis, job_queue(redis) as queue:
        parts = Parts(model, OneKey(key), jobs.Jobs(queue, repository_jobs(bundle).order))
        uvicorn.run(create_app(parts), host=host, port=port, log_level="warning", server_header=False)
