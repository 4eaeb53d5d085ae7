"""Who asks, and whether they may: what every route says of itself."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader

from finsight.domain.access import Principal
from finsight.service.problems import Problem

API_KEY = APIKeyHeader(name="X-API-Key", auto_error=False, description="A key of this service.")
LOCAL = "local"  # the tenant of a service that nobody has divided


class Gate(Protocol):
    """Knows credentials, and what they are good for."""

    def principal(self, key: str | None) -> Principal | None:
        """Who presents a credential; None where it is none of ours, has expired, or was taken back."""
        ...

    def allowed(self, principal: Principal, action: str) -> bool:
        """Whether the policy lets somebody do something."""
        ...


class OneKey:
    """A service with one key, whose holder may do everything."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def principal(self, key: str | None) -> Principal | None:
        """See :class:`Gate`."""
        good = key is not None and hmac.compare_digest(key.encode(), self._key)
        return Principal("admin", LOCAL, frozenset({"admin"})) if good else None

    def allowed(self, principal: Principal, action: str) -> bool:  # noqa: ARG002
        """See :class:`Gate`."""
        return "admin" in principal.roles


def may(action: str) -> Any:
    """The dependency of a route that is an ``action`` (``models.promote``): it gives the route the principal, or refuses.

    A route without one is found by a test; the few that anybody may use say so by :func:`anybody`.
    """

    def checked(request: Request, key: Annotated[str | None, Depends(API_KEY)]) -> Principal:
        gate: Gate = request.app.state.parts.gate
        principal = gate.principal(key)
        if principal is None:
            raise Problem(401, "send a key in the header X-API-Key", headers={"WWW-Authenticate": "ApiKey"})
        if not gate.allowed(principal, action):
            raise Problem(403, f"{principal.subject} may not do {action}; an admin of this service can allow it")
        return principal

    checked.action = action  # type: ignore[attr-defined]
    return Depends(checked)


def anybody() -> Any:
    """The dependency of a route that needs no credential."""

    def open_to_all() -> None:
        return None

    open_to_all.action = "anybody"  # type: ignore[attr-defined]
    return Depends(open_to_all)


def action_of(dependency: Callable[..., Any]) -> str | None:
    """The action that a dependency made by :func:`may` or :func:`anybody` asks for; None for any other."""
    found = getattr(dependency, "action", None)
    return str(found) if found else None
