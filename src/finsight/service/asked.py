"""What is found out about a request on its way through: who asks for what. The audit log and the headers of the answer go by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast
from urllib.parse import quote

from starlette.requests import HTTPConnection
from starlette.types import Scope

from finsight.domain.access import Principal
from finsight.domain.actions import CHANGES_BY_GET, CHANGES_NOTHING

ASKED = "finsight.asked"
_SAFE = ("GET", "HEAD", "OPTIONS")
_LONGEST = 200  # characters of a path that are kept


@dataclass(slots=True)
class Asked:
    """Made with the request, and filled in by who finds it out.

    :param admitted: whether the route was reached.
    :param hidden: whether it was refused by a 404, so as not to tell that a thing exists.
    :param headers: of the answer.
    """

    action: str = ""
    principal: Principal | None = None
    admitted: bool = False
    hidden: bool = False
    headers: dict[str, str] = field(default_factory=dict)


def asked(connection: HTTPConnection) -> Asked:
    """What is known of a request."""
    return cast(Asked, connection.scope[ASKED])


def changes(scope: Scope, action: str) -> bool:
    """Whether a request is one that changes something, where it succeeds."""
    safe = scope["type"] != "http" or scope["method"] in _SAFE
    return action in CHANGES_BY_GET or not (safe or action in CHANGES_NOTHING)


def path_of(scope: Scope) -> str:
    """The path that was asked for, fit for a log; never the query, which may carry a ticket."""
    return quote(scope["path"])[:_LONGEST]
