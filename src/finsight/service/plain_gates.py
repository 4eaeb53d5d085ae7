"""Gates that ask nobody: one key, or none."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256

from finsight.domain.access import Principal
from finsight.domain.keys import LOCAL
from finsight.service.access import Credentials
from finsight.service.client_address import is_loopback
from finsight.service.problems import Problem

ADMIN = Principal("admin", LOCAL, frozenset({"admin"}))
"""Who holds FINSIGHT_API_KEY; and everybody, where authentication is switched off."""


class OneKey:
    """A service with one key, whose holder may do everything."""

    def __init__(self, key: str) -> None:
        self._key = sha256(key.encode()).digest()

    def principal(self, presented: Credentials) -> Principal | None:
        """See :class:`finsight.service.access.Gate`. Digests are compared: the time then says nothing, not even of the length."""
        given = sha256((presented.key or "").encode()).digest()
        return ADMIN if presented.key and hmac.compare_digest(given, self._key) else None

    lately = principal

    def still(self, presented: Credentials, principal: Principal) -> Principal | None:  # noqa: ARG002
        """See :class:`finsight.service.access.Gate`."""
        return self.principal(presented)

    def vouches(self, principal: Principal, shown: Callable[[str], bool]) -> bool:
        """See :class:`finsight.service.access.Gate`."""
        return principal == ADMIN and shown(self._key.hex())


class OpenGate:
    """A service without authentication, for one person at one machine: whoever asks is its admin.

    But not a page of elsewhere in that person's browser, which reaches loopback too, by a name of its own (DNS rebinding) or from there.
    """

    def principal(self, presented: Credentials) -> Principal:
        """See :class:`finsight.service.access.Gate`.

        :raises Problem: when the request names another host than this machine.
        """
        if not all(is_loopback(name) for name in presented.names):
            raise Problem(403, "authentication is off, so that only this machine is answered, by its own name: localhost or 127.0.0.1")
        return ADMIN

    lately = principal

    def still(self, presented: Credentials, principal: Principal) -> Principal:  # noqa: ARG002
        """See :class:`finsight.service.access.Gate`."""
        return ADMIN

    def vouches(self, principal: Principal, shown: Callable[[str], bool]) -> bool:  # noqa: ARG002
        """See :class:`finsight.service.access.Gate`."""
        return True
