"""Every way in, put together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import TypeVar

from finsight.domain.access import Principal
from finsight.domain.keys import SUBJECT, ApiKey, digest_of, parts_of
from finsight.errors import UnreachableError
from finsight.service.access import Credentials
from finsight.service.plain_gates import OneKey
from finsight.service.problems import Problem
from finsight.service.remembered import Remembered
from finsight.service.tokens import Tokens, key_name
from finsight.service_ports import FailedAttempts, KeyStore, Tickets, TokenIssuer

Found = TypeVar("Found")
AGAIN = 1.0  # seconds until a Redis that was away is asked again for those who are remembered: its silence takes seconds of each request


@dataclass(frozen=True, slots=True)
class Credentialing:
    """Where the service's own credentials are made, kept and looked up.

    :param tokens: None where they are switched off.
    """

    keys: KeyStore
    tickets: Tickets
    failures: FailedAttempts
    tokens: Tokens | None = None
    clock: Callable[[], float] = time.time

    def key(self, id_: str, secret: str) -> ApiKey | None:
        """The key of this id if it is good and this its secret."""
        now, found = self.clock(), self.keys.get(id_)
        if found is None or found.good_until(digest_of(secret), now) is None:
            return None
        self.keys.used(found, now)
        return found

    def limited(self, address: str, check: Callable[[], Found | None]) -> Found | None:
        """What ``check`` finds; a failure is counted.

        :raises Problem: when too many have failed from the address. Nothing is checked then, so that a right guess is not told from a
            wrong one.
        """
        if wait := self.failures.wait(address):
            raise Problem(429, "too many failed authentications from this address", headers={"Retry-After": str(ceil(wait))})
        found = check()
        if found is None:
            self.failures.add(address)
        return found


class CredentialGate:
    """See :class:`finsight.service.access.Gate`.

    :param admin: knows the admin's own key.
    :param keys_open: whether an API key is taken itself; it buys a token anyhow.
    :param issuer: whose tokens are taken too.
    """

    def __init__(self, own: Credentialing, admin: OneKey, keys_open: bool = True, issuer: TokenIssuer | None = None) -> None:
        self._own, self._admin, self._keys_open, self._issuer = own, admin, keys_open, issuer
        self._remembered = Remembered()
        self._away_until = 0.0

    def principal(self, presented: Credentials) -> Principal | None:
        """See :class:`finsight.service.access.Gate`.

        :raises UnreachableError: when Redis or the issuer can't be asked, and nothing is remembered.
        """
        if not presented.given:
            return None
        key = presented.key
        if key is not None and time.monotonic() < self._away_until and (remembered := self._remembered.find(key)):
            return remembered
        try:
            found = self._own.limited(presented.address, lambda: self._known(presented))
        except UnreachableError:
            self._away_until = time.monotonic() + AGAIN
            if key is None or (remembered := self._remembered.find(key)) is None:
                raise
            return remembered
        if key is not None:
            self._remembered.note(key, found, presented.address)
        return found

    def lately(self, presented: Credentials) -> Principal | None:
        """See :class:`finsight.service.access.Gate`: a key's holder."""
        return self._remembered.lately(presented.key, presented.address) if presented.key else None

    def still(self, presented: Credentials, principal: Principal) -> Principal | None:
        """See :class:`finsight.service.access.Gate`."""
        return self._known(presented) if presented.ticket is None else self._backed(principal)

    def vouches(self, principal: Principal, shown: Callable[[str], bool]) -> bool:
        """See :class:`finsight.service.access.Gate`."""
        if not principal.subject.startswith(SUBJECT):
            return self._admin.vouches(principal, shown)
        key, now = self._own.keys.get(principal.subject.removeprefix(SUBJECT)), self._own.clock()
        good = [one for one in (key.digest, key.previous) if key.good_until(one, now)] if key and self._keys_open else []
        return any(map(shown, good))

    def _known(self, presented: Credentials) -> Principal | None:
        if presented.key is not None:
            return self._admin.principal(presented) or self._by_key(presented.key)
        if presented.ticket is not None:
            return self._by_ticket(presented.ticket)
        token = presented.bearer or ""
        if key_name(token):
            return self._own.tokens.principal(token) if self._own.tokens else None
        return self._issuer.principal(token) if self._issuer else None

    def _by_key(self, text: str) -> Principal | None:
        parts = parts_of(text) if self._keys_open else None
        found = self._own.key(*parts) if parts else None
        return found.holder() if found else None

    def _by_ticket(self, ticket: str) -> Principal | None:
        found = self._own.tickets.take(ticket)
        return self._backed(found) if found else None

    def _backed(self, principal: Principal) -> Principal | None:
        """Whom a ticket stood for; a key that was revoked takes the ticket with it."""
        if not principal.subject.startswith(SUBJECT):
            return principal
        key = self._own.keys.get(principal.subject.removeprefix(SUBJECT))
        return principal if key and self._own.clock() < key.ends else None
