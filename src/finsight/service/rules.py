"""What every request is held to."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from finsight.errors import UnreachableError
from finsight.service.policy_file import PolicyFile
from finsight.service_ports import AuditLog, Standing, Windows

_LOG = logging.getLogger("finsight.service")
_AGAIN = 5.0  # seconds until a Redis that was away is asked again, so that each request doesn't wait for its silence


class Limits:
    """Limits that all replicas share; each counts for itself while what they share is away.

    :param shared: None where there is only one replica, and nothing that it shares.
    :param own: of this replica.
    """

    def __init__(self, shared: Windows | None, own: Windows) -> None:
        self._shared, self._own = shared, own
        self._away_until = 0.0

    def hit(self, who: str, action: str) -> Standing:
        """Count a request, or find that there is no room for it."""
        if self._shared is None or time.monotonic() < self._away_until:
            return self._own.hit(who, action)
        try:
            standing = self._shared.hit(who, action)
        except UnreachableError as error:
            if not self._away_until:
                _LOG.error("%s; each replica counts for itself until it is back", error)
            self._away_until = time.monotonic() + _AGAIN
            return self._own.hit(who, action)
        if self._away_until:
            self._away_until = 0.0
            _LOG.warning("limits are shared again")
        return standing

    def at_once(self, who: str, action: str) -> Standing | None:
        """The same where Redis need not be asked; None, and nothing is counted, otherwise."""
        here = self._shared is None or time.monotonic() < self._away_until
        return (self._own if here or self._shared is None else self._shared).at_once(who, action)


@dataclass(frozen=True, slots=True)
class Rules:
    """The policy, the limits, and the log of what was done and refused.

    :param environment: where the service runs, for the policy's conditions.
    :param model: the registered model, for those too.
    :param max_body: the largest body, in bytes.
    :param max_at_once: requests that are worked on at once.
    """

    policy: PolicyFile
    limits: Limits
    audit: AuditLog
    environment: str = "production"
    max_body: int = 32 * 2**20
    max_at_once: int = 512
    model: Callable[[], str] = lambda: ""
