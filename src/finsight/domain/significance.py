"""How far a number would move on another sample of the same size, and whether two models differ by more than that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from finsight.domain.metrics import Floats, Ints
from finsight.domain.scores import Statistic

LEVEL = 0.95
# Weights that are held at a time: 32 MB.
_AT_ONCE = 4_000_000


def draws(actual: Ints, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each row was drawn in each resample, (m, n) at a time: rows with replacement within each actual label.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", ch. 13; stratified, as the split was.

    :param actual: label indices (n,), n ≥ 1.
    """
    rng = np.random.default_rng(seed)
    n = len(actual)
    strata = [np.flatnonzero(actual == label) for label in np.unique(actual)]
    at_once = max(1, _AT_ONCE // n)
    for begin in range(0, resamples, at_once):
        m = min(at_once, resamples - begin)
        weights = np.empty((m, n))
        for rows in strata:
            picked = rng.integers(0, len(rows), size=(m, len(rows))) + np.arange(m)[:, None] * len(rows)
            weights[:, rows] = np.bincount(picked.ravel(), minlength=m * len(rows)).reshape(m, len(rows))
        yield weights


def intervals(found: Mapping[str, Statistic], actual: Ints, resamples: int, seed: int) -> dict[str, tuple[float, float]]:
    """The 95 % percentile bootstrap interval of each metric; one that is not defined in some resample has none."""
    drawn = _resampled(found, actual, resamples, seed)
    return {name: limits(values) for name, values in drawn.items() if not np.isnan(values).any()}


@dataclass(frozen=True, slots=True)
class Difference:
    """How much more one model has of a metric than another on the same rows.

    :param low: of the 95 % interval, to ``high``.
    :param p: two-sided bootstrap p-value of there being no difference.
    :param error: standard error of ``value``.
    """

    value: float
    low: float
    high: float
    p: float
    error: float


def differences(
    ours: Mapping[str, Statistic], theirs: Mapping[str, Statistic], actual: Ints, resamples: int, seed: int
) -> dict[str, Difference]:
    """Each metric of one model less the other's, both on the same draws of the same rows (paired bootstrap).

    A p-value is twice the share of resamples in which the difference has the other sign or none, one resample being added to both counts
    so that it is never 0 (Davison & Hinkley 1997, "Bootstrap Methods and their Application", §4.4).
    """
    both = ours.keys() & theirs.keys()

    def less(name: str) -> Statistic:
        return lambda weights: ours[name](weights) - theirs[name](weights)

    subtracted = {name: less(name) for name in ours if name in both}
    once = np.ones((1, len(actual)))
    found = {}
    for name, values in _resampled(subtracted, actual, resamples, seed).items():
        value = float(subtracted[name](once)[0])
        if not np.isnan(values).any() and not math.isnan(value):
            rarer = min((values <= 0).sum(), (values >= 0).sum())
            p = min(1.0, 2 * (1 + int(rarer)) / (1 + len(values)))
            found[name] = Difference(value, *limits(values), p, float(values.std()))
    return found


def limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mcnemar(fixed: int, broken: int) -> float:
    """The exact two-sided p-value of McNemar's test: of the rows that one model alone has right, are those of either as many?

    Source: McNemar 1947; the binomial form.

    :param fixed: rows that the new model alone has right; ``broken``: those that the old one alone has.
    """
    rarer, n = min(fixed, broken), fixed + broken
    # Summed from the largest term down by ratios: exact to a float's precision without factorials.
    log_term = math.lgamma(n + 1) - math.lgamma(rarer + 1) - math.lgamma(n - rarer + 1) - n * math.log(2)
    term, total = math.exp(log_term), 0.0
    for i in range(rarer, -1, -1):
        total += term
        term *= i / (n - i + 1)
    return min(1.0, 2 * total)


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected for their number (Holm 1979): below 0.05, at most one in twenty such tables names a difference that is none."""
    found, largest = {}, 0.0
    for rank, name in enumerate(sorted(ps, key=lambda name: ps[name])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[name]))
        found[name] = largest
    return {name: found[name] for name in ps}


def rows_needed(difference: Difference, n: int, power: float = 0.8) -> int | None:
    """How many test rows it would take to find a difference of this size with this power, were it real; None for none at all.

    The standard error shrinks with the root of the rows.

    :param n: rows that it was measured on.
    """
    if not difference.value:
        return None
    normal = NormalDist()
    wanted = normal.inv_cdf((1 + LEVEL) / 2) + normal.inv_cdf(power)
    return math.ceil(n * (wanted * difference.error / difference.value) ** 2)


def _resampled(found: Mapping[str, Statistic], actual: Ints, resamples: int, seed: int) -> dict[str, Floats]:
    """Each metric's value in each resample."""
    values: dict[str, list[Floats]] = {name: [] for name in found}
    for weights in draws(actual, resamples, seed):
        for name, statistic in found.items():
            values[name].append(statistic(weights))
    return {name: np.concatenate(parts) for name, parts in values.items()}
