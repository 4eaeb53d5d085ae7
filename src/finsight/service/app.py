"""The service: REST and WebSocket over the same core as the pipeline."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from finsight import __version__
from finsight.service import (
    audit,
    authentication,
    experiments,
    health,
    job_pages,
    job_socket,
    jobs,
    keys,
    lineage,
    metrics,
    models,
    pages,
    predict,
    predict_socket,
    score,
    sign_in,
)
from finsight.service.caps import AtOnce, BodyCap
from finsight.service.envelope import Envelope
from finsight.service.life import LastAnswers
from finsight.service.meters import Measured
from finsight.service.observed import Observed
from finsight.service.openapi import describe, operation_id
from finsight.service.parts import Parts
from finsight.service.problems import ProblemDocument, add_problems
from finsight.service.recorder import Recorder
from finsight.service.rules import Rules
from finsight.service.unforeseen import Unforeseen

V1 = "/v1"
FRAME = 2**16  # bytes of a form around its file
# A request is held against their routes in this order.
_V1 = (predict, score, jobs, models, experiments, lineage, authentication, keys, audit, job_socket, predict_socket)
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
        openapi_url=None,  # FastAPI's own route would make the document on the event loop
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
    larger = {f"{V1}/score": parts.scoring.most + FRAME} if parts.scoring else {}
    app.add_middleware(BodyCap, most=parts.rules.max_body, larger=larger)
    app.add_middleware(Recorder)
    app.add_middleware(Unforeseen)
    app.add_middleware(Observed)
    app.add_middleware(Envelope)
    app.add_middleware(LastAnswers, life=parts.life)
    app.add_middleware(Measured, meters=parts.meters)
    for room in _V1:
        app.include_router(room.router, prefix=V1, responses=_PROBLEMS)
    for router in (health.router, metrics.router, pages.router, job_pages.router, job_pages.live, sign_in.router):
        app.include_router(router)
    describe(app)
    return app


def described() -> dict[str, Any]:
    """The OpenAPI document, without a service."""
    rules = Rules(None, None, None)  # type: ignore[arg-type] # nobody asks the parts
    return create_app(Parts(None, None, rules, None)).openapi()  # type: ignore[arg-type]
