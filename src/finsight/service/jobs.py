"""Jobs over REST: the pipeline's runs, tunings and scorings, one queue for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic_core import to_json
from starlette.requests import HTTPConnection

from finsight import tracing
from finsight.domain.access import Principal
from finsight.domain.jobs import Event, Job, Kind, Limits, Order, State
from finsight.domain.policy import Resource
from finsight.service.access import may
from finsight.service.job_feed import JobFeed
from finsight.service.job_schemas import Cursor, IdempotencyKey, JobId, JobPage, JobRequest, JobState
from finsight.service.job_tails import Tails
from finsight.service.permission import nothing, permit, permitted
from finsight.service.problems import WAIT, Problem
from finsight.service_ports import JobQueue, QueueFullError, TooManyJobsError

LOG_LINES = 1000  # of one answer
_JSON_LINES = "application/jsonl"
router = APIRouter(prefix="/jobs", tags=["jobs"])

_LOG = {
    "text/plain": {"schema": {"type": "string"}, "example": "Running stage 'train'\n"},
    _JSON_LINES: {
        "schema": {"type": "string"},
        "example": '{"cursor": "1764200000000-0", "type": "log", "line": "Running stage \'train\'"}\n',
    },
}


@dataclass(frozen=True, slots=True)
class Jobs:
    """What these routes work with.

    :param order: makes an order of a kind, its parameters, a tenant and an owner; a FinsightError says why there can be none.
    """

    queue: JobQueue
    order: Callable[[Kind, Mapping[str, Any], str, str], Order]
    limits: Limits = field(default_factory=Limits)
    feed: JobFeed = field(init=False)
    tails: Tails = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "feed", JobFeed(self.queue))
        object.__setattr__(self, "tails", Tails(self.queue))


@router.post(
    "", status_code=201, responses={200: {"model": JobState, "description": "It is there already"}, 409: {"description": "Not now"}}
)
def create_job(
    asked: JobRequest,
    request: Request,
    response: Response,
    principal: Annotated[Principal, may("jobs.create")],
    key: IdempotencyKey = "",
) -> JobState:
    """Queue a job. The same order again is the same job, unless that ended badly; an `Idempotency-Key` names it for a day in any case."""
    jobs = parts(request)
    permit(request, principal, f"jobs.create.{asked.kind}")
    job, new = submitted(jobs, jobs.order(asked.kind, asked.parameters, principal.tenant, principal.subject), key)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"{request.url.path}/{job.id}"
    return shown(job)


@router.get("")
def list_jobs(
    request: Request,
    principal: Annotated[Principal, may("jobs.read")],
    state: Annotated[State | None, Query(description="Only jobs in this state.", examples=["running"])] = None,
    kind: Annotated[Kind | None, Query(description="Only jobs of this kind.", examples=["train"])] = None,
    cursor: Annotated[str, Query(pattern=r"^[0-9]{0,15}$", description="`next` of the page before.", examples=["41"])] = "",
    limit: Annotated[int, Query(ge=1, le=200, description="How many jobs a page has at most.", examples=[50])] = 50,
) -> JobPage:
    """One's own tenant's jobs, the newest first."""
    found, after = parts(request).queue.jobs(principal.tenant, state, kind, int(cursor or 0), limit)
    seen = [job for job in found if permitted(request, principal, "jobs.read", _thing(job))]
    return JobPage(jobs=[shown(job) for job in seen], next=str(after or ""))


@router.get("/{job}", responses={404: {"description": "There is none of that id"}})
def show_job(job: JobId, request: Request, principal: Annotated[Principal, may("jobs.read")]) -> JobState:
    """A job's state, stage, progress, metrics, and the experiment that it became."""
    return shown(own(request, principal, job))


@router.get(
    "/{job}/log",
    response_class=PlainTextResponse,
    responses={200: {"content": _LOG}, 404: {"description": "There is none of that id"}},
)
def show_log(
    job: JobId,
    request: Request,
    principal: Annotated[Principal, may("jobs.read")],
    cursor: Cursor = "",
    format: Annotated[Literal["text", "jsonl"], Query(description="Text, or all events as lines of JSON.", examples=["jsonl"])] = "text",
) -> Response:
    """What a job said: its output as text, or all that happened as lines of JSON. `X-Next-Cursor` is where to go on."""
    queue = parts(request).queue
    events = queue.events(own(request, principal, job).id, cursor, LOG_LINES)
    headers = {"X-Next-Cursor": events[-1].cursor if events else cursor}
    if format == "jsonl":
        return Response("".join(f"{as_json(event)}\n" for event in events), media_type=_JSON_LINES, headers=headers)
    lines = [event.content["line"] for event in events if event.content["type"] == "log"]
    return PlainTextResponse("".join(f"{line}\n" for line in lines), headers=headers)


@router.delete("/{job}", status_code=202, responses={404: {"description": "There is none of that id"}})
def cancel_job(job: JobId, request: Request, principal: Annotated[Principal, may("jobs.cancel")]) -> JobState:
    """End a job: at once where it waits, within seconds where it runs, with every process that it has started."""
    mine = own(request, principal, job, "jobs.cancel")
    return shown(parts(request).queue.cancel(job) or mine)


def parts(request: HTTPConnection) -> Jobs:
    """The service's jobs.

    :raises Problem: 503 where it has none.
    """
    found: Jobs | None = request.app.state.parts.jobs
    if found is None:
        raise Problem(503, "this service runs without jobs", headers={"Retry-After": str(12 * WAIT)})
    return found


def submitted(jobs: Jobs, order: Order, key: str) -> tuple[Job, bool]:
    """See :meth:`finsight.service_ports.JobQueue.submit`.

    :raises Problem: 503 where too many wait, 429 where the tenant has too many.
    """
    try:
        with tracing.span("jobs publish", "producer", {"messaging.system": "redis", "messaging.destination.name": "jobs"}):
            return jobs.queue.submit(replace(order, origin=tracing.origin()), key, jobs.limits)
    except QueueFullError as error:
        raise Problem(503, str(error), "queue-full", {"Retry-After": str(12 * WAIT)}) from None
    except TooManyJobsError as error:
        raise Problem(429, str(error), "too-many-jobs", {"Retry-After": str(12 * WAIT)}) from None


def own(request: HTTPConnection, principal: Principal, job: str, action: str = "jobs.read") -> Job:
    """A job that somebody may take an action on: of their own tenant, or shared with them.

    :raises Problem: 404 where there is none, or it is out of their reach, which is none of their business; 403 where it is in it.
    """
    found = parts(request).queue.get(job)
    if found is None:
        raise nothing("job", job)
    permit(request, principal, action, _thing(found))
    return found


def _thing(job: Job) -> Resource:
    return Resource("job", job.id, job.order.tenant, job.order.owner)


def shown(job: Job) -> JobState:
    """What clients see of a job."""

    def when(seconds: float | None) -> datetime | None:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    return JobState(
        id=job.id,
        kind=job.order.kind,
        parameters=dict(job.order.parameters),
        owner=job.order.owner,
        state=job.state,
        attempt=job.attempt,
        created=datetime.fromtimestamp(job.created, UTC),
        started=when(job.started),
        ended=when(job.ended),
        stage=job.stage,
        progress=job.progress,
        metrics=dict(job.metrics),
        experiment=job.experiment,
        result=job.result,
        error=job.error,
        correlation_id=job.order.origin.get("correlation_id", ""),
    )


def as_json(event: Event) -> str:
    """An event on one line, with the ``cursor`` to go on from; a number that JSON has no word for is null, as in every answer."""
    return to_json({"cursor": event.cursor, **event.content}, inf_nan_mode="null").decode()
