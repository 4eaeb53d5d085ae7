"""Who asks, and whether they may: what every route says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Protocol
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Query, Request, WebSocket
from fastapi.routing import iter_route_contexts
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from finsight.domain.access import Principal
from finsight.errors import UnreachableError
from finsight.service.asked import asked
from finsight.service.client_address import client_of, same_origin
from finsight.service.permission import admit, admit_at_once, admit_stranger, refuse_unknown
from finsight.service.problems import Problem
from finsight.service.remembered import ACTION, RememberedPrincipal

API_KEY = APIKeyHeader(name="X-API-Key", auto_error=False, description="A key of this service: `fsk_…`, or its admin's own.")
BEARER = HTTPBearer(auto_error=False, description="A token of `POST /v1/auth/token`, or of the OpenID Connect issuer that is set.")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What somebody presents; all of it unproven.

    :param address: where they come from, for counting what fails.
    :param names: hosts that the request is meant for and comes from, as a browser says (Host, Origin).
    """

    key: str | None = None
    bearer: str | None = None
    ticket: str | None = None
    address: str = "local"
    names: tuple[str, ...] = ()

    @property
    def given(self) -> bool:
        """Whether there is anything to prove."""
        return not (self.key is None and self.bearer is None and self.ticket is None)


class Gate(Protocol):
    """Knows credentials, and what they are good for."""

    def principal(self, presented: Credentials) -> Principal | None:
        """Who presents a credential; None where it is none of ours, has expired, or was taken back.

        :raises Problem: when too many have failed from that address (429).
        """
        ...

    def lately(self, presented: Credentials) -> Principal | None:
        """Who presents a credential that was good a moment ago, without asking anybody; None where that is not known."""
        ...

    def still(self, presented: Credentials, principal: Principal) -> Principal | None:
        """Who presents a credential that was good when they connected, as they are now; None where it is good no longer.

        A credential that has ended since is no failed guess, and is not counted. A ticket is used up by then: it lives on as long as the
        key behind it, or where that can't be asked for, without end.

        :raises UnreachableError: when that can't be found out now.
        """
        ...

    def vouches(self, principal: Principal, shown: Callable[[str], bool]) -> bool:
        """Whether the key that a session of the page began with is still good.

        :param shown: whether a key of this digest (SHA-256, hexadecimal; of an API key that of its secret) is the one.
        :raises UnreachableError: when that can't be found out now.
        """
        ...


def admitted(connection: HTTPConnection, action: str, ticket: str | None = None) -> Principal:
    """Who asks, once it is known that they may; for requests and for the handshakes of sockets.

    :param ticket: of ``POST /v1/auth/ticket``, for browsers, whose sockets can't send a header.
    :raises Problem: 400, 401, 403 or 429.
    :raises UnreachableError: when somebody who is only remembered would do more than predict, or what is done could not be recorded.
    """
    gate: Gate = connection.app.state.parts.gate
    principal = gate.principal(presented(connection, ticket))
    if principal is None:
        refuse_unknown(connection, action)
        raise unknown()
    if isinstance(principal, RememberedPrincipal) and action != ACTION:
        raise UnreachableError("the service's Redis does not answer; until it is back there are only predictions")
    admit(connection, principal, action)
    return principal


def admitted_at_once(connection: HTTPConnection, action: str) -> Principal | None:
    """The same for predictions, where nothing outside has to be asked for it; None, and nothing is done, otherwise.

    A thread and two questions to Redis take a tenth of what a prediction does.
    """
    gate: Gate = connection.app.state.parts.gate
    principal = gate.lately(presented(connection)) if action == ACTION else None
    return principal if principal and admit_at_once(connection, principal, action) else None


def unknown(headers: Mapping[str, str] = MappingProxyType({})) -> Problem:
    """The refusal for whoever presents no credential, or none that is good.

    :param headers: more of them.
    """
    said = "send a good key in the header X-API-Key, or a good token as Authorization: Bearer"
    return Problem(401, said, headers={"WWW-Authenticate": 'Bearer realm="finsight", ApiKey', **headers})


def presented(connection: HTTPConnection, ticket: str | None = None) -> Credentials:
    """The credentials of a request or a handshake.

    :raises Problem: when there are two: which of them counts would be a guess.
    """
    keys, tokens = connection.headers.getlist(API_KEY.model.name), connection.headers.getlist("Authorization")
    bearers = [value.strip() for scheme, _, value in (line.partition(" ") for line in tokens) if scheme.lower() == "bearer"]
    if len(keys) + len(tokens) + (ticket is not None) > 1:
        raise Problem(400, "send one credential: X-API-Key, Authorization or a ticket")
    address = client_of(connection)
    sites = [f"//{connection.headers.get('Host', '')}", *connection.headers.getlist("Origin")]
    names = tuple(_host(site) for site in sites)
    return Credentials(keys[0] if keys else None, bearers[0] if bearers else None, ticket, address, names)


def _host(site: str) -> str:
    try:
        return urlsplit(site).hostname or ""
    except ValueError:
        return ""


def may(action: str) -> Any:
    """The dependency of a route that is an ``action`` (``models.promote``): it gives the route the principal, or refuses.

    A route without one is found by a test; the few that anybody may use say so by :func:`anybody`.
    """

    async def checked(request: Request) -> Principal:
        if known := admitted_at_once(request, action):
            return known
        return await run_in_threadpool(admitted, request, action)

    checked.action = action  # type: ignore[attr-defined]
    return Depends(checked)


def may_open(action: str) -> Any:
    """The same for a socket: its handshake carries a header as a request does, or ``?ticket=``.

    It is refused to a page of another origin: browsers let any page open a socket, and read what comes.
    """

    def checked(websocket: WebSocket, ticket: Annotated[str | None, Query(max_length=64)] = None) -> Principal:
        if not same_origin(websocket):
            asked(websocket).action = action
            raise Problem(403, "a page may open sockets of its own origin alone")
        return admitted(websocket, action, ticket)

    checked.action = action  # type: ignore[attr-defined]
    return Depends(checked)


ANYBODY = "anybody"


def anybody(action: str = "") -> Any:
    """The dependency of a route that needs no credential.

    :param action: what it is counted as, by the client's address; it is not counted without one.
    """

    def open_to_all(request: Request) -> None:
        if action:
            admit_stranger(request, action)

    open_to_all.action = ANYBODY  # type: ignore[attr-defined]
    return Depends(open_to_all)


def actions(app: FastAPI) -> dict[tuple[str, str], list[str]]:
    """Every method and path of an app, ``WS`` for a socket, with the actions that its dependencies ask for."""
    found: dict[tuple[str, str], list[str]] = {}
    for route in iter_route_contexts(app.routes):
        dependant = getattr(route, "dependant", None)
        calls = [one.call for one in dependant.dependencies] if dependant else []
        asked = [action for call in calls if call and (action := action_of(call))]
        methods = set(getattr(route, "methods", None) or {"WS"}) - {"HEAD"}
        found |= {(method, str(route.path)): asked for method in methods}
    return found


def action_of(dependency: Callable[..., Any]) -> str | None:
    """The action that a dependency made by :func:`may`, :func:`may_open` or :func:`anybody` asks for; None for any other."""
    found = getattr(dependency, "action", None)
    return str(found) if found else None
