"""API keys over REST. A secret is shown once, in the answer that makes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from finsight.domain.access import Principal
from finsight.domain.actions import PATTERNS, known
from finsight.domain.keys import LOCAL, ROLES, SUBJECT, ApiKey, Role, digest_of, excess, new_id, new_secret, text_of
from finsight.domain.policy import Resource
from finsight.service.access import may
from finsight.service.gate import Credentialing
from finsight.service.permission import nothing, permit, permitted
from finsight.service.problems import Problem, ProblemDocument
from finsight.service.schemas import WHOLE, RequestBody

DAY = 86400  # seconds
MOST = 1000  # keys of a tenant, those that have ended in the last 30 days among them
router = APIRouter(tags=["keys"])

Scope = Annotated[str, AfterValidator(known), WithJsonSchema({"type": "string", "enum": PATTERNS})]
Tenant = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[\w .,:()/-]+$", min_length=1, max_length=80)]
KeyId = Annotated[str, Path(pattern=r"^[0-9a-f]{24}$", description="The id of a key.", examples=["0199f0c2a4d27c1e5b9a3f60"])]
_NARROWED = "Actions that it is narrowed to, or beginnings of them with `.*`; none narrow nothing."
_NO_KEY: dict[str, Any] = {"model": ProblemDocument, "description": "No key of this id in the tenant."}
_ABOUT: dict[str, Any] = {
    "id": "0199f0c2a4d27c1e5b9a3f60",
    "name": "nightly scoring",
    "tenant": "local",
    "roles": ["scorer"],
    "scopes": ["predict"],
    "created": "2026-11-27T12:00:00Z",
    "expires": "2027-02-25T12:00:00Z",
    "created_by": "admin",
    "last_used": None,
    "revoked": None,
}


class KeyRequest(RequestBody):
    """What a key shall be good for: nothing that its maker may not do."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"name": "nightly scoring", "roles": ["scorer"], "scopes": ["predict"], "days": 90}}
    )

    name: Name
    roles: Annotated[list[Role], Field(min_length=1, max_length=len(ROLES))]
    scopes: Annotated[list[Scope], Field(max_length=50, description=_NARROWED)] = Field([])
    tenant: Annotated[Tenant | None, Field(description="The maker's own when absent; another needs an admin of the tenant `local`.")] = None
    days: Annotated[
        Annotated[int, Field(ge=1, le=366), WHOLE] | None,
        Field(description="90 when absent, or less where the maker's own key ends before."),
    ] = None


class RotateRequest(RequestBody):
    """How long the secret that is replaced stays good."""

    model_config = ConfigDict(json_schema_extra={"example": {"grace_seconds": 3600}})

    grace_seconds: Annotated[int, Field(ge=0, le=7 * DAY), WHOLE] = DAY


class KeyAbout(BaseModel):
    """What is known of a key; no secret."""

    model_config = ConfigDict(json_schema_extra={"example": _ABOUT})

    id: str
    name: str
    tenant: str
    roles: list[str]
    scopes: list[str]
    created: datetime
    expires: datetime
    created_by: str
    last_used: datetime | None
    revoked: datetime | None


class KeyMade(KeyAbout):
    """A key with its secret, which nobody can show again. For ``POST /v1/auth/token`` the id is the client's, with ``client_secret``."""

    model_config = ConfigDict(json_schema_extra={"example": {**_ABOUT, "key": "fsk_0199f0c2a4d27c1e5b9a3f60_…", "client_secret": "…"}})

    key: str
    client_secret: str


class KeyPage(BaseModel):
    """Keys, the newest first; ``next`` is the cursor of the page after, null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"keys": [_ABOUT], "next": None}})

    keys: list[KeyAbout]
    next: str | None


@router.post("/keys", status_code=201, responses={409: {"model": ProblemDocument}})
def make_key(asked: KeyRequest, request: Request, principal: Annotated[Principal, may("keys.create")]) -> KeyMade:
    """Make a key."""
    own: Credentialing = request.app.state.parts.own
    now, secret, tenant = own.clock(), new_secret(), asked.tenant or principal.tenant
    ends = _ends_of(own, principal)
    expires = now + (asked.days or 90) * DAY
    if asked.days is None and ends is not None:
        expires = min(expires, ends)
    roles, scopes = frozenset(asked.roles), frozenset(asked.scopes)
    _refuse_excess(principal, tenant, roles, scopes, expires, ends)
    if len(own.keys.page(tenant, None, MOST)) == MOST:  # of those who ask at once some may come through
        said = f"{tenant} has {MOST} keys, those that have ended within 30 days among them; rotate one rather than make another"
        raise Problem(409, said, "too-many-keys")
    key = ApiKey(new_id(now), asked.name, tenant, roles, scopes, digest_of(secret), now, expires, principal.subject)
    own.keys.add(key)
    return _made(key, secret)


@router.get("/keys")
def list_keys(
    request: Request,
    principal: Annotated[Principal, may("keys.read")],
    tenant: Annotated[Tenant | None, Query(description="Another tenant's, for those of the tenant `local`.", examples=["acme"])] = None,
    cursor: Annotated[
        str | None, Query(pattern=r"^[0-9a-f]{24}$", description="`next` of the page before.", examples=["0199f0c2a4d27c1e5b9a3f60"])
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="How many keys a page has at most.", examples=[50])] = 50,
) -> KeyPage:
    """List the keys of one's tenant, those that have ended for 30 days too."""
    if tenant not in (None, principal.tenant) and principal.tenant != LOCAL:
        raise Problem(403, f"{principal.subject} is of the tenant {principal.tenant} and sees its keys alone")
    own: Credentialing = request.app.state.parts.own
    found = own.keys.page(tenant or principal.tenant, cursor, limit + 1)
    seen = [key for key in found[:limit] if permitted(request, principal, "keys.read", _thing(principal, key))]
    return KeyPage(keys=[KeyAbout(**_about(key)) for key in seen], next=found[limit - 1].id if len(found) > limit else None)


@router.post("/keys/{key_id}/rotate", responses={404: _NO_KEY, 409: {"model": ProblemDocument}})
def rotate_key(
    key_id: KeyId, asked: RotateRequest, request: Request, principal: Annotated[Principal, may("keys.create")]
) -> KeyMade:  # the right to make keys: it hands out a secret
    """Give a key a new secret; the old one stays good for a while."""
    own: Credentialing = request.app.state.parts.own
    now, secret, ends = own.clock(), new_secret(), _ends_of(own, principal)

    def rotated(key: ApiKey) -> ApiKey:
        permit(request, principal, "keys.create", _thing(principal, key))
        _refuse_excess(principal, key.tenant, key.roles, key.scopes, key.expires, ends)
        if now >= key.ends:
            raise Problem(409, f"the key {key_id} has ended; make a new one", "key-ended")
        return key.rotated(digest_of(secret), now, asked.grace_seconds)

    return _made(_there(key_id, own.keys.change(key_id, rotated)), secret)


@router.delete("/keys/{key_id}", status_code=204, response_class=Response, responses={404: _NO_KEY})
def revoke_key(key_id: KeyId, request: Request, principal: Annotated[Principal, may("keys.revoke")]) -> None:
    """End a key, and with it the tokens that were given for it. A second time changes nothing."""
    own: Credentialing = request.app.state.parts.own
    now = own.clock()

    def revoked(key: ApiKey) -> ApiKey:
        permit(request, principal, "keys.revoke", _thing(principal, key))
        return key.taken_back(now)

    _there(key_id, own.keys.change(key_id, revoked))


def _there(key_id: str, key: ApiKey | None) -> ApiKey:
    if key is None:
        raise nothing("key", key_id)
    return key


def _thing(principal: Principal, key: ApiKey) -> Resource:
    """A key as the policy sees it: those of the tenant ``local``, whose service it is, reach every tenant's."""
    return Resource("key", key.id, None if principal.tenant == LOCAL else key.tenant, key.maker)


def _ends_of(own: Credentialing, maker: Principal) -> float | None:
    """When the key that somebody presents ends; None where they present none."""
    found = own.keys.get(maker.subject.removeprefix(SUBJECT)) if maker.subject.startswith(SUBJECT) else None
    return found.ends if found else None


def _refuse_excess(
    maker: Principal, tenant: str, roles: frozenset[str], scopes: frozenset[str], expires: float, ends: float | None
) -> None:
    if more := excess(maker, tenant, roles, scopes):
        raise Problem(403, f"the key would have {more}", "more-than-yours")
    if ends is not None and expires > ends:
        raise Problem(403, "the key would outlive yours", "more-than-yours")


def _about(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "roles": sorted(key.roles),
        "scopes": sorted(key.scopes),
        "created": _when(key.created),
        "expires": _when(key.expires),
        "created_by": key.maker,
        "last_used": _when(key.used),
        "revoked": _when(key.revoked),
    }


def _made(key: ApiKey, secret: str) -> KeyMade:
    return KeyMade.model_validate({**_about(key), "key": text_of(key.id, secret), "client_secret": secret})


def _when(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(int(seconds), UTC)
