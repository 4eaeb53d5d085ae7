"""Jobs on the page: begun, followed, cancelled, by the same code as over REST."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from finsight.service import jobs
from finsight.service.access import anybody
from finsight.service.front_page import MOST_PARAMETERS, PageRoute
from finsight.service.job_schemas import JobId, JobRequest
from finsight.service.job_view import job_list, one_job
from finsight.service.permission import admit
from finsight.service.problems import Problem
from finsight.service.rendering import html
from finsight.service.sessions import form_of, session_of
from finsight.service_ports import Session

Cursor = Annotated[str, Query(pattern=r"^\d{0,15}$")]
# What a redirect may have the page say, by key; see service/pages.py.
_SAID = {"new": "The job is queued.", "there": "The same order is this job already.", "cancelled": "The job is being cancelled."}
# Nothing is given back (`+`): blanks before a quotation mark would be tried in more ways than there is time for.
_ITEM = re.compile(r'\s*+("(?:[^"\\]|\\.)*+"\s*+(?=,|$)|[^,]*+)(?:,|$)')
router = APIRouter(include_in_schema=False, dependencies=[anybody()], route_class=PageRoute)
live = APIRouter(prefix="/live", include_in_schema=False, dependencies=[anybody()])
"""Pieces of the page, for its script; what is refused here is a problem document."""


@router.post("/jobs")
def begin_job(
    request: Request,
    session: Annotated[Session, form_of("jobs.create")],
    kind: Annotated[str, Form(max_length=20)],
    parameters: Annotated[str, Form(max_length=MOST_PARAMETERS)] = "",
) -> Response:
    """Queue a job, and show it."""
    answer = Response()
    order = JobRequest.model_validate({"kind": kind, "parameters": typed(parameters)})
    job = jobs.create_job(order, request, answer, session.principal)
    return RedirectResponse(f"/jobs/{job.id}?said={'new' if answer.status_code == 201 else 'there'}", 303)


@router.get("/jobs/{job}")
def show_job(job: JobId, request: Request, said: str = "") -> Response:
    """A job and the last lines of its log, for whoever has signed in."""
    session = session_of(request)
    if session is None:
        return RedirectResponse("/", 303)
    admit(request, session.principal, "jobs.read")
    about = one_job(request, session.principal, job)
    return html("job.html", session=session, said=_SAID.get(said, ""), wrong="", **about)


@router.post("/jobs/{job}/cancel")
def cancel_job(job: JobId, request: Request, session: Annotated[Session, form_of("jobs.cancel")]) -> Response:
    """End a job."""
    jobs.cancel_job(job, request, session.principal)
    return RedirectResponse(f"/jobs/{job}?said=cancelled", 303)


@live.get("/jobs")
def follow_jobs(request: Request, cursor: Cursor = "") -> Response:
    """The list of jobs as it is now."""
    session = _reader(request)
    return html("job_list.html", jobs=job_list(request, session.principal, cursor))


@live.get("/jobs/{job}")
def follow_job(job: JobId, request: Request) -> Response:
    """A job as it is now."""
    session = _reader(request)
    return html("job_now.html", session=session, **one_job(request, session.principal, job))


def typed(text: str) -> dict[str, Any]:
    """The parameters of a form: a ``key=value`` a line, values as params.yaml has them; a list is ``[a, b]``.

    :raises Problem: when a line is none.
    """
    found: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not key or not value:
            raise Problem(422, f"parameters, line {number}: got {line.strip()[:80]!r}, expected key=value, such as train.lr=2e-5")
        if key in found:
            raise Problem(422, f"parameters, line {number}: {key[:80]} comes twice")
        listed = value.startswith("[") and value.endswith("]")
        found[key] = [_scalar(item) for item in _items(value[1:-1])] if listed else _scalar(value)
    return found


def _items(text: str) -> list[str]:
    return [item for found in _ITEM.findall(text) if (item := found.strip())]


def _scalar(text: str) -> bool | int | float | str | None:
    """JSON where it is a scalar of it, else the text as it stands. What begins like a list or a mapping is never looked into."""
    if text[0] in "[{":
        return text
    try:
        found: bool | int | float | str | None = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    return found


def _reader(request: Request) -> Session:
    session = session_of(request)
    if session is None:
        raise Problem(401, "your session is over; sign in again")
    admit(request, session.principal, "jobs.read")
    return session
