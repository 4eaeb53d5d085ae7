"""Inputs and results of scorings in the service's own storage: what they are called, and which of them have to go."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

INPUT = re.compile(r"[0-9a-f]{64}\.csv")
"""What was uploaded: the digest of its bytes. Never a path."""
_NAME = re.compile(r"(?:scored-)?[0-9a-f]{64}\.csv")
_PLACE = re.compile(rf"[0-9a-f]{{32}}/{_NAME.pattern}(?:\..+)?")  # or that of what is being written there


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept.

    :param days: from when something was put until it goes.
    :param size: bytes of each tenant's; one tenant's many uploads take nothing from another.
    """

    days: float = 30.0
    size: int = 10 * 2**30


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that is kept.

    :param place: see :func:`place`.
    :param since: when it was put, in seconds since 1970.
    """

    place: str
    size: int
    since: float


def scored(content: str) -> str:
    """The name of the result of an order, by the order's content."""
    return f"scored-{content}.csv"


def place(tenant: str, name: str) -> str:
    """Where something of a tenant's is kept: a folder, a slash, the name. A tenant may be called anything, and has only its own folder.

    :raises ValueError: when the name is none of ours.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an input or a result")
    return f"{hashlib.sha256(tenant.encode()).hexdigest()[:32]}/{name}"


def surplus(kept: Iterable[Kept], bounds: Bounds, now: float, newest: str) -> Iterator[str]:
    """The places of what has to go: what is too old, then the oldest of each tenant until the rest is small enough.

    What lies at no place of ours stays: whoever names a bucket with other things in it loses none of them.

    :param newest: was put just now, and stays.
    """
    left: dict[str, int] = {}
    ours = (one for one in kept if _PLACE.fullmatch(one.place))
    for one in sorted(ours, key=lambda one: (one.place != newest, -one.since)):
        folder = one.place.partition("/")[0]
        whole = left.get(folder, 0) + one.size
        if one.place != newest and (now - one.since > bounds.days * 86_400 or whole > bounds.size):
            yield one.place
        else:
            left[folder] = whole
