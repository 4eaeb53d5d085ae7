"""The key of FINSIGHT_ENCRYPTION_KEY, and small things that are encrypted with it as age does."""

from __future__ import annotations

from typing import Any

import pyrage

from finsight.errors import ParamsError


def identity(key: str) -> Any:
    """The age identity that a text (``AGE-SECRET-KEY-1…``) is.

    :raises ParamsError: when it is none.
    """
    try:
        return pyrage.x25519.Identity.from_str(key.strip())
    except pyrage.IdentityError:
        raise ParamsError(
            "FINSIGHT_ENCRYPTION_KEY: expected an age identity, AGE-SECRET-KEY-1…; `age-keygen` makes one, and so does "
            '`python -c "import pyrage; print(pyrage.x25519.Identity.generate())"`'
        ) from None


class Seal:
    """Encrypts to a key, and decrypts with it.

    :param key: see :func:`identity`.
    """

    def __init__(self, key: str) -> None:
        self._identity = identity(key)

    def close(self, plain: bytes) -> bytes:
        """The bytes, encrypted."""
        return bytes(pyrage.encrypt(plain, [self._identity.to_public()]))

    def open(self, sealed: bytes) -> bytes | None:
        """The bytes again; None where they were encrypted with another key, or are damaged."""
        try:
            return bytes(pyrage.decrypt(sealed, [self._identity]))
        except pyrage.DecryptError:
            return None
