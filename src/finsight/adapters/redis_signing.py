"""The keys of the service's own tokens, in Redis: replicas share them, and Redis's expiry is what rotates them.

A name that says which one is current ends after ``ROTATE`` seconds, and whoever signs next makes the next key. A key itself stays until
the last token that it may have signed has ended.
"""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from finsight.adapters.redis_connection import answering
from finsight.adapters.sealing import Seal
from finsight.errors import ArtifactError, UnreachableError
from finsight.service_ports import SigningKey

ROTATE = 86400  # seconds that one key signs
_CURRENT = "finsight:signing"


class RedisSigningKeys:
    """See :class:`finsight.service_ports.SigningKeys`.

    :param lifetime: seconds that a token may be good, leeway included.
    :param encryption_key: an age identity (``AGE-SECRET-KEY-1…``) that private keys are encrypted with; in the clear without one.
    :param rotate: seconds that one key signs.
    :raises ParamsError: when the encryption key is none.
    """

    def __init__(self, client: Any, lifetime: int, encryption_key: str | None = None, rotate: int = ROTATE) -> None:
        self._client, self._rotate, self._kept = client, rotate, rotate + lifetime
        self._seal = Seal(encryption_key) if encryption_key else None

    def current(self) -> SigningKey:
        """See :class:`finsight.service_ports.SigningKeys`."""
        with answering():
            name, found = self._named()
            if found is None:  # it was removed, or lost, and its name was not: whatever it signed is good no more
                self._client.delete(_CURRENT)
                name, found = self._named()
        if found is None:
            raise UnreachableError(f"Redis does not keep {_place(name)}, which was written a moment ago; is its memory full?")
        return SigningKey(name, self._opened(name, json.loads(found)))

    def public(self, name: str) -> bytes | None:
        """See :class:`finsight.service_ports.SigningKeys`."""
        with answering():
            found = self._client.get(_place(name))
        return base64.b64decode(json.loads(found)["public"]) if found else None

    def _named(self) -> tuple[str, str | None]:
        """The name of the key that signs now, and what is kept of it."""
        name = self._client.get(_CURRENT) or self._new()
        return name, self._client.get(_place(name))

    def _new(self) -> str:
        """Make a key; the name of it, or of another process's that was first."""
        made, name = Ed25519PrivateKey.generate(), f"fs-{secrets.token_hex(8)}"
        private = made.private_bytes_raw()
        if self._seal:
            private = self._seal.close(private)
        content = {
            "public": base64.b64encode(made.public_key().public_bytes_raw()).decode(),
            "private": base64.b64encode(private).decode(),
            "encrypted": self._seal is not None,
        }
        self._client.set(_place(name), json.dumps(content), ex=self._kept)
        self._client.set(_CURRENT, name, ex=self._rotate, nx=True)
        first = str(self._client.get(_CURRENT))
        if first != name:
            self._client.delete(_place(name))
        return first

    def _opened(self, name: str, content: dict[str, Any]) -> bytes:
        private = base64.b64decode(content["private"])
        if not content["encrypted"]:
            return private
        opened = self._seal.open(private) if self._seal else None
        if opened is None:
            raise ArtifactError(
                f"{_place(name)}: can't be decrypted; give every replica the FINSIGHT_ENCRYPTION_KEY that it was written with, or remove "
                f"{_CURRENT} from Redis (redis-cli del {_CURRENT}), for a new one"
            )
        return opened


def _place(name: str) -> str:
    return f"{_CURRENT}:{name}"
