"""Tickets in Redis, by their SHA-256: who reads Redis can't present one."""

from __future__ import annotations

import json
from typing import Any

from finsight.adapters.redis_connection import answering
from finsight.domain.access import Principal
from finsight.domain.keys import digest_of


class RedisTickets:
    """See :class:`finsight.service_ports.Tickets`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def put(self, ticket: str, principal: Principal, seconds: int) -> None:
        """See :class:`finsight.service_ports.Tickets`."""
        content = [principal.subject, principal.tenant, sorted(principal.roles), sorted(principal.scopes)]
        with answering():
            self._client.set(_place(ticket), json.dumps(content), ex=seconds)

    def take(self, ticket: str) -> Principal | None:
        """See :class:`finsight.service_ports.Tickets`."""
        with answering():
            found = self._client.getdel(_place(ticket))  # one step: of two that present it at once one is let in
        if found is None:
            return None
        subject, tenant, roles, scopes = json.loads(found)
        return Principal(subject, tenant, frozenset(roles), frozenset(scopes))


def _place(ticket: str) -> str:
    return f"finsight:ticket:{digest_of(ticket)}"
