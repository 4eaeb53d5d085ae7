"""People at the page: their sessions, and how they sign in at an issuer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from finsight.domain.access import Principal
from finsight.domain.sign_in import Attempt
from finsight.errors import FinsightError


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who has signed in to the page.

    :param csrf: what each form of theirs carries, so that no other site can send one in their name.
    :param proof: of the credential that it began with, see :func:`finsight.domain.sign_in.proof`; empty where an issuer gave its word.
    """

    principal: Principal
    csrf: str
    proof: str = ""


class Sessions(Protocol):
    """Keeps who has signed in.

    Every method raises :class:`finsight.errors.UnreachableError` when the store does not answer.
    """

    def begin(self, principal: Principal, digest: str = "") -> str:
        """Begin a session; its id, which is a secret.

        :param digest: of the credential that was shown.
        """
        ...

    def find(self, secret: str) -> Session | None:
        """The session of an id; None where there is none, or it is over."""
        ...

    def end(self, secret: str) -> None:
        """End a session, if there is one."""
        ...


class Attempts(Protocol):
    """Keeps sign-ins at an issuer that have begun, each for the one browser that has its secret."""

    def put(self, secret: str, attempt: Attempt, seconds: int) -> None:
        """Keep one."""
        ...

    def take(self, secret: str) -> Attempt | None:
        """The one of a secret, once; None where it was taken, is too old, or never was."""
        ...


class NotSignedInError(FinsightError):
    """An issuer, or what it said, leaves it open who somebody is."""


class SignInIssuer(Protocol):
    """An issuer that lets people sign in, and says who they are."""

    def address(self, attempt: Attempt) -> str:
        """Where the browser goes to begin."""
        ...

    def principal(self, code: str, attempt: Attempt) -> Principal:
        """Who came back with a code.

        :raises NotSignedInError: when the issuer does not take the code, or what it gives for it is not good here.
        """
        ...
