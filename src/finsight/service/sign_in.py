"""Signing in to the page at an OpenID Connect issuer: to it, and back with a code."""

from __future__ import annotations

import hmac
import secrets
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from finsight.bootstrap.sign_in import CALLBACK, SignIn
from finsight.domain import sign_in
from finsight.service.access import anybody
from finsight.service.front_page import PageRoute
from finsight.service.problems import Problem
from finsight.service.rendering import html
from finsight.service.sessions import begin, secure
from finsight.service_ports import NotSignedInError

COOKIE = "finsight_attempt"
SECONDS = 600
PLACE = "/session/oidc"
# What an issuer may say of itself (RFC 6749, 4.1.2.1; OpenID Connect Core 1.0, 3.1.2.6): nothing else that stands in a link is repeated.
_ERRORS = {
    "access_denied": "you or the issuer refused",
    "login_required": "you have to sign in there first",
    "interaction_required": "you have to sign in there first",
    "consent_required": "you have to agree there first",
    "unauthorized_client": "the issuer does not let this service ask",
    "invalid_request": "the issuer does not understand this service",
    "invalid_scope": "the issuer does not give what FINSIGHT_OIDC_SCOPE asks for",
    "server_error": "the issuer is in trouble; try again later",
    "temporarily_unavailable": "the issuer has too much to do; try again later",
}
Short = Annotated[str, Query(max_length=200)]
router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get(PLACE, dependencies=[anybody("session.go")])
def go(request: Request) -> Response:
    """Send the browser to the issuer. Nothing in the request says where it comes back to."""
    ways, attempt, secret = _ways(request), sign_in.begin(), secrets.token_urlsafe(32)
    answer = RedirectResponse(ways.issuer.address(attempt), 303)
    ways.attempts.put(secret, attempt, SECONDS)
    # Lax: the browser comes back from another site, by a link.
    answer.set_cookie(COOKIE, secret, max_age=SECONDS, path=PLACE, secure=secure(request), httponly=True, samesite="lax")
    return answer


@router.get(CALLBACK, dependencies=[anybody("session.begin")])
def come_back(request: Request, state: Short = "", error: Short = "", code: Annotated[str, Query(max_length=4096)] = "") -> Response:
    """Begin a session for who comes back from the issuer with a good code."""
    ways, secret = _ways(request), request.cookies.get(COOKIE)
    attempt = ways.attempts.take(secret) if secret else None
    if attempt is None or not hmac.compare_digest(state.encode(), attempt.state.encode()):
        where = request.app.state.parts.public_url
        raise Problem(403, f"no such sign-in is under way in this browser, or it took more than ten minutes; begin again at {where}")
    if error or not code:
        raise Problem(401, f"nobody was signed in: {_ERRORS.get(error, 'the issuer sent no code')}")
    try:
        principal = ways.issuer.principal(code, attempt)
    except NotSignedInError as refused:
        raise Problem(401, f"nobody was signed in: {refused}") from None
    # A redirect from here would come from another site to the browser, which then keeps the session's cookie back; so the page goes on.
    answer = html("signed_in.html", headers={"Referrer-Policy": "no-referrer"}, session=None, said="", wrong="")
    begin(request, answer, principal)
    answer.delete_cookie(COOKIE, path=PLACE)
    return answer


def _ways(request: Request) -> SignIn:
    found: SignIn | None = request.app.state.parts.sign_in
    if found is None:
        raise Problem(404, "this service has no issuer to sign in at; sign in with a key")
    return found
