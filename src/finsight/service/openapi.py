"""The OpenAPI document: what FastAPI makes of the routes, with what it leaves out put right."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool

from finsight.service.access import ANYBODY, API_KEY, BEARER, actions
from finsight.service.problems import MEDIA_TYPE, ProblemDocument

ABOUT = """Financial-sentiment models: predictions, the models of the registry, experiments and where they came from.

Every refusal is a problem document (RFC 9457, `application/problem+json`). Every answer carries `X-Request-ID`; send one of 8 to 64
letters, digits, `.`, `_` and `-` to choose it. Lists come in pages: send `next` of one as `cursor` to get the following.

Two WebSockets, which this document can't describe: `/v1/ws/jobs/{id}?cursor=` tells each event of a job as it comes (as
`GET /v1/jobs/{id}/log?format=jsonl` does), and `/v1/ws/predict` takes `{"id": 1, "text": "…"}` with the options of `POST /v1/predict`, and
answers each in order. Their handshake carries a credential as a request does, or `?ticket=` of `POST /v1/auth/ticket`."""
TAGS = [
    {"name": "predictions", "description": "What the served model says of texts."},
    {"name": "jobs", "description": "Runs of the pipeline, tunings and scorings, and how far they have come."},
    {"name": "models", "description": "Versions of the model in the registry, and which one an alias points to."},
    {"name": "experiments", "description": "What was tried, and what is better."},
    {"name": "lineage", "description": "Where a version came from, and whether it still is what it was."},
    {"name": "data", "description": "The corpora that models learn from."},
    {"name": "authentication", "description": "Tokens, tickets, who one is."},
    {"name": "keys", "description": "API keys: made, listed, rotated, ended."},
    {"name": "audit", "description": "What was done and refused here."},
    {"name": "health", "description": "For whoever keeps the service running."},
]
_REFUSED = {
    400: "The body is no JSON in UTF-8.",
    401: "No credential, or one that is not good.",
    403: "The credential's holder may not do this.",
    404: "There is none of that name.",
    408: "It takes too long.",
    409: "It can't be done as things are.",
    410: "It is not kept any more.",
    413: "The body is too large.",
    415: "The body is of no type that this document names.",
    422: "The request is not as this document says.",
    429: "Too many requests; `Retry-After` says when to come again.",
    503: "Too much to do, or an outside system does not answer; `Retry-After` says when to come again.",
}
_METHODS = ("get", "put", "post", "delete", "patch")


def operation_id(route: APIRoute) -> str:
    """What generated clients call the route: the name of its function."""
    return route.name


def describe(app: FastAPI) -> None:
    """Let the app answer ``/openapi.json`` with the whole document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=ABOUT, routes=app.routes, tags=TAGS)
            for schema in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which problem documents replace
                made["components"]["schemas"].pop(schema, None)
            _secure(made, app)
            for operation in operations(made):
                if "requestBody" in operation:
                    operation["responses"]["400"] = {}
                for status, response in operation["responses"].items():
                    if status.isdigit() and int(status) >= 400:
                        _refusal(int(status), response)
            app.openapi_schema = made
        return app.openapi_schema

    @functools.cache
    def written() -> bytes:
        return to_json(app.openapi())

    making = asyncio.Lock()

    async def answer(_: Request) -> Response:
        async with making:  # the first takes seconds of a thread; who asks meanwhile waits, and takes none
            content = await run_in_threadpool(written)
        return Response(content, media_type="application/json")

    app.openapi = document  # type: ignore[method-assign]
    app.add_route("/openapi.json", answer, include_in_schema=False)


def _secure(document: dict[str, Any], app: FastAPI) -> None:
    """Say of every operation that asks for a credential which ones it takes."""
    schemes = {scheme.scheme_name: scheme.model.model_dump(mode="json", by_alias=True, exclude_none=True) for scheme in (API_KEY, BEARER)}
    document["components"]["securitySchemes"] = schemes
    for (method, path), asked in actions(app).items():
        operation = document["paths"].get(path, {}).get(method.lower())
        if operation and asked and asked != [ANYBODY] and "health" not in operation["tags"]:  # open to this host
            operation["security"] = [{name: []} for name in schemes]


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every operation of an OpenAPI document."""
    for path in document["paths"].values():
        yield from (operation for method, operation in path.items() if method in _METHODS)


def _refusal(status: int, response: dict[str, Any]) -> None:
    """Have a refusal described as what it is, with an example of its own status."""
    content = response.get("content", {}).pop("application/json", {})
    schema = content.get("schema", {})
    if not schema or "HTTPValidationError" in str(schema):
        schema = {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}
    response["description"] = _REFUSED.get(status, HTTPStatus(status).phrase)
    example = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    about = {"detail": response["description"], "correlation_id": "5f0c0c9ce1d64f4f"}
    response["content"] = {MEDIA_TYPE: {"schema": schema, "example": example | about}}
