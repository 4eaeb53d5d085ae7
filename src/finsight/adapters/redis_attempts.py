"""Sign-ins that have begun, in Redis, by the SHA-256 of what the browser has: who reads Redis can't end one in another's place."""

from __future__ import annotations

import json
from typing import Any

from finsight.adapters.redis_connection import answering
from finsight.domain.keys import digest_of
from finsight.domain.sign_in import Attempt


class RedisAttempts:
    """See :class:`finsight.service_ports.Attempts`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def put(self, secret: str, attempt: Attempt, seconds: int) -> None:
        """See :class:`finsight.service_ports.Attempts`."""
        with answering():
            self._client.set(_place(secret), json.dumps([attempt.state, attempt.nonce, attempt.verifier]), ex=seconds)

    def take(self, secret: str) -> Attempt | None:
        """See :class:`finsight.service_ports.Attempts`."""
        with answering():
            found = self._client.getdel(_place(secret))
        return Attempt(*json.loads(found)) if found else None


def _place(secret: str) -> str:
    return f"finsight:attempt:{digest_of(secret)}"
