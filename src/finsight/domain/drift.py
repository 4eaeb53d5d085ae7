"""How far two counted distributions are apart.

Both measures are above 0 for two samples of one population, the more so the smaller the samples: a hundred texts would seem to drift
from a thousand like them. What chance adds is known, and :func:`index_drift` and :func:`word_drift` take it off.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def index_drift(before: Sequence[float], after: Sequence[float]) -> float:
    """The population stability index less what two samples of one population show in all but 1 case of 40, at least 0.

    Under chance it is a chi-square of (bins - 1) degrees of freedom times (1/n + 1/m).

    :source: Yurdakul, Statistical Properties of Population Stability Index, 2018.
    """
    return max(0.0, population_stability_index(before, after) - _by_chance(before, after))


def word_drift(before: Sequence[float], after: Sequence[float]) -> float:
    """The Jensen-Shannon distance, 0 to 1, likewise: under chance the divergence is an eighth of that, in nats."""
    divergence = jensen_shannon_distance(before, after) ** 2 - _by_chance(before, after) / (8 * np.log(2))
    return float(np.sqrt(max(0.0, divergence)))


def population_stability_index(before: Sequence[float], after: Sequence[float]) -> float:
    """The sum of (q - p) ln(q / p) over the bins, in nats: 0 for equal shares, without an upper end.

    Half a row is added to each bin (Jeffreys' prior), so that an empty bin gives a finite number that is small where rows are few.
    Rule of thumb from credit scoring, where the index comes from: below 0.1 stable, above 0.25 another population
    (Siddiqi, Credit Risk Scorecards, 2006).

    :param before: counts of each bin, in the order of ``after``.
    """
    p, q = (_shares(np.asarray(counts, dtype=np.float64) + 0.5) for counts in (before, after))
    return float(np.sum((q - p) * np.log(q / p)))


def jensen_shannon_distance(before: Sequence[float], after: Sequence[float]) -> float:
    """The square root of the Jensen-Shannon divergence to base 2: from 0 for equal shares to 1 for distributions without a common bin.

    :param before: counts of each bin, in the order of ``after``; without any count on one side the distance is 0 or 1.
    :source: Endres and Schindelin, A new metric for probability distributions, 2003.
    """
    if not sum(before) or not sum(after):
        return float(bool(sum(before)) != bool(sum(after)))
    p, q = (_shares(np.asarray(counts, dtype=np.float64)) for counts in (before, after))
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return float(np.sqrt(max(0.0, divergence)))


def _by_chance(before: Sequence[float], after: Sequence[float]) -> float:
    bins = sum(1 for b, a in zip(before, after, strict=True) if b or a)
    if bins < 2 or not sum(before) or not sum(after):
        return 0.0
    freedom = bins - 1
    return (freedom + 2 * float(np.sqrt(2 * freedom))) * (1 / sum(before) + 1 / sum(after))  # mean and two standard deviations


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def _relative_entropy(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    there = p > 0
    return float(np.sum(p[there] * np.log2(p[there] / q[there])))
