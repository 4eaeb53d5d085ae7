"""What the page shows of jobs."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from finsight.domain.access import Principal
from finsight.domain.policy import Resource
from finsight.errors import FinsightError, UnreachableError
from finsight.service import jobs
from finsight.service.permission import permitted
from finsight.service.problems import Problem

SHOWN = 10  # jobs of a page
_FIRST = ("macro_f1", "accuracy", "validation_macro_f1", "validation_accuracy")  # of a job's metrics, where it has them
_METRICS = 2


def job_list(request: Request, principal: Principal, cursor: str = "") -> dict[str, Any]:
    """A tenant's jobs, the newest first, with ``older`` as the next cursor; ``away`` says why there are none to be had, for a while where
    ``passing``."""
    about: dict[str, Any] = {"cursor": cursor, "rows": [], "older": "", "away": "", "passing": False, "running": 0, "queued": 0}
    try:
        found = jobs.list_jobs(request, principal, None, None, cursor, SHOWN)
    except (Problem, FinsightError) as error:  # the rest of the page works without a queue
        away = error.detail if isinstance(error, Problem) else str(error)
        return about | {"away": away, "passing": isinstance(error, UnreachableError)}
    counts = {state: sum(job.state == state for job in found.jobs) for state in ("running", "queued")}
    rows = [{"job": job, "metrics": _chosen(job.metrics)} for job in found.jobs]
    return about | counts | {"rows": rows, "older": found.next}


def one_job(request: Request, principal: Principal, job: str) -> dict[str, Any]:
    """A job with the last lines that it has said.

    :raises Problem: 404 where there is none, or it is another tenant's.
    """
    found = jobs.own(request, principal, job)
    tail = jobs.parts(request).tails.of(job)
    thing = Resource("job", job, found.order.tenant, found.order.owner)
    return {
        "job": jobs.shown(found),
        "lines": tail.lines,
        "more": tail.more,
        "cancelling": tail.cancelled and not found.state.ended,
        "may_cancel": not found.state.ended and permitted(request, principal, "jobs.cancel", thing),
    }


def _chosen(metrics: dict[str, float]) -> dict[str, float]:
    names = [*(name for name in _FIRST if name in metrics), *(name for name in metrics if name not in _FIRST)]
    return {name: metrics[name] for name in names[:_METRICS]}
