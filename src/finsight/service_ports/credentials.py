"""Keys, tokens and tickets: where they are kept, and who can tell whose they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from finsight.domain.access import Principal
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

        :raises ArtifactError: when it can't be decrypted; the message says what to do, and no secret.
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
