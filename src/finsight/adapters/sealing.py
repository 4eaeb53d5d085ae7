"""Small things encrypted with age, for the shared state of the service."""

from __future__ import annotations

import pyrage

from finsight.errors import ParamsError


class Seal:
    """Encrypts to a key, and decrypts with it.

    :param key: an age identity (``AGE-SECRET-KEY-1…``).
    :raises ParamsError: when it is none.
    """

    def __init__(self, key: str) -> None:
        try:
            self._identity = pyrage.x25519.Identity.from_str(key.strip())
        except pyrage.IdentityError:
            raise ParamsError("FINSIGHT_ENCRYPTION_KEY: expected an age identity, AGE-SECRET-KEY-1…; `age-keygen` makes one") from None

    def close(self, plain: bytes) -> bytes:
        """The bytes, encrypted."""
        return bytes(pyrage.encrypt(plain, [self._identity.to_public()]))

    def open(self, sealed: bytes) -> bytes | None:
        """The bytes again; None where they were encrypted with another key, or are damaged."""
        try:
            return bytes(pyrage.decrypt(sealed, [self._identity]))
        except pyrage.DecryptError:
            return None
