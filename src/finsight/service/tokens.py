"""The service's own access tokens: short-lived JWTs (RFC 9068) for who has shown an API key."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from finsight.domain.access import Principal
from finsight.domain.keys import ApiKey
from finsight.service_ports import KeyStore, SigningKeys

LIFETIME, LEEWAY = 600, 30  # seconds; replicas' clocks may differ by the second
ISSUER, AUDIENCE = "urn:finsight", "urn:finsight:v1"
_ALGORITHM, _TYPE = "EdDSA", "at+jwt"
_SECRET = "ksh"  # noqa: S105 - the claim with the start of the digest of the secret that a token was given for
_SHOWN = 16  # characters of it
_NAME = re.compile(r"fs-[0-9a-f]{16}")  # as adapters/redis_signing.py gives them
_CLAIMS = ["iss", "aud", "exp", "nbf", "iat", "sub", "jti", "scope", _SECRET]


class Tokens:
    """Gives and checks them. A token is worth what its key is at the time: one revoked, expired or rotated out ends its tokens."""

    def __init__(self, keys: KeyStore, signing: SigningKeys, clock: Callable[[], float] = time.time) -> None:
        self._keys, self._signing, self._clock = keys, signing, clock

    def issue(self, key: ApiKey, digest: str, scopes: frozenset[str]) -> tuple[str, int]:
        """A token, and for how many seconds it is good.

        :param digest: of the secret that was shown, which has to be good.
        :param scopes: what it is narrowed to.
        """
        now, signer = self._clock(), self._signing.current()
        seconds = max(0, int(min(LIFETIME, (key.good_until(digest, now) or now) - now)))
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": key.id,
            "client_id": key.id,
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now) + seconds,
            "jti": secrets.token_hex(12),
            "scope": " ".join(sorted(scopes)),
            _SECRET: digest[:_SHOWN],
        }
        private = Ed25519PrivateKey.from_private_bytes(signer.private)
        return jwt.encode(claims, private, _ALGORITHM, {"kid": signer.name, "typ": _TYPE}), seconds

    def principal(self, token: str) -> Principal | None:
        """Who presents it; None where it is not good."""
        public = self._signing.public(key_name(token) or "")
        if public is None:
            return None
        try:
            found = jwt.decode(
                token,
                Ed25519PublicKey.from_public_bytes(public),
                algorithms=[_ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=LEEWAY,
                options={"require": _CLAIMS},
            )
        except jwt.PyJWTError:
            return None
        key = self._keys.get(found["sub"])
        shown = next((one for one in (key.digest, key.previous) if one.startswith(found[_SECRET])), None) if key else None
        if key is None or shown is None or key.good_until(shown, self._clock()) is None:
            return None
        return key.holder(frozenset(found["scope"].split()))


def key_name(token: str) -> str | None:
    """The name of the key that a token of ours says it was signed with; None where it is another's."""
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        return None
    name = str(header.get("kid"))
    return name if header.get("typ") == _TYPE and _NAME.fullmatch(name) else None
