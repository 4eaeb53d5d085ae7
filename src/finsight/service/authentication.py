"""Tokens and tickets over REST, and who one is."""

from __future__ import annotations

import base64
import binascii
import logging
import secrets
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote_plus

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict

from finsight.domain.access import Principal
from finsight.domain.actions import PATTERNS, beyond
from finsight.domain.keys import ApiKey, digest_of
from finsight.errors import ArtifactError
from finsight.service.access import anybody, may
from finsight.service.client_address import client_of
from finsight.service.envelope import REQUEST_ID
from finsight.service.gate import Credentialing
from finsight.service.parts import Parts
from finsight.service.problems import Problem, ProblemDocument

TICKET = 30  # seconds
LARGEST = 8192  # bytes of a form
_LOG = logging.getLogger("finsight.service")
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"type": "string", "enum": ["client_credentials"]},
                        "client_id": {"type": "string", "description": "The id of a key; or send it by HTTP Basic."},
                        "client_secret": {"type": "string", "format": "password"},
                        "scope": {"type": "string", "description": "Actions to narrow the token to, separated by spaces."},
                    },
                },
                "example": {"grant_type": "client_credentials", "client_id": "0199f0c2a4d27c1e5b9a3f60", "client_secret": "…"},
            }
        },
    }
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ProblemDocument, "description": "With the member `error` of RFC 6749, 5.2; so has 401."},
    404: {"model": ProblemDocument, "description": "Tokens are switched off."},
    413: {"model": ProblemDocument},
}
router = APIRouter(tags=["authentication"])


class TokenResponse(BaseModel):
    """As RFC 6749, 5.1 has it."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"access_token": "eyJ…", "token_type": "Bearer", "expires_in": 600, "scope": "predict"}}
    )

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - RFC 6749 calls it so
    expires_in: int
    scope: str


class TicketResponse(BaseModel):
    """A ticket, and for how many seconds it opens one socket."""

    model_config = ConfigDict(json_schema_extra={"example": {"ticket": "kT3…", "expires_in": 30}})

    ticket: str
    expires_in: int


class Me(BaseModel):
    """Who a credential belongs to. ``scopes`` narrow what the roles allow; none narrow nothing."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"subject": "key:0199f0c2a4d27c1e5b9a3f60", "tenant": "local", "roles": ["scorer"], "scopes": ["predict"]}
        }
    )

    subject: str
    tenant: str
    roles: list[str]
    scopes: list[str]


@router.get("/me")
def show_me(principal: Annotated[Principal, may("me.read")]) -> Me:
    """Say who one is."""
    return Me(subject=principal.subject, tenant=principal.tenant, roles=sorted(principal.roles), scopes=sorted(principal.scopes))


@router.post("/auth/ticket", status_code=201)
def make_ticket(request: Request, principal: Annotated[Principal, may("auth.ticket")]) -> TicketResponse:
    """Give a ticket for the handshake of one socket: a browser can't send a header there, and an address gets into logs."""
    own: Credentialing = request.app.state.parts.own
    made = secrets.token_urlsafe(32)
    own.tickets.put(made, principal, TICKET)
    return TicketResponse(ticket=made, expires_in=TICKET)


async def form(request: Request) -> dict[str, str]:
    """The parameters of a form, as RFC 6749 reads them: one without a value is absent, none comes twice.

    FastAPI's own forms take the last of two, and know no limit of size.

    :raises Problem: when it is no such form.
    """
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise oauth_problem("invalid_request", "expected a form, application/x-www-form-urlencoded")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST:
            raise Problem(413, f"the form has more than {LARGEST} bytes")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise oauth_problem("invalid_request", "the form can't be read") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise oauth_problem("invalid_request", "a parameter comes twice")
    return {name: value for name, value in found.items() if value}


@router.post("/auth/token", dependencies=[anybody("auth.token")], openapi_extra=_FORM, responses=_REFUSALS)
def make_token(asked: Annotated[dict[str, str], Depends(form)], request: Request) -> TokenResponse:
    """Give a token for a key: OAuth 2.0 client credentials (RFC 6749, 4.4), by HTTP Basic or in the form."""
    parts: Parts = request.app.state.parts
    own = parts.own
    if own.tokens is None:
        raise Problem(404, "tokens are switched off here (FINSIGHT_AUTH)")
    kind = asked.get("grant_type")
    if kind != "client_credentials":
        error = "unsupported_grant_type" if kind else "invalid_request"
        raise oauth_problem(error, "grant_type has to be client_credentials")
    id_, secret = _client(request, asked)
    key = own.limited(client_of(request), lambda: own.key(id_, secret))
    if key is None:
        raise _unknown_client()
    scopes = _narrowed(key, asked.get("scope"))
    try:
        made, seconds = own.tokens.issue(key, digest_of(secret), scopes)
    except ArtifactError as error:  # said to whoever holds a key too: nothing else would tell them that it is not theirs to mend
        _LOG.error("%s: %s", request.scope.get(REQUEST_ID), error)
        raise Problem(500, f"whoever keeps this service has to mend it: {error}", "signing-key") from None
    return TokenResponse(access_token=made, expires_in=seconds, scope=" ".join(sorted(scopes)))


def oauth_problem(error: str, detail: str, status: int = 400, headers: dict[str, str] | None = None) -> Problem:
    """A problem document that is the error of RFC 6749, 5.2 as well."""
    more: dict[str, Any] = {"error": error, "error_description": detail}
    return Problem(status, detail, error.replace("_", "-"), headers, more)


def _unknown_client() -> Problem:
    basic = {"WWW-Authenticate": 'Basic realm="finsight"'}
    return oauth_problem("invalid_client", "client_id and client_secret are not those of a key that is good", 401, basic)


def _client(request: Request, asked: dict[str, str]) -> tuple[str, str]:
    """Id and secret, from the header or the form."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    inside = asked.get("client_id"), asked.get("client_secret")
    if not scheme:
        if not (inside[0] and inside[1]):
            raise _unknown_client()
        return inside[0], inside[1]
    if inside[1]:
        raise oauth_problem("invalid_request", "the client is named twice, in the header and in the form")
    try:
        id_, colon, secret = base64.b64decode(value.strip(), validate=True).decode("ascii").partition(":")
    except (binascii.Error, ValueError):
        raise _unknown_client() from None
    if scheme.lower() != "basic" or not colon or inside[0] not in (None, unquote_plus(id_)):
        raise _unknown_client()
    return unquote_plus(id_), unquote_plus(secret)


def _narrowed(key: ApiKey, wanted: str | None) -> frozenset[str]:
    if wanted is None:
        return key.scopes
    scopes = frozenset(wanted.split(" "))
    if not scopes <= set(PATTERNS) or (key.scopes and beyond(scopes, key.scopes)):
        raise oauth_problem("invalid_scope", "the scope has to be actions that the key has, separated by spaces")
    return scopes
