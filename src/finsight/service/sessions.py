"""Who has signed in to the page, by its cookie; and whether what a browser sends is really the page's."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from finsight.domain.access import Principal
from finsight.domain.keys import SUBJECT, digest_of, parts_of
from finsight.domain.sign_in import proof
from finsight.service.asked import asked
from finsight.service.client_address import same_origin
from finsight.service.permission import admit
from finsight.service.problems import Problem
from finsight.service_ports import Session, Sessions

if TYPE_CHECKING:
    from finsight.service.parts import Parts

COOKIE = "finsight_session"
SECONDS = 12 * 3600
Csrf = Annotated[str, Form(max_length=100)]


def session_of(request: Request) -> Session | None:
    """Whose page it is; a key that is good no longer, by its end, its rotation or another in its place, takes its sessions with it."""
    parts: Parts = request.app.state.parts
    secret = request.cookies.get(COOKIE)
    found = parts.sessions.find(secret) if secret and parts.sessions else None
    if secret is None or found is None or not found.proof:
        return found
    kept, session = found.proof, secret
    good = parts.gate.vouches(found.principal, lambda digest: hmac.compare_digest(kept, proof(session, digest)))
    return found if good else None


def begin(request: Request, answer: Response, principal: Principal, key: str | None = None) -> None:
    """Give the browser a session of its own in an answer; one that it had before ends, whoever gave it that.

    :param key: that was shown; None where an issuer gave its word.
    """
    kept = sessions(request)
    if before := request.cookies.get(COOKIE):
        kept.end(before)
    asked(request).principal = principal
    answer.set_cookie(
        COOKIE,
        kept.begin(principal, "" if key is None else _digest(principal, key)),
        max_age=SECONDS,
        secure=secure(request),
        httponly=True,
        samesite="strict",
    )


def end(request: Request) -> Response:
    """End the session, and go to the page."""
    sessions(request).end(request.cookies[COOKIE])
    answer = RedirectResponse("/?said=out", 303)
    answer.delete_cookie(COOKIE)
    return answer


def sessions(request: Request) -> Sessions:
    """Where they are kept.

    :raises Problem: when they are nowhere.
    """
    found: Sessions | None = request.app.state.parts.sessions
    if found is None:
        raise Problem(503, "this service keeps no sessions, so nobody can sign in to its page")
    return found


def form_of(action: str = "") -> Any:
    """The dependency of a route that takes a form of the page's: it gives the session of whoever sends it, or refuses.

    :param action: what the form does; empty where nobody needs leave for it.
    """

    def checked(request: Request, csrf: Csrf) -> Session:
        ours_alone(request)
        session = session_of(request)
        if session is None:
            raise Problem(401, "your session is over; sign in again")
        if not hmac.compare_digest(csrf.encode(), session.csrf.encode()):
            raise Problem(403, "the form is not of this session; open the page again")
        if action:
            admit(request, session.principal, action)
        return session

    return Depends(checked)


def ours_alone(request: Request) -> None:
    """Refuse what another site's page sends: a browser says whose it is."""
    if not same_origin(request):
        raise Problem(403, "forms are taken from this service's own page alone")


def _digest(principal: Principal, key: str) -> str:
    parts = parts_of(key) if principal.subject.startswith(SUBJECT) else None
    return digest_of(parts[1] if parts else key)


def secure(request: Request) -> bool:
    """Whether browsers reach the service over HTTPS alone."""
    parts: Parts = request.app.state.parts
    return request.url.scheme == "https" or parts.public_url.startswith("https:")
