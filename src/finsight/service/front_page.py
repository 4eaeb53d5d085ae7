"""The page as a whole, and routes that say on it what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from finsight.bootstrap import released as core
from finsight.domain.jobs import Kind
from finsight.errors import FinsightError
from finsight.pipeline.run_record import archived
from finsight.service import models
from finsight.service.job_view import job_list
from finsight.service.permission import permitted
from finsight.service.problems import Problem, refusal
from finsight.service.rendering import html
from finsight.service.sessions import session_of
from finsight.service_ports import Session

MOST_CHARACTERS = 1000  # of a headline: each of its words costs a pass through the model
MOST_PARAMETERS = 10_000  # characters
_TYPED = ("text", "kind", "parameters")  # fields that keep what was typed when a form is refused


class PageRoute(APIRoute):
    """A route whose refusals people read on the page, in one line."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See :class:`fastapi.routing.APIRoute`."""
        handler = super().get_route_handler()

        async def said(request: Request) -> Response:
            try:
                return await handler(request)
            except Problem as problem:
                found = problem
            except (FinsightError, RequestValidationError, ValidationError) as error:
                found = refusal(request, error)
            typed = {name: value for name, value in (await request.form()).items() if name in _TYPED}
            return await run_in_threadpool(_refused, request, found, typed)

        return said


def page(
    request: Request,
    session: Session | None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    cursor: str = "",
    bare: bool = False,
    **shown: Any,
) -> HTMLResponse:
    """The page; to whoever has not signed in, the ways to do so.

    :param cursor: of the jobs.
    :param bare: without jobs and models, so that nothing outside is asked.
    :param shown: ``said`` and ``wrong`` are lines above all else; what was typed; a prediction and its words.
    """
    sign_in = request.app.state.parts.sign_in
    blank: dict[str, Any] = {
        "said": "",
        "wrong": "",
        "text": "",
        "kind": "",
        "parameters": "",
        "prediction": None,
        "words": [],
        "models": [],
    }
    about = blank | {"unreachable": "", "kinds": [], "may": lambda _: False, "jobs": None} | shown
    if session:
        about["may"] = lambda action: permitted(request, session.principal, action)
        about["kinds"] = [kind for kind in Kind if kind is not Kind.SCORE and about["may"](f"jobs.create.{kind}")]
    if session and not bare:
        if about["may"]("jobs.read"):
            about["jobs"] = job_list(request, session.principal, cursor)
        if about["may"]("models.read"):
            try:
                about["models"] = [models.version(one) for one in reversed(core.versions()) if not archived(one)]
            except FinsightError as error:  # the rest of the page works without the registry
                about["unreachable"] = str(error)
    most = {"most_text": MOST_CHARACTERS, "most_parameters": MOST_PARAMETERS}
    return html("page.html", status, headers, session=session, bare=bare, issuer=sign_in.place if sign_in else "", **most, **about)


def _refused(request: Request, problem: Problem, typed: Mapping[str, Any]) -> HTMLResponse:
    try:
        session = session_of(request)
    except FinsightError:  # the reason of the refusal, most likely
        session = None
    bare = problem.status_code == 429  # who asks too often is answered for little
    return page(request, session, problem.status_code, problem.headers, bare=bare, wrong=problem.detail, **typed)
