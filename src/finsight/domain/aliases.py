"""What an alias of a model version can be called."""

from __future__ import annotations

import re

ALIAS = "[A-Za-z][A-Za-z0-9_-]{0,63}"
"""A pattern without anchors. No alias can be an option, a path, a revision expression, or the number of a version."""
_KEPT = re.compile(r"v\d+|latest")  # MLflow has them mean a version and the newest one


def assignable(alias: str) -> bool:
    """Whether a version may be given an alias of that name."""
    return re.fullmatch(ALIAS, alias) is not None and not _KEPT.fullmatch(alias)
