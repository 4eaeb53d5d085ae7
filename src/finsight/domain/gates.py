"""Limits on measured results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def outside(measured: Mapping[str, Any], at_most: Mapping[str, float], at_least: Mapping[str, float] | None = None) -> Iterator[str]:
    """Each limit that its measured value does not keep, in words; a limit on what is no number is not kept, never ignored."""
    for words, limits, sign in (("at most", at_most, 1), ("at least", at_least or {}, -1)):
        for name, limit in limits.items():
            value = measured.get(name)
            if not isinstance(value, int | float):
                yield f"{name} was not measured, {words} {limit:g} is allowed"
            elif not sign * value <= sign * limit:  # NaN is outside
                shown = f"{value:.4g}" if f"{value:.4g}" != f"{limit:.4g}" else repr(value)
                yield f"{name} is {shown}, {words} {limit:g} is allowed"
