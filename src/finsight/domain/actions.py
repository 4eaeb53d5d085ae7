"""What can be done here: every action, and the patterns that name some of them."""

from __future__ import annotations

from collections.abc import Iterable

from finsight.domain.jobs import Kind

ACTIONS = (
    "me.read",
    "predict",
    "score",
    "jobs.read",
    "jobs.cancel",
    *(f"jobs.create.{kind}" for kind in Kind),
    "experiments.read",
    "models.read",
    "models.promote",
    "models.rollback",
    "lineage.read",
    "data.read",
    "auth.ticket",
    "keys.create",
    "keys.read",
    "keys.revoke",
    "audit.read",
    "metrics.read",
)
"""Every action there is, ``area.verb`` or ``area.verb.kind``."""
PATTERNS = (*ACTIONS, *sorted({f"{action[:at]}.*" for action in ACTIONS for at, sign in enumerate(action) if sign == "."}))
"""What lines of the policy and scopes of credentials name actions by: one, or all that begin so (``jobs.*``)."""
CHANGES_NOTHING = frozenset({"predict"})
"""Actions that are asked for by POST because of what they are sent, and leave nothing behind."""
CHANGES_BY_GET = frozenset({"session.begin"})
"""Actions that change something although they are asked for by GET: a browser comes back from an issuer so."""


def covers(pattern: str, action: str) -> bool:
    """Whether a pattern (``jobs.read``, ``jobs.*``) means an action, or all that another pattern means."""
    return pattern == action or (pattern.endswith(".*") and action.startswith(pattern[:-1]))


def known(pattern: str) -> str:
    """A pattern that means some action.

    :raises ValueError: where it means none.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"no action is {pattern!r}; there are {', '.join(ACTIONS)}, and beginnings of them with .*")
    return pattern


def beyond(scopes: Iterable[str], limits: Iterable[str]) -> list[str]:
    """Those of some scopes that mean more than others do, sorted."""
    return sorted(scope for scope in scopes if not any(covers(limit, scope) for limit in limits))


def about_models(pattern: str) -> bool:
    """Whether all that a pattern means is done to the registered model, so that conditions may ask which that is."""
    return pattern.split(".")[0] in ("models", "lineage")
