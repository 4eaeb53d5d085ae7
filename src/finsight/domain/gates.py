"""Limits on measured results."""

from __future__ import annotations

from collections.abc import Mapping


def over(measured: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
    """Each limit that its measured value exceeds, in words; a limit with no measured value is over, never ignored."""
    found = []
    for name, limit in limits.items():
        value = measured.get(name, float("nan"))
        if not value <= limit:  # NaN is over
            found.append(f"{name} is {value:.3g}, at most {limit:g} is allowed")
    return found
