"""Keys that were good a moment ago: predictions go on while Redis is away, and nothing else does."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from finsight.domain.access import Principal
from finsight.domain.keys import digest_of

SECONDS, MOST = 300.0, 1000  # for how long, and how many
LATELY = 1.0  # seconds for which a key predicts before it is looked up again: so much longer does one that was taken back
ACTION = "predict"  # changes no state; what does must not be done by a key that may have been revoked


@dataclass(frozen=True, slots=True)
class RememberedPrincipal(Principal):
    """Somebody whose key can't be checked now."""


class Remembered:
    """By digest; no key is kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._found: OrderedDict[str, tuple[float, Principal, str]] = OrderedDict()

    def note(self, key: str, principal: Principal | None, address: str = "") -> None:
        """Remember whose a key from an address was found to be, or forget one that is no longer good."""
        digest = digest_of(key)
        with self._lock:
            self._found.pop(digest, None)
            if principal:
                self._found[digest] = (self._clock(), principal, address)
                if len(self._found) > MOST:
                    self._found.popitem(last=False)

    def lately(self, key: str, address: str) -> Principal | None:
        """Whose it was found to be a moment ago, from there: elsewhere guesses are counted. None where it was not looked up then."""
        with self._lock:
            noted, principal, noted_at = self._found.get(digest_of(key), (0.0, None, ""))
        return principal if principal and address == noted_at and self._clock() - noted <= LATELY else None

    def find(self, key: str) -> RememberedPrincipal | None:
        """Whose it was; None where that is too long ago, or it may not predict."""
        with self._lock:
            noted, principal, _ = self._found.get(digest_of(key), (0.0, None, ""))
        if principal is None or self._clock() - noted > SECONDS or (principal.scopes and ACTION not in principal.scopes):
            return None
        return RememberedPrincipal(principal.subject, principal.tenant, principal.roles, frozenset({ACTION}))
