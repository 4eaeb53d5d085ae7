"""Whether somebody who is known may do what they ask for: at the door of a route, and with a thing once it is found."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import HTTPConnection

from finsight.domain.access import Principal, neighbourhood
from finsight.domain.actions import about_models
from finsight.domain.policy import Circumstances, Decision, Resource, decide
from finsight.service.asked import asked, changes
from finsight.service.client_address import client_of
from finsight.service.problems import Problem
from finsight.service.rules import Rules
from finsight.service_ports import Standing

UNKNOWN = "unknown"  # what wrong credentials count as, by address


def admit(connection: HTTPConnection, principal: Principal, action: str) -> None:
    """Let somebody into a route, or refuse.

    What changes something is only done where the audit log can take it.

    :raises Problem: 429 where they have asked too often, 403 where the policy does not allow it.
    :raises UnreachableError: where the audit log can't be written, and the request would change something.
    """
    found = asked(connection)
    found.principal, found.action = principal, action
    _count(connection, _who(principal), action)
    permit(connection, principal, action)
    _ready(connection, action)


def count(connection: HTTPConnection, principal: Principal, action: str) -> None:
    """Count a request that somebody needs no leave for.

    :raises Problem: 429 where they have asked too often.
    """
    found = asked(connection)
    found.principal, found.action = principal, action
    _count(connection, _who(principal), action)


def admit_at_once(connection: HTTPConnection, principal: Principal, action: str) -> bool:
    """The same where nothing outside has to be asked for it; False, and nothing is done, where something has. Raises as `admit`."""
    standing = None if changes(connection.scope, action) else _rules(connection).limits.at_once(_who(principal), action)
    if standing is None:
        return False
    found = asked(connection)
    found.principal, found.action = principal, action
    _tell(connection, standing)
    permit(connection, principal, action)
    found.admitted = True
    return True


def admit_stranger(connection: HTTPConnection, action: str) -> None:
    """Let anybody into a route that asks for no credential, such as one that hands them out; counted by address. Raises as `admit`."""
    asked(connection).action = action
    _count(connection, neighbourhood(client_of(connection)), action)
    _ready(connection, action)


def refuse_unknown(connection: HTTPConnection, action: str) -> None:
    """Count a credential that is none, or none of ours, by its address.

    :raises Problem: 429 where there were too many.
    """
    asked(connection).action = action
    _count(connection, neighbourhood(client_of(connection)), UNKNOWN)


def permit(connection: HTTPConnection, principal: Principal, action: str, resource: Resource | None = None) -> None:
    """Go on where somebody may do something with a thing; routes call it once they have found theirs.

    :raises Problem: 404 where the thing is another tenant's, in the words that are used for what does not exist; 403 otherwise.
    """
    decision = _decision(connection, principal, action, resource)
    if decision.allowed:
        return
    if decision.hidden and resource:
        asked(connection).hidden = True
        raise nothing(resource.kind, resource.name)
    raise Problem(403, f"{principal.subject} may not do {action}: {decision.reason}; an admin of this service can allow it")


def permitted(connection: HTTPConnection, principal: Principal, action: str, resource: Resource | None = None) -> bool:
    """Whether :func:`permit` would go on: for lists and pages, which show only what one may see and do."""
    return _decision(connection, principal, action, resource).allowed


def nothing(kind: str, name: str) -> Problem:
    """The refusal for a thing that does not exist, or not for who asks."""
    return Problem(404, f"there is no {kind} {name}")


def _decision(connection: HTTPConnection, principal: Principal, action: str, resource: Resource | None) -> Decision:
    rules = _rules(connection)
    if resource is None and about_models(action):  # there is one model, so that no route has to find it first
        name = rules.model()
        resource = Resource("model", name, model=name)
    return decide(rules.policy.current(), principal, action, Circumstances(datetime.now(UTC), rules.environment), resource)


def _count(connection: HTTPConnection, who: str, action: str) -> None:
    _tell(connection, _rules(connection).limits.hit(who, action))


def _who(principal: Principal) -> str:
    return f"{principal.tenant}/{principal.subject}"


def _tell(connection: HTTPConnection, standing: Standing) -> None:
    headers = {
        "RateLimit-Limit": str(standing.amount),
        "RateLimit-Remaining": str(standing.left),
        "RateLimit-Reset": str(standing.seconds),
    }
    asked(connection).headers.update(headers)
    if not standing.allowed:
        wait = {"Retry-After": str(standing.seconds)}
        raise Problem(429, f"no more than {standing.amount} requests of this kind; wait {standing.seconds} s", "too-many-requests", wait)


def _ready(connection: HTTPConnection, action: str) -> None:
    if changes(connection.scope, action):
        _rules(connection).audit.check()
    asked(connection).admitted = True


def _rules(connection: HTTPConnection) -> Rules:
    rules: Rules = connection.app.state.parts.rules
    return rules
