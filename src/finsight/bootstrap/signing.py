"""The keys of the settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from finsight.settings import load_settings, project_root

if TYPE_CHECKING:
    from finsight.ports import Signer


def signer(signs: bool = True, development: bool = True) -> Signer:
    """Signs with the key of the settings, or the clone's development key; trusts that and the keys of the settings.

    :param signs: otherwise no development key is made where there is none.
    :param development: whether the clone's development key counts at all.
    """
    from finsight.adapters.signer import ModelSigner, development_key, given_key, trusted_key

    settings = load_settings()
    trusted = [trusted_key(Path(name)) for name in settings.trusted_keys.split(os.pathsep) if name]
    if settings.signing_key:
        password = settings.signing_password.get_secret_value() if settings.signing_password else None
        return ModelSigner(given_key(settings.signing_key.get_secret_value(), password), trusted)
    return ModelSigner(development_key(project_root(), signs) if development else None, trusted)
