"""Sessions in Redis, by a hash of their id: whoever reads the store can't sign in with what stands there."""

from __future__ import annotations

import hashlib
import json
import secrets

from finsight.adapters.redis_connection import answering, connect
from finsight.domain.access import Principal
from finsight.domain.sign_in import proof
from finsight.service_ports import Session

SECONDS = 12 * 3600
_PREFIX = "finsight:session:"
_BYTES = 32


class RedisSessions:
    """The sessions of one Redis."""

    def __init__(self, address: str) -> None:
        self._redis = connect(address)

    def begin(self, principal: Principal, digest: str = "") -> str:
        """See :class:`finsight.service_ports.Sessions`."""
        secret = secrets.token_urlsafe(_BYTES)
        about = {
            "subject": principal.subject,
            "tenant": principal.tenant,
            "roles": sorted(principal.roles),
            "scopes": sorted(principal.scopes),
            "csrf": secrets.token_urlsafe(_BYTES),
            "proof": proof(secret, digest) if digest else "",
        }
        with answering():
            self._redis.set(_key(secret), json.dumps(about), ex=SECONDS)
        return secret

    def find(self, secret: str) -> Session | None:
        """See :class:`finsight.service_ports.Sessions`."""
        with answering():
            kept = self._redis.get(_key(secret))
        about = json.loads(kept) if kept else {}
        if "proof" not in about:  # nothing, or what a service without proofs has left
            return None
        principal = Principal(about["subject"], about["tenant"], frozenset(about["roles"]), frozenset(about["scopes"]))
        return Session(principal, about["csrf"], about["proof"])

    def end(self, secret: str) -> None:
        """See :class:`finsight.service_ports.Sessions`."""
        with answering():
            self._redis.delete(_key(secret))

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


def _key(secret: str) -> str:
    return _PREFIX + hashlib.sha256(secret.encode()).hexdigest()
