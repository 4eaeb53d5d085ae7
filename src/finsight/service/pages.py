"""A page for people: try a headline, see the models, move the champion. Plain forms: nothing on it needs a script."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from pydantic import ValidationError

from finsight.bootstrap import released as core
from finsight.domain.keys import SUBJECT
from finsight.errors import FinsightError
from finsight.pipeline.explain import explain
from finsight.pipeline.models import find
from finsight.pipeline.run_record import archived
from finsight.service import models
from finsight.service.access import Gate, anybody, presented
from finsight.service.asked import asked
from finsight.service.model_schemas import Promotion, Rollback
from finsight.service.parts import Parts
from finsight.service.permission import admit, admit_stranger, permitted
from finsight.service.problems import Problem
from finsight.service.schemas import VersionName
from finsight.service_ports import Session, Sessions

COOKIE = "finsight_session"
MOST_CHARACTERS = 1000  # of a headline: each of its words costs a pass through the model
_SHADES = 4
# What a redirect may have the page say: by key, so that no link can put words into it.
_SAID = {"promoted": "The champion was changed.", "back": "The champion is the one before.", "out": "You are signed out."}
router = APIRouter(include_in_schema=False, dependencies=[anybody()])  # each route asks for its session itself
_TEMPLATES = Environment(
    loader=PackageLoader("finsight.service"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
Text = Annotated[str, Form(max_length=MOST_CHARACTERS)]
Csrf = Annotated[str, Form(max_length=100)]


@dataclass(frozen=True, slots=True)
class ShownWord:
    """A word of a headline.

    :param shade: -4 (against the label) to 4 (for it).
    """

    text: str
    effect: float
    shade: int


@router.get("/")
def show_page(request: Request, said: str = "") -> Response:
    """The page; to whoever has not signed in, the form to do so."""
    return _page(request, _session(request), said=_SAID.get(said, ""))


@router.post("/session")
def sign_in(request: Request, key: Annotated[str, Form(max_length=200)]) -> Response:
    """Exchange a key for a session."""
    _same_origin(request)
    admit_stranger(request, "session.begin")  # a good key too: each sign-in is kept for hours
    gate: Gate = request.app.state.parts.gate
    principal = gate.principal(replace(presented(request), key=key.strip(), bearer=None))
    if principal is None:
        return _page(request, None, 401, wrong="This is no key of this service.")
    answer = RedirectResponse("/", 303)
    secure = request.url.scheme == "https"
    asked(request).principal = principal
    secret = _sessions(request).begin(principal)
    answer.set_cookie(COOKIE, secret, max_age=12 * 3600, secure=secure, httponly=True, samesite="strict")
    return answer


@router.post("/session/end")
def sign_out(request: Request, csrf: Csrf) -> Response:
    """End the session."""
    _own(request, csrf)
    _sessions(request).end(request.cookies[COOKIE])
    answer = RedirectResponse("/?said=out", 303)
    answer.delete_cookie(COOKIE)
    return answer


@router.post("/")
def try_headline(request: Request, text: Text, csrf: Csrf) -> Response:
    """Label a headline, and show what each word does for that."""
    session = _own(request, csrf)
    _allowed(request, session, "predict")
    if not text.strip():
        return _page(request, session, 422, text=text, wrong="Type a headline first.")
    model = request.app.state.parts.predictions.served.model
    (prediction,), (reasons,) = model.predict([text]), explain(model.probabilities, [text])
    strongest = max((abs(word.effect) for word in reasons.words), default=0.0) or 1.0
    words = [ShownWord(word.text, word.effect, round(_SHADES * word.effect / strongest)) for word in reasons.words]
    return _page(request, session, text=text, prediction=prediction, words=words)


@router.post("/promote")
def promote(
    request: Request,
    version: Annotated[str, Form(pattern="^[1-9][0-9]{0,8}$")],
    csrf: Csrf,
    why: Annotated[str, Form(max_length=1000)] = "",
    force: Annotated[bool, Form()] = False,
) -> Response:
    """Make a version the champion."""
    session = _own(request, csrf)
    _allowed(request, session, "models.promote")
    try:
        models.promote_model(request, version, Promotion(why=why, force=force), session.principal)
    except (Problem, FinsightError, ValidationError) as error:
        return _refused(request, session, error)
    return RedirectResponse("/?said=promoted", 303)


@router.post("/rollback")
def rollback(request: Request, csrf: Csrf, why: Annotated[str, Form(max_length=1000)] = "") -> Response:
    """Make the version before the champion again."""
    session = _own(request, csrf)
    _allowed(request, session, "models.rollback")
    try:
        models.rollback_model(Rollback(why=why), session.principal)
    except (Problem, FinsightError, ValidationError) as error:
        return _refused(request, session, error)
    return RedirectResponse("/?said=back", 303)


@router.get("/models/{version}/report")
def show_report(request: Request, version: VersionName) -> Response:
    """The report of a version, for whoever has signed in."""
    session = _session(request)
    if session is None:
        return RedirectResponse("/", 303)
    _allowed(request, session, "models.read")
    return HTMLResponse(
        core.report(find(core.versions(), version), "report.html"), headers={"Content-Security-Policy": models.REPORT_POLICY}
    )


def _page(request: Request, session: Session | None, status: int = 200, **shown: Any) -> HTMLResponse:
    nonce = secrets.token_urlsafe(16)
    blank: dict[str, Any] = {"said": "", "wrong": "", "text": "", "prediction": None, "words": [], "models": [], "unreachable": ""}
    about = blank | shown | {"nonce": nonce, "session": session, "most": MOST_CHARACTERS, "may": lambda _: False}
    if session:
        about["may"] = lambda action: permitted(request, session.principal, action)
        if about["may"]("models.read"):
            try:
                about["models"] = [models.version(one) for one in reversed(core.versions()) if not archived(one)]
            except FinsightError as error:  # the rest of the page works without the registry
                about["unreachable"] = str(error)
    policy = f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    text = _TEMPLATES.get_template("page.html").render(**about)
    # Without a referrer to itself a page's own forms come from the origin `null`.
    return HTMLResponse(text, status, {"Content-Security-Policy": policy, "Referrer-Policy": "same-origin"})


def _refused(request: Request, session: Session, error: Problem | FinsightError | ValidationError) -> HTMLResponse:
    if isinstance(error, ValidationError):
        return _page(request, session, 422, wrong=error.errors()[0]["msg"].removeprefix("Value error, "))
    status, said = (error.status_code, error.detail) if isinstance(error, Problem) else (409, str(error))
    return _page(request, session, status, wrong=said)


def _session(request: Request) -> Session | None:
    """Whose page it is; a key that has ended takes its sessions with it."""
    parts: Parts = request.app.state.parts
    secret = request.cookies.get(COOKIE)
    found = parts.sessions.find(secret) if secret and parts.sessions else None
    if found and found.principal.subject.startswith(SUBJECT):
        key = parts.own.keys.get(found.principal.subject.removeprefix(SUBJECT))
        return found if key and parts.own.clock() < key.ends else None
    return found


def _sessions(request: Request) -> Sessions:
    sessions: Sessions | None = request.app.state.parts.sessions
    if sessions is None:
        raise Problem(503, "this service keeps no sessions, so nobody can sign in to its page")
    return sessions


def _own(request: Request, csrf: str) -> Session:
    """The session of whoever sends a form of ours.

    :raises Problem: when there is none, or the form is another's.
    """
    _same_origin(request)
    session = _session(request)
    if session is None:
        raise Problem(401, "your session is over; open / and sign in again")
    if not hmac.compare_digest(csrf.encode(), session.csrf.encode()):
        raise Problem(403, "the form is not of this session; open / again")
    return session


def _same_origin(request: Request) -> None:
    """Refuse what another site's page sends: a browser says whose it is."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise Problem(403, "forms are taken from this service's own page alone")


def _allowed(request: Request, session: Session, action: str) -> None:
    admit(request, session.principal, action)
