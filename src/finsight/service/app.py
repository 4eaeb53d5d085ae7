"""The service: REST over the same core as the pipeline."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import click
import uvicorn
from fastapi import APIRouter, FastAPI

from finsight import __version__, runtime
from finsight.bootstrap import service as bootstrap
from finsight.service import audit, authentication, health, keys, predict
from finsight.service.caps import AtOnce, BodyCap
from finsight.service.client_address import networks
from finsight.service.entrance import entrance
from finsight.service.envelope import Envelope
from finsight.service.parts import Parts
from finsight.service.policy_file import DEFAULT, PolicyFile
from finsight.service.problems import ProblemDocument, add_problems
from finsight.service.recorder import Recorder
from finsight.service.rules import Limits, Rules
from finsight.settings import Settings, load_settings

# What any route may answer beside its own; in the OpenAPI document.
_PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": ProblemDocument} for status in (400, 401, 403, 413, 422, 429, 503)}


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
    v1.include_router(authentication.router)
    v1.include_router(keys.router)
    app.include_router(v1)
    return app


def house_rules(settings: Settings, redis: str) -> Rules:
    """The rules of the settings.

    :param redis: address of what the replicas share.
    :raises ParamsError: when the policy, the limits or the encryption key are wrong.
    """
    return Rules(
        PolicyFile(settings.policy or DEFAULT),
        Limits(bootstrap.windows(settings, redis), bootstrap.windows(settings)),
        bootstrap.audit_log(settings, redis),
        settings.environment,
        settings.max_body,
        settings.max_at_once,
    )


def run(bundle: Path, host: str, port: int) -> None:
    """Verify and load ``bundle``, then serve until interrupted; a key is made and printed when ``FINSIGHT_API_KEY`` is unset.

    :raises ParamsError: when a setting can't be, or would leave a public address open.
    """
    # uvicorn sends itself the signal again once it has shut down; by default that ends us before Redis is told to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = load_settings()
    bootstrap.ways_in(settings, host)  # before anything is loaded
    model, proxies = runtime.model(bundle), networks(settings.trusted_proxies)
    with bootstrap.redis(settings) as url:
        gate, own, made = entrance(settings, host, url)
        if made:
            click.echo(f"X-API-Key for this run: {made}   (set FINSIGHT_API_KEY to choose one)")
        click.echo(f"POST http://{host}:{port}/v1/predict, described by http://{host}:{port}/openapi.json")
        # proxy_headers: uvicorn would believe X-Forwarded-For of whoever comes from 127.0.0.1.
        app = create_app(Parts(model, gate, house_rules(settings, url), own, proxies))
        uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False, proxy_headers=False)
