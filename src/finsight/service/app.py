"""The service: REST over the same core as the pipeline."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import click
import uvicorn
from fastapi import APIRouter, FastAPI

from finsight import __version__, runtime
from finsight.bootstrap import service as bootstrap
from finsight.service import audit, health, predict
from finsight.service.access import OneKey
from finsight.service.caps import AtOnce, BodyCap
from finsight.service.envelope import Envelope
from finsight.service.parts import Parts
from finsight.service.policy_file import DEFAULT, PolicyFile
from finsight.service.problems import ProblemDocument, add_problems
from finsight.service.recorder import Recorder
from finsight.service.rules import Limits, Rules
from finsight.settings import Settings, load_settings

# What any route may answer beside its own; in the OpenAPI document.
_PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": ProblemDocument} for status in (401, 403, 413, 422, 429, 503)}


def create_app(parts: Parts) -> FastAPI:
    """The service around its parts: open routes of health, the rest below ``/v1``."""
    app = FastAPI(title="FinSight", version=__version__, docs_url=None, redoc_url=None)  # both load scripts from elsewhere
    app.state.parts = parts
    add_problems(app)
    # The last one is the outermost.
    app.add_middleware(BodyCap, most=parts.rules.max_body)
    app.add_middleware(Recorder)
    app.add_middleware(AtOnce, most=parts.rules.max_at_once)
    app.add_middleware(Envelope)
    app.include_router(health.router)
    v1 = APIRouter(prefix="/v1", responses=_PROBLEMS)
    v1.include_router(predict.router)
    v1.include_router(audit.router)
    app.include_router(v1)
    return app


def house_rules(redis: str) -> Rules:
    """The rules of the settings.

    :param redis: address of what the replicas share.
    :raises ParamsError: when the policy, the limits or the encryption key are wrong.
    """
    settings = load_settings()
    return Rules(
        PolicyFile(settings.policy or DEFAULT),
        Limits(bootstrap.windows(redis), bootstrap.windows()),
        bootstrap.audit_log(redis),
        settings.environment,
        settings.max_body,
        settings.max_at_once,
    )


def run(bundle: Path, host: str, port: int) -> None:
    """Verify and load ``bundle``, then serve until interrupted; a key is made and printed when ``FINSIGHT_API_KEY`` is unset."""
    model = runtime.model(bundle)
    given = Settings().api_key
    key = given.get_secret_value() if given else secrets.token_urlsafe(24)
    if not given:
        click.echo(f"X-API-Key for this run: {key}   (set FINSIGHT_API_KEY to choose one)")
    click.echo(f"POST http://{host}:{port}/v1/predict, described by http://{host}:{port}/openapi.json")
    with bootstrap.shared_redis() as redis:
        app = create_app(Parts(model, OneKey(key), house_rules(redis)))
        # Without proxy_headers=False uvicorn takes the client's address from a header, where the socket's is a loopback one.
        uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False, proxy_headers=False)
