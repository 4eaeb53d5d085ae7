"""A page for people: try a headline, see the models, move the champion. Plain forms: nothing on it needs its script."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from importlib import resources
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from finsight.bootstrap import released as core
from finsight.pipeline.explain import Explanation
from finsight.pipeline.models import find
from finsight.service import models
from finsight.service.access import Gate, anybody, presented
from finsight.service.front_page import MOST_CHARACTERS, PageRoute, page
from finsight.service.gone import CLIENT_GONE, GoneError
from finsight.service.model_schemas import Promotion, Rollback
from finsight.service.permission import admit, admit_stranger, count
from finsight.service.predict import PredictRequest, predicted
from finsight.service.problems import Problem
from finsight.service.schemas import VersionName
from finsight.service.sessions import begin, end, form_of, ours_alone, session_of
from finsight.service_ports import Session

_SHADES = 4
# What a redirect may have the page say: by key, so that no link can put words into it.
_SAID = {"promoted": "The champion was changed.", "back": "The champion is the one before.", "out": "You are signed out."}
router = APIRouter(include_in_schema=False, dependencies=[anybody()], route_class=PageRoute)  # each route asks for its session itself
Text = Annotated[str, Form(max_length=MOST_CHARACTERS)]


@dataclass(frozen=True, slots=True)
class ShownWord:
    """A word of a headline.

    :param shade: -4 (against the label) to 4 (for it).
    """

    text: str
    effect: float
    shade: int


@router.get("/")
def show_page(request: Request, said: str = "", cursor: Annotated[str, Query(pattern=r"^\d{0,15}$")] = "") -> Response:
    """The page; to whoever has not signed in, the ways to do so."""
    session = session_of(request)
    if session:
        count(request, session.principal, "me.read")  # MLflow and the queue are asked for it
    return page(request, session, cursor=cursor, said=_SAID.get(said, ""))


@router.get("/static/live.js")
def show_script() -> Response:
    """The page's only script: it keeps what is said of jobs up to date."""
    return Response(_script(), media_type="text/javascript")


@router.post("/session")
def sign_in(request: Request, key: Annotated[str, Form(max_length=200)]) -> Response:
    """Exchange a key for a session."""
    ours_alone(request)
    admit_stranger(request, "session.begin")  # a good key too: each sign-in is kept for hours
    gate: Gate = request.app.state.parts.gate
    key = key.strip()
    principal = gate.principal(replace(presented(request), key=key, bearer=None))
    if principal is None:
        raise Problem(401, "This is no key of this service.")
    answer = RedirectResponse("/", 303)
    begin(request, answer, principal, key)
    return answer


@router.post("/session/end", dependencies=[form_of()])
def sign_out(request: Request) -> Response:
    """End the session."""
    return end(request)


@router.post("/")
async def try_headline(request: Request, text: Text, session: Annotated[Session, form_of("predict")]) -> Response:
    """Label a headline, and show what each word does for that: as ``POST /v1/predict`` does, in the same batches."""
    if not text.strip():
        raise Problem(422, "Type a headline first.")
    try:
        served, rows, words = await predicted(PredictRequest(texts=[text], explain=True), request)
    except GoneError:
        return Response(status_code=CLIENT_GONE)
    (prediction,), reasons = served.model.read(rows), words or []
    shaded = [word for one in reasons for word in _shaded(one)]
    return await run_in_threadpool(lambda: page(request, session, text=text, prediction=prediction, words=shaded))


@router.post("/promote")
def promote(
    request: Request,
    version: Annotated[str, Form(pattern="^[1-9][0-9]{0,8}$")],
    session: Annotated[Session, form_of("models.promote")],
    why: Annotated[str, Form(max_length=1000)] = "",
    force: Annotated[bool, Form()] = False,
) -> Response:
    """Make a version the champion."""
    models.promote_model(request, version, Promotion(why=why, force=force), session.principal)
    return RedirectResponse("/?said=promoted", 303)


@router.post("/rollback")
def rollback(
    request: Request, session: Annotated[Session, form_of("models.rollback")], why: Annotated[str, Form(max_length=1000)] = ""
) -> Response:
    """Make the version before the champion again."""
    models.rollback_model(request, Rollback(why=why), session.principal)
    return RedirectResponse("/?said=back", 303)


@router.get("/models/{version}/report")
def show_report(request: Request, version: VersionName) -> Response:
    """The report of a version, for whoever has signed in."""
    session = session_of(request)
    if session is None:
        return RedirectResponse("/", 303)
    admit(request, session.principal, "models.read")
    return HTMLResponse(
        core.report(find(core.versions(), version), "report.html"), headers={"Content-Security-Policy": models.REPORT_POLICY}
    )


@functools.cache
def _script() -> bytes:
    return resources.files("finsight.service").joinpath("static", "live.js").read_bytes()


def _shaded(found: Explanation) -> list[ShownWord]:
    strongest = max((abs(word.effect) for word in found.words), default=0.0) or 1.0
    return [ShownWord(word.text, word.effect, round(_SHADES * word.effect / strongest)) for word in found.words]
