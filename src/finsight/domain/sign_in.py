"""Signing in at an issuer by authorization code (OpenID Connect Core 1.0, 3.1) with proof of who began it (PKCE, RFC 7636)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass

_BYTES = 32


@dataclass(frozen=True, slots=True)
class Attempt:
    """A sign-in that has begun. All three are secrets until it has ended.

    :param state: comes back with the code, so that nobody can have a browser end what it has not begun.
    :param nonce: comes back in the ID token, so that none of another sign-in counts.
    :param verifier: shown for the code, so that nobody else can use it.
    """

    state: str
    nonce: str
    verifier: str

    @property
    def challenge(self) -> str:
        """What the issuer is told of the verifier beforehand (S256)."""
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()


def begin() -> Attempt:
    """A new one."""
    return Attempt(*(secrets.token_urlsafe(_BYTES) for _ in range(3)))


def proof(session: str, digest: str) -> str:
    """What a session keeps of the credential that it began with: who reads the store learns nothing of it, and can't make one.

    :param session: its secret.
    :param digest: of the credential.
    """
    return hmac.digest(session.encode(), digest.encode(), "sha256").hex()
