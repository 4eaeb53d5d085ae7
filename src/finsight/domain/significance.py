"""How far a number would move on another sample of the same size, and whether two models differ by more than that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from finsight.domain.metrics import Floats, Ints
from finsight.domain.scores import SUMS_OF_GAPS, Statistic

ALPHA = 0.05
LEVEL = 0.95
# What a comparison may come to.
BETTER, WORSE, SAME = "better", "worse", "no significant difference"
# Weights that are held at a time: 32 MB.
_AT_ONCE = 4_000_000
_NOISE = 1e-12  # of adding the same numbers in another order


@dataclass(frozen=True)
class Sample:
    """Test rows, and how they are drawn again.

    :param actual: label indices (n,), n ≥ 1.
    :param units: number (n,) of what each row belongs to: near-duplicates are one observation, and are drawn and swapped together.
    :param resamples: how often, with random numbers from ``seed``.
    """

    actual: Ints
    units: Ints
    resamples: int
    seed: int

    def draws(self) -> Iterator[Floats]:
        """How often each row was drawn in each resample, (m, n) at a time: units with replacement within each actual label.

        Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", ch. 13; stratified, as the split was.
        """
        rng = np.random.default_rng(self.seed)
        _, first, unit_of = np.unique(self.units, return_index=True, return_inverse=True)
        label_of = self.actual[first]
        strata = [np.flatnonzero(label_of == label) for label in np.unique(label_of)]
        for m in self._parts():
            times = np.empty((m, len(first)))
            for units in strata:
                picked = rng.integers(0, len(units), size=(m, len(units))) + np.arange(m)[:, None] * len(units)
                times[:, units] = np.bincount(picked.ravel(), minlength=m * len(units)).reshape(m, len(units))
            yield times[:, unit_of]

    def swaps(self) -> Iterator[Floats]:
        """Which rows have their two models' answers exchanged (1) and which not (0), (m, n) at a time: each unit with even odds."""
        rng = np.random.default_rng(self.seed)
        names, unit_of = np.unique(self.units, return_inverse=True)
        for m in self._parts():
            yield rng.integers(0, 2, size=(m, len(names))).astype(np.float64)[:, unit_of]

    def _parts(self) -> Iterator[int]:
        """How many resamples are held at a time."""
        at_once = max(1, _AT_ONCE // len(self.actual))
        for begin in range(0, self.resamples, at_once):
            yield min(at_once, self.resamples - begin)


def intervals(found: Mapping[str, Statistic], sample: Sample) -> dict[str, tuple[float, float]]:
    """The 95 % bootstrap interval of each metric; one that is not defined in some resample has none.

    It is the percentile interval, but for the calibration errors: they are sums of absolute gaps, which another sample makes larger, so
    that all resamples lie above what was measured. Theirs is the basic interval, which turns that bias round (docs/evaluation.md has
    how often either covers the truth).
    """
    once = np.ones((1, len(sample.actual)))
    said = {}
    for name, values in _values(found, sample.draws()).items():
        if not np.isnan(values).any():
            low, high = limits(values)
            value = float(found[name](once)[0])
            said[name] = (max(0.0, 2 * value - high), max(0.0, 2 * value - low)) if name in SUMS_OF_GAPS else (low, high)
    return said


@dataclass(frozen=True, slots=True)
class Difference:
    """How much more one model has of a metric than another on the same rows.

    :param low: of the 95 % interval, to ``high``.
    :param p: two-sided p-value of there being no difference.
    :param error: standard error of ``value``.
    """

    value: float
    low: float
    high: float
    p: float
    error: float


def differences(
    ours: Mapping[str, Statistic], theirs: Mapping[str, Statistic], pooled: Mapping[str, Statistic], sample: Sample
) -> dict[str, Difference]:
    """Each metric of one model less the other's on the same rows.

    The interval is from the paired bootstrap: both models on the same draws. The p-value is from approximate randomisation: were the
    models alike, it would make no difference which of them a row's answer is from; p is the share of random exchanges that lead to a
    difference as large, the data themselves being counted as one of them. (A bootstrap's p-value is too small where few rows differ.)
    Source: Noreen 1989, "Computer-Intensive Methods for Testing Hypotheses", ch. 2; Yeh 2000, "More accurate tests for the statistical
    significance of result differences".

    :param pooled: the metrics of weights (m, 2n): of our answers to the n rows, then theirs.
    """
    names = [name for name in ours if name in theirs]

    def less(name: str) -> Statistic:
        return lambda weights: ours[name](weights) - theirs[name](weights)

    once = np.ones((1, len(sample.actual)))
    drawn = _values({name: less(name) for name in names}, sample.draws())
    defined = {name: values for name, values in drawn.items() if not np.isnan(values).any()}
    asked = {name: pooled[name] for name in defined}
    mixed = _values(asked, (np.hstack([1 - swap, swap]) for swap in sample.swaps()))
    rest = _values(asked, (np.hstack([swap, 1 - swap]) for swap in sample.swaps()))
    found = {}
    for name, values in defined.items():
        value = float(less(name)(once)[0])
        unmixed = pooled[name](np.hstack([once, 0 * once])) - pooled[name](np.hstack([0 * once, once]))
        as_large = np.abs(mixed[name] - rest[name]) >= abs(float(unmixed[0])) - _NOISE
        p = (1 + int(as_large.sum())) / (1 + sample.resamples)
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
    if abs(difference.value) <= _NOISE:
        return None
    normal = NormalDist()
    wanted = normal.inv_cdf((1 + LEVEL) / 2) + normal.inv_cdf(power)
    return math.ceil(n * (wanted * difference.error / difference.value) ** 2)


def _values(found: Mapping[str, Statistic], weights: Iterator[Floats]) -> dict[str, Floats]:
    """Each metric's value for all of the weights."""
    values: dict[str, list[Floats]] = {name: [] for name in found}
    with threadpool_limits(1, "blas"):  # sums come out alike on any number of cores
        for part in weights:
            for name, statistic in found.items():
                values[name].append(statistic(part))
    return {name: np.concatenate(parts) for name, parts in values.items()}
