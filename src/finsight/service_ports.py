"""What the service asks of the outside world. Adapters stand in finsight.adapters; bootstrap chooses among them.

Every method raises :class:`finsight.errors.UnreachableError` when what it asks does not answer, but those of caches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from finsight.domain.access import Principal
from finsight.domain.audit import Entry, Record
from finsight.domain.keys import ApiKey


class KeyStore(Protocol):
    """Keeps API keys, and for 30 days those that have ended."""

    def add(self, key: ApiKey) -> None:
        """Keep a new key."""
        ...

    def get(self, id_: str) -> ApiKey | None:
        """The key of an id, whether it is good or not; None where there is none."""
        ...

    def page(self, tenant: str, before: str | None, limit: int) -> list[ApiKey]:
        """At most ``limit`` keys of a tenant, the newest first, from the one after ``before`` on."""
        ...

    def change(self, id_: str, how: Callable[[ApiKey], ApiKey]) -> ApiKey | None:
        """Put what ``how`` makes of a key in its place, in one step; what stands there then. ``how`` may be called again."""
        ...

    def used(self, key: ApiKey, now: float) -> None:
        """Note when a key was presented, in seconds since 1970; at most once a minute."""
        ...


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 key of the service's own tokens.

    :param name: the ``kid`` of its tokens.
    :param private: 32 bytes.
    """

    name: str
    private: bytes


class SigningKeys(Protocol):
    """Keeps the keys that tokens are signed with; a new one is made when the present one has aged."""

    def current(self) -> SigningKey:
        """The key to sign with now.

        :raises ArtifactError: when it can't be decrypted.
        """
        ...

    def public(self, name: str) -> bytes | None:
        """The 32 bytes of a public key, for as long as a token of its may be good; None where there is none of that name."""
        ...


class Tickets(Protocol):
    """Keeps what stands for somebody once, for seconds."""

    def put(self, ticket: str, principal: Principal, seconds: int) -> None:
        """Let a ticket stand for somebody."""
        ...

    def take(self, ticket: str) -> Principal | None:
        """Whom a ticket stands for, once; None where it was taken, has expired, or never was."""
        ...


class FailedAttempts(Protocol):
    """Counts credentials that were none, by the address that they came from."""

    def wait(self, address: str) -> float:
        """Seconds until the address may try again; 0 where it may now."""
        ...

    def add(self, address: str) -> None:
        """Count one."""
        ...


class TokenIssuer(Protocol):
    """Knows who presents a bearer token of an issuer outside."""

    def principal(self, token: str) -> Principal | None:
        """Who presents it; None where it is not good here."""
        ...


class AuditLog(Protocol):
    """Keeps what was done and refused, one record after the other; nothing in it is changed or removed."""

    def append(self, entry: Entry) -> Record:
        """Add a record at the end of the chain. Of several processes that do so at the same time each gets a place of its own."""
        ...

    def check(self) -> None:
        """Find out whether a record could be appended now.

        :raises UnreachableError: when it could not.
        """
        ...

    def latest(self, before: int | None, limit: int) -> list[Record]:
        """The newest records, newest first.

        :param before: only those with smaller numbers.
        """
        ...

    def records(self) -> Iterator[Record]:
        """Every record, oldest first."""
        ...

    def written(self) -> int:
        """The number of the last record that was ever written, also where it is gone since."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """How a credential stands to its limit after a request.

    :param amount: requests that it has in a window.
    :param left: those that remain.
    :param seconds: until there is room for more.
    """

    allowed: bool
    amount: int
    left: int
    seconds: int


class Windows(Protocol):
    """Counts requests over sliding windows."""

    def hit(self, who: str, action: str) -> Standing:
        """Count one request, unless there is no room for it.

        :raises UnreachableError: when the counts are kept elsewhere, and can't be reached.
        """
        ...


class ResultCache(Protocol):
    """Keeps what was computed, for a while and within bounds: an entry may be gone at any time. Threads may share it.

    It never raises: a cache that is away has nothing, and the work is done without it.
    """

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """The value of each key in their order; None where there is none."""
        ...

    def put(self, entries: Mapping[str, bytes]) -> None:
        """Keep these, or some of them."""
        ...
