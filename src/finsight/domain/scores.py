"""The metrics of one model on one test set, as functions of the rows' weights: a bootstrap resample is a weight for each row.

A weight is how often a row was drawn, so that every metric is computed for thousands of resamples with a few matrix products, and for two
models with the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from finsight.domain import metrics
from finsight.domain.metrics import Counts, Floats, Ints

Statistic = Callable[[Floats], Floats]
"""Maps weights (m, n) of n rows to m values."""

SUMS_OF_GAPS = frozenset({"ece", "adaptive_ece"})
LOWER_IS_BETTER = frozenset({"ordinal_error", "nll", "brier", "ece", "adaptive_ece"})


def statistics(actual: Ints, probs: Floats, bins: int, polarity: Sequence[float] = ()) -> dict[str, Statistic]:
    """The headline metrics of one model by name.

    :param actual: label indices (n,).
    :param probs: probabilities (n, k).
    :param bins: of both calibration errors.
    :param polarity: of each label, for the ordinal error; empty where labels have no order.
    """
    n, k = probs.shape
    predicted = probs.argmax(axis=1)
    weighted = confusions(actual, predicted, k)

    def of_confusion(statistic: Callable[[Counts], Floats]) -> Statistic:
        return lambda weights: statistic(weighted(weights))

    found = {name: of_confusion(statistic) for name, statistic in metrics.OF_CONFUSION.items()}
    if len(polarity):
        place = np.asarray(polarity, dtype=np.float64)
        found["ordinal_error"] = _mean(np.abs(place[actual] - place[predicted]))
    found["nll"] = _mean(-np.log(np.clip(probs[np.arange(n), actual], metrics.CLIP, 1)))
    found["brier"] = _mean(((probs - np.eye(k)[actual]) ** 2).sum(axis=1))
    confidence, correct = probs.max(axis=1), (predicted == actual).astype(np.float64)
    found["ece"] = _gap(confidence, correct, equal_width(confidence, bins), bins)
    found["adaptive_ece"] = _gap(confidence, correct, equal_mass(confidence, bins), bins)
    found["auroc"] = _auroc(actual, probs)
    return found


def confusions(actual: Ints, predicted: Ints, k: int) -> Callable[[Floats], Floats]:
    """A function from weights (m, n) of n rows to confusion matrices (m, k, k)."""
    cells = np.zeros((len(actual), k * k))
    cells[np.arange(len(actual)), actual * k + predicted] = 1
    return lambda weights: np.asarray((weights @ cells).reshape(-1, k, k))


def measured(found: Mapping[str, Statistic], n: int) -> dict[str, float]:
    """The values on the n rows as they are; a metric that is not defined there is left out."""
    once = np.ones((1, n))
    with threadpool_limits(1, "blas"):  # sums come out alike on any number of cores
        values = {name: float(statistic(once)[0]) for name, statistic in found.items()}
    return {name: value for name, value in values.items() if not np.isnan(value)}


def equal_width(confidence: Floats, bins: int) -> NDArray[np.intp]:
    """The bin (n,) of each row, the bins cutting [0, 1] into equal parts; a limit belongs to the bin below it."""
    return np.clip(np.digitize(confidence, np.linspace(0, 1, bins + 1), right=True) - 1, 0, bins - 1)


def equal_mass(confidence: Floats, bins: int) -> NDArray[np.intp]:
    """The bin (n,) of each row, every bin holding as many rows as the others (one more or less), equal confidences together.

    Source: Nixon et al. 2019, "Measuring Calibration in Deep Learning" (adaptive calibration error, here of the predicted label).
    """
    values, rank = np.unique(confidence, return_inverse=True)
    before = np.concatenate([[0], np.cumsum(np.bincount(rank, minlength=len(values)))[:-1]])  # rows with less confidence
    return (before * bins // max(1, len(confidence)))[rank]


def _mean(values: Floats) -> Statistic:
    return lambda weights: weights @ values / weights.sum(axis=1)


def _gap(confidence: Floats, correct: Floats, bin_of: NDArray[np.intp], bins: int) -> Statistic:
    """Mean over the rows of how far a bin's confidence is from its accuracy."""
    signed = np.zeros((len(confidence), bins))
    signed[np.arange(len(confidence)), bin_of] = confidence - correct
    return lambda weights: np.abs(weights @ signed).sum(axis=1) / weights.sum(axis=1)


def _auroc(actual: Ints, probs: Floats) -> Statistic:
    """Mean over the labels of the area under the ROC curve of one label against the rest; NaN where no label has rows of both kinds.

    The area is the probability that a row of the label gets more than one of the others, ties counting half (Hanley & McNeil 1982).
    """
    k = probs.shape[1]
    order = np.argsort(probs, axis=0, kind="stable")  # (n, k)
    # Where a new probability begins among the sorted ones: rows before it got less.
    begins = [np.flatnonzero(np.diff(probs[order[:, c], c], prepend=-1.0)) for c in range(k)]

    def area(weights: Floats) -> Floats:
        areas = np.full((k, len(weights)), np.nan)
        for c in range(k):
            ordered, own = weights[:, order[:, c]], actual[order[:, c]] == c
            ours, others = (np.add.reduceat(ordered * kind, begins[c], axis=1) for kind in (own, ~own))
            below = np.cumsum(others, axis=1) - others / 2
            pairs = ours.sum(axis=1) * others.sum(axis=1)
            np.divide((ours * below).sum(axis=1), pairs, out=areas[c], where=pairs > 0)
        there = ~np.isnan(areas)
        total = np.where(there, areas, 0.0).sum(axis=0)
        return np.asarray(np.divide(total, there.sum(axis=0), out=np.full(len(weights), np.nan), where=there.any(axis=0)))

    return area
