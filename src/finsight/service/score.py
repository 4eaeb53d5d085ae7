"""Scorings over REST: a table in, the same one with what the model says of it out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from finsight.domain.access import Principal
from finsight.domain.jobs import Job, Kind, State
from finsight.service import jobs
from finsight.service.access import may
from finsight.service.envelope import REQUEST_ID
from finsight.service.gone import CLIENT_GONE
from finsight.service.job_schemas import IdempotencyKey, JobId, JobState
from finsight.service.parts import Parts
from finsight.service.problems import WAIT, Problem, ProblemDocument
from finsight.service.schemas import RequestBody, example
from finsight.service.uploads import SECONDS, Scoring, TooLargeError, Upload, incoming

_LOG = logging.getLogger("finsight.service")
CACHE = "scores"  # what /metrics calls the results that are kept
_BLOCK = 2**18
_LONGEST = 10_000  # bytes of a body that names an object
_CSV, _FORM, _JSON = "text/csv", "multipart/form-data", "application/json"
_INPUT = f"{'9f' * 32}.csv"
_TABLE = "id,text\n7,Operating profit rose to EUR 13.1 mn.\n"
_SCORED = "id,text,predicted,prob_negative,prob_neutral,prob_positive,score\r\n7,Operating profit rose.,positive,0.02,0.05,0.93,0.91\r\n"
router = APIRouter(tags=["jobs"])


class ScoreRequest(RequestBody):
    """What to score: a table that was uploaded before, by the `input` of that job's parameters."""

    model_config = example({"input": _INPUT, "text": "text"}, extra="forbid")

    input: Annotated[str, Field(max_length=100, pattern=r"^[0-9a-f]{64}\.csv$")]
    text: Annotated[str, Field(max_length=100, description="Name of the column with the texts.")] = "text"


_FIELDS = {"file": {"type": "string", "format": "binary"}, "text": {"type": "string"}}
_BODY: dict[str, Any] = {
    _CSV: {"schema": {"type": "string", "format": "binary"}, "example": _TABLE},
    _FORM: {"schema": {"type": "object", "required": ["file"], "properties": _FIELDS}, "example": {"file": _TABLE, "text": "text"}},
    _JSON: {"schema": ScoreRequest.model_json_schema()},
}
_REFUSALS: dict[int | str, dict[str, Any]] = {status: {"model": ProblemDocument} for status in (404, 408, 415)}


@router.post(
    "/score",
    status_code=202,
    response_model=JobState,
    responses=_REFUSALS,
    openapi_extra={"requestBody": {"required": True, "content": _BODY}},
)
async def score(
    request: Request,
    principal: Annotated[Principal, may("score")],
    text: Annotated[str, Query(max_length=100, description="Name of the column with the texts, of an upload.", examples=["text"])] = "text",
    key: IdempotencyKey = "",
) -> Response:
    """Queue a scoring of a table: CSV in UTF-8 as the body, or as `file` of a form, or one that was uploaded before.

    The same table, column and bundle are the same job. Its result is at `/v1/jobs/{job}/result`.
    """
    parts: Parts = request.app.state.parts
    scoring = _scoring(parts)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == _JSON:
            asked = await _named(request)
        elif kind in (_CSV, _FORM):
            asked = await _uploaded(request, scoring, principal.tenant, text)
        else:
            raise Problem(415, f"send {_CSV}, {_FORM} or {_JSON}", headers={"Accept-Post": f"{_CSV}, {_FORM}, {_JSON}"})
    except ClientDisconnect:
        parts.meters.gone.inc()
        return Response(status_code=CLIENT_GONE)
    job = await run_in_threadpool(_ordered, request, scoring, principal, asked, key)
    headers = {"Location": f"{request.url.path.removesuffix('/score')}/jobs/{job.id}"}
    return Response(jobs.shown(job).model_dump_json(), 202, headers, _JSON)


@router.get(
    "/jobs/{job}/result",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The table.", "content": {_CSV: {"schema": {"type": "string"}, "example": _SCORED}}},
        **{status: {"model": ProblemDocument} for status in (404, 409, 410)},
    },
)
def show_result(job: JobId, request: Request, principal: Annotated[Principal, may("jobs.read")]) -> StreamingResponse:
    """Show what a scoring made: the table that was given, in its order, with the label and the probabilities of each row."""
    found = jobs.own(request, principal, job)
    if found.order.kind is not Kind.SCORE:
        raise Problem(409, f"job {job} is no scoring; its numbers are its metrics, and the rest is in its experiment", "no-scoring")
    if found.state is not State.SUCCEEDED:
        raise Problem(409, f"job {job} is {found.state}; there is a result once it has succeeded", "no-result")
    store = _scoring(request.app.state.parts).store
    size = store.size(found.order.tenant, found.result)
    if size is None:
        raise Problem(410, f"the result of job {job} is not kept any more; send the table again")
    headers = {"Content-Disposition": f'attachment; filename="scored-{job[:12]}.csv"', "Content-Length": str(size)}
    return StreamingResponse(store.read(found.order.tenant, found.result), media_type=_CSV, headers=headers)


async def _named(request: Request) -> dict[str, str]:
    body = b""
    async for block in request.stream():
        body += block
        if len(body) > _LONGEST:
            raise Problem(413, f"a body that names an object has at most {_LONGEST} bytes", "too-large", {"Connection": "close"})
    try:
        return ScoreRequest.model_validate_json(body).model_dump()
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        raise Problem(422, f"{'.'.join(map(str, ('body', *first['loc'])))}: {first['msg']}", "invalid-request") from None


async def _uploaded(request: Request, scoring: Scoring, tenant: str, column: str) -> dict[str, str]:
    """Take a table into the tenant's storage."""
    try:
        with scoring.slots.one(tenant), incoming() as path:
            with Upload(path, scoring.most, scoring.lines) as upload:
                async with asyncio.timeout(SECONDS), _table(request, column) as (blocks, named):
                    async for block in blocks:
                        await run_in_threadpool(upload.write, block)
                name = f"{await run_in_threadpool(upload.whole, named)}.csv"
            await run_in_threadpool(scoring.store.put, tenant, name, path)
    except TooLargeError as error:
        raise Problem(413, str(error), "too-large", {"Connection": "close"}) from None
    except TimeoutError:
        raise Problem(408, f"the table took longer than {SECONDS:.0f} s; send it in parts", headers={"Connection": "close"}) from None
    except OSError as error:
        _LOG.error("%s: a table could not be kept: %s", request.scope.get(REQUEST_ID), error)
        raise Problem(503, "there is no room for the table now; come again later", "no-room", {"Retry-After": str(12 * WAIT)}) from None
    return {"input": name, "text": named}


@asynccontextmanager
async def _table(request: Request, column: str) -> AsyncIterator[tuple[AsyncIterator[bytes], str]]:
    """The bytes of the table, and the column of its texts."""
    if request.headers["content-type"].lower().startswith(_CSV):
        yield request.stream(), column
        return
    async with request.form(max_files=1, max_fields=1) as form:  # what is large of it lies on the disk
        file, named = form.get("file"), form.get("text", column)
        if not isinstance(file, UploadFile) or not isinstance(named, str):
            raise Problem(422, "body.file: expected a part named file, of a file", "invalid-request")

        async def blocks() -> AsyncIterator[bytes]:
            while block := await file.read(_BLOCK):
                yield block

        yield blocks(), named


def _ordered(request: Request, scoring: Scoring, principal: Principal, asked: dict[str, str], key: str) -> Job:
    """The job; where there was one whose result is gone, another."""
    found = jobs.parts(request)
    order = found.order(Kind.SCORE, asked, principal.tenant, principal.subject)
    while True:
        job, new = jobs.submitted(found, order, key)
        gone = job.state is State.SUCCEEDED and scoring.store.size(principal.tenant, job.result) is None
        if new or key or not gone:
            hit = not new and not gone
            request.app.state.parts.meters.looked_up(CACHE, int(hit), int(not hit))
            return job
        order = replace(order, inputs={**order.inputs, "after": job.id})


def _scoring(parts: Parts) -> Scoring:
    if parts.scoring is None:
        raise Problem(503, "this service keeps no tables", headers={"Retry-After": str(12 * WAIT)})
    return parts.scoring
