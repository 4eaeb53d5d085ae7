"""Audit lines: who changed what in the registry, when, from what to what, and why; and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

PROMOTED, ROLLED_BACK = "promote", "rollback"
REGISTERED, ARCHIVED, RESTORED, DELETED = "register", "archive", "restore", "delete"


def now() -> str:
    """The time as audit lines have it: ISO 8601 with microseconds, UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def line(who: str, action: str, version: int, why: str, alias: str = "", before: int | None = None) -> dict[str, str]:
    """An audit line.

    :param version: what the action was taken on; the one that ``alias`` points to from now on.
    :param before: the version that the alias pointed to.
    """
    came_from = "" if before is None else str(before)
    return {"when": now(), "who": who, "action": action, "alias": alias, "from": came_from, "to": str(version), "why": why}


def holders(log: Sequence[Mapping[str, str]], alias: str) -> list[int]:
    """The versions that an alias has pointed to, oldest first, without those that were rolled back."""
    stack: list[int] = []
    for entry in log:
        if entry.get("alias") != alias or not entry.get("to", "").isdigit():
            continue
        to = int(entry["to"])
        if entry["action"] == ROLLED_BACK and to in stack:
            while stack[-1] != to:
                stack.pop()
        elif not stack or stack[-1] != to:
            stack.append(to)
    return stack
