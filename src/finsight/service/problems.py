"""What goes wrong, as problem documents (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from finsight import tracing
from finsight.errors import ArtifactError, DataError, FinsightError, GateError, ParamsError, RefusedError, UnreachableError
from finsight.service.envelope import REQUEST_ID

MEDIA_TYPE = "application/problem+json"
WAIT = 5  # seconds after which a client may ask an outside system again
_LOG = logging.getLogger("finsight.service")
# The most particular class comes first. What an outside system refuses is refused to the service, not to whoever asks it.
_STATUS: tuple[tuple[type[FinsightError], int], ...] = (
    (ParamsError, 422),
    (DataError, 404),
    (GateError, 409),
    (RefusedError, 502),
    (UnreachableError, 503),
    (ArtifactError, 500),
)


class Problem(HTTPException):
    """A refusal.

    :param kind: what programs tell problems of one status apart by, a word or two with hyphens; None where the status says it all.
    :param more: members beside those that every document has.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.kind, self.more = kind, more


class ProblemDocument(BaseModel):
    """Why a request was not done. ``detail`` is for people; programs go by ``type`` and ``status``."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Unauthorized",
                "status": 401,
                "detail": "send a key in the header X-API-Key",
                "correlation_id": "5f0c0c9ce1d64f4f",
            }
        }
    )

    type: str
    title: str
    status: int
    detail: str
    correlation_id: str


def document(
    request: HTTPConnection,
    status: int,
    detail: str,
    kind: str | None = None,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> JSONResponse:
    """A problem document as an answer."""
    return JSONResponse(content(request, status, detail, kind, more), status, headers, MEDIA_TYPE)


def content(
    connection: HTTPConnection, status: int, detail: str, kind: str | None = None, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a problem document says."""
    return {
        "type": f"urn:finsight:problem:{kind}" if kind else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail.encode("utf-8", "replace").decode(),  # it may repeat what a client sent, which JSON can make half a character
        "correlation_id": connection.scope.get(REQUEST_ID, ""),
        **(more or {}),
    }


def first_of(errors: Sequence[Any]) -> str:
    """What pydantic found first, in one line."""
    where = f"{'.'.join(map(str, errors[0]['loc']))}: " if errors[0]["loc"] else ""
    return f"{where}{errors[0]['msg'].removeprefix('Value error, ')}"


Invalid = RequestValidationError | WebSocketRequestValidationError | ValidationError


def refusal(request: HTTPConnection, error: FinsightError | Invalid) -> Problem:
    """What an error is to whoever asked."""
    if isinstance(error, Invalid):
        return Problem(422, first_of(error.errors()), "invalid-request")
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if status >= 500:
        tracing.failed(error)
    if status == 500:
        _LOG.error("%s: %s", request.scope.get(REQUEST_ID), error)
        return Problem(status, "something here is damaged; the service's log says what, under the correlation id")
    return Problem(status, str(error), headers={"Retry-After": str(WAIT)} if status == 503 else None)


def add_problems(app: FastAPI) -> None:
    """Answer every error of the app's that is foreseen by a problem document; finsight.service.unforeseen has the rest."""
    nothing_here = app.router.default

    async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # Starlette's own answer is a bare 403
            raise Problem(404, "there is no socket at this path")
        await nothing_here(scope, receive, send)

    app.router.default = nowhere

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        more = getattr(error, "more", None)
        return document(request, error.status_code, str(error.detail), getattr(error, "kind", None), error.headers, more)

    @app.exception_handler(405)
    async def not_allowed(request: Request, _: HTTPException) -> JSONResponse:
        methods = ", ".join(sorted(_methods(app, request.url.path)))
        return document(request, 405, f"this path takes {methods}", headers={"Allow": methods})

    @app.exception_handler(WebSocketRequestValidationError)
    @app.exception_handler(RequestValidationError)
    @app.exception_handler(FinsightError)
    async def failed(request: Request, error: Invalid | FinsightError) -> JSONResponse:
        found = refusal(request, error)
        return document(request, found.status_code, found.detail, found.kind, found.headers)


def _methods(app: FastAPI, path: str) -> set[str]:
    """What a path may be asked by, a concrete one before those with parameters. Starlette's own answer knows the first route alone that
    fits it."""
    fitting = [route for route in iter_route_contexts(app.routes) if compile_path(str(route.path))[0].match(path)]
    concrete = [route for route in fitting if route.path == path]
    return {method for route in concrete or fitting for method in getattr(route, "methods", None) or ()}
