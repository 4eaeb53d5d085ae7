"""API keys: what is kept of one, and what may be made of it. A secret itself is never kept, only its SHA-256."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, replace
from typing import Literal, get_args

from finsight.domain.access import Principal
from finsight.domain.actions import beyond

LOCAL = "local"  # the tenant of a service that nobody has divided; its admins may make keys for the others
Role = Literal["viewer", "scorer", "trainer", "releaser", "monitor", "admin"]
ROLES: tuple[str, ...] = get_args(Role)
SUBJECT = "key:"
"""What the subject of a key's holder starts with; the key's id follows."""
_TEXT = re.compile(r"fsk_([0-9a-f]{24})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept. Times are seconds since 1970.

    :param id: sorts by when it was made; no secret.
    :param digest: SHA-256 of the secret, hexadecimal. The secret has 256 random bits, so that a slow hash would add nothing.
    :param maker: the subject who made it.
    :param previous: digest of the secret before the last rotation, good until ``previous_until``.
    :param used: when it was last presented, to the minute; None where it never was.
    """

    id: str
    name: str
    tenant: str
    roles: frozenset[str]
    scopes: frozenset[str]
    digest: str
    created: float
    expires: float
    maker: str
    previous: str = ""
    previous_until: float = 0.0
    revoked: float | None = None
    used: float | None = None

    @property
    def ends(self) -> float:
        """When it is good for nothing any more."""
        return self.expires if self.revoked is None else min(self.expires, self.revoked)

    def good_until(self, digest: str, now: float) -> float | None:
        """Until when a secret of this digest opens the service; None where it does not now."""
        if now >= self.ends:
            return None
        if hmac.compare_digest(digest, self.digest):
            return self.ends
        if self.previous and hmac.compare_digest(digest, self.previous) and now < self.previous_until:
            return min(self.ends, self.previous_until)
        return None

    def rotated(self, digest: str, now: float, grace: float) -> ApiKey:
        """With a new secret; the present one stays good for ``grace`` seconds."""
        return replace(self, digest=digest, previous=self.digest, previous_until=now + grace)

    def taken_back(self, now: float) -> ApiKey:
        """Good for nothing from ``now`` on; the first time counts."""
        return self if self.revoked is not None else replace(self, revoked=now)

    def holder(self, scopes: frozenset[str] | None = None) -> Principal:
        """Who presents it; ``scopes`` narrows it."""
        return Principal(SUBJECT + self.id, self.tenant, self.roles, self.scopes if scopes is None else scopes)


def new_id(now: float) -> str:
    """An id that sorts by time and that nobody can guess."""
    return f"{int(now * 1000):012x}{secrets.token_hex(6)}"


def new_secret() -> str:
    """256 random bits as 43 characters."""
    return secrets.token_urlsafe(32)


def digest_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def text_of(id_: str, secret: str) -> str:
    """A key as its holder keeps it: ``fsk_<id>_<secret>``."""
    return f"fsk_{id_}_{secret}"


def parts_of(text: str) -> tuple[str, str] | None:
    """Id and secret of a key; None where it can be none."""
    found = _TEXT.fullmatch(text)
    return (found[1], found[2]) if found else None


def excess(maker: Principal, tenant: str, roles: frozenset[str], scopes: frozenset[str]) -> str | None:
    """What a key would let its holder do that its maker can't, in words; None where there is nothing.

    An admin has every role. An empty ``scopes`` narrows nothing, so somebody who is narrowed can't give it.
    """
    if tenant != maker.tenant and maker.tenant != LOCAL:
        return f"the tenant {tenant}; yours is {maker.tenant}"
    if "admin" not in maker.roles and (more := sorted(roles - maker.roles)):
        return f"the role {more[0]}, which you don't have"
    if maker.scopes and not scopes:
        return f"every scope; yours are {', '.join(sorted(maker.scopes))}"
    if maker.scopes and (more := beyond(scopes, maker.scopes)):
        return f"the scope {more[0]}; yours are {', '.join(sorted(maker.scopes))}"
    return None
