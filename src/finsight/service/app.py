"""The service: REST over the same core as the pipeline."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI

from finsight import __version__
from finsight.service import audit, authentication, experiments, health, jobs, keys, lineage, metrics, models, pages, predict
from finsight.service.caps import AtOnce, BodyCap
from finsight.service.envelope import Envelope
from finsight.service.life import LastAnswers
from finsight.service.meters import Measured
from finsight.service.openapi import describe, operation_id
from finsight.service.parts import Parts
from finsight.service.problems import ProblemDocument, add_problems
from finsight.service.recorder import Recorder
from finsight.service.rules import Rules
from finsight.service.unforeseen import Unforeseen

# What any route may answer beside its own; in the OpenAPI document.
_PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": ProblemDocument} for status in (400, 401, 403, 408, 413, 422, 429, 503)}


def create_app(parts: Parts) -> FastAPI:
    """The service around its parts: open routes of health, the rest below ``/v1``."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for running in parts.running:
                await stack.enter_async_context(running())
            yield

    app = FastAPI(
        title="FinSight",
        version=__version__,
        docs_url=None,  # both pages of documentation load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        generate_unique_id_function=operation_id,
        redirect_slashes=False,  # to where the Host header says; and a redirected POST would look like one that was done
    )
    app.state.parts = parts
    add_problems(app)
    # The last one is the outermost.
    app.add_middleware(AtOnce, most=parts.rules.max_at_once)
    app.add_middleware(BodyCap, most=parts.rules.max_body)
    app.add_middleware(Recorder)
    app.add_middleware(Unforeseen)
    app.add_middleware(Envelope)
    app.add_middleware(LastAnswers, life=parts.life)
    app.add_middleware(Measured, meters=parts.meters)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(pages.router)
    v1 = APIRouter(prefix="/v1", responses=_PROBLEMS)
    for room in (predict, jobs, models, experiments, lineage, authentication, keys, audit):
        v1.include_router(room.router)
    app.include_router(v1)
    describe(app)
    return app


def described() -> dict[str, Any]:
    """The OpenAPI document, without a service."""
    rules = Rules(None, None, None)  # type: ignore[arg-type] # nobody asks the parts
    return create_app(Parts(None, None, rules, None)).openapi()  # type: ignore[arg-type]
