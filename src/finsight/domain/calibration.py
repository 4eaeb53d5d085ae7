"""Whether a probability means what it says, and what to do where it does not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finsight.domain.metrics import Floats, Ints
from finsight.domain.scores import equal_width

# Where a temperature is looked for.
COLDEST, HOTTEST = 0.05, 20.0


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows whose confidence lies in ``(low, high]``: how many, their mean confidence, their accuracy."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(actual: Ints, probs: Floats, bins: int) -> list[Bin]:
    """Equal-width bins over the confidence of the predicted label; empty bins are left out."""
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == actual
    edges, index = np.linspace(0, 1, bins + 1), equal_width(confidence, bins)
    found = []
    for i in range(bins):
        rows = index == i
        if rows.any():
            found.append(Bin(edges[i], edges[i + 1], int(rows.sum()), float(confidence[rows].mean()), float(correct[rows].mean())))
    return found


def temperature(actual: Ints, logits: NDArray[np.floating]) -> float:
    """The number that divides the logits so that their log loss is least; above 1 the model was too sure of itself.

    The loss is convex in the inverse of the temperature, as long as no probability is clipped, so that golden-section search finds its
    minimum. Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", §4.2.

    :param actual: label indices (n,) of rows that the model has not learned from.
    :param logits: (n, k), finite.
    :returns: from 0.05 to 20; 1 for a model that has every row right, which says nothing of how sure it should be.
    """
    raw = logits.astype(np.float64)
    lead = raw - raw[np.arange(len(actual)), actual][:, None]  # of each label over the right one

    def loss(inverse: float) -> float:
        return float(np.logaddexp.reduce(lead * inverse, axis=1).mean())

    golden = (5**0.5 - 1) / 2
    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(80):
        span = golden * (high - low)
        a, b = high - span, low + span
        if loss(a) <= loss(b):
            high = b
        else:
            low = a
    found = 2 / (low + high)
    return found if found > COLDEST * 1.01 else 1.0


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is left when rows below ``threshold`` of confidence are not answered: their share, and the accuracy on them."""

    threshold: float
    coverage: float
    accuracy: float


def risk_coverage(actual: Ints, probs: Floats) -> list[Coverage]:
    """From the surest row alone to all rows, one entry for each confidence that occurs.

    Source: El-Yaniv & Wiener 2010, "On the Foundations of Noise-free Selective Classification".
    """
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == actual
    order = np.argsort(-confidence, kind="stable")
    ordered, right = confidence[order], np.cumsum(correct[order])
    ends = np.flatnonzero(np.diff(ordered, append=-1.0))  # rows of equal confidence are answered together
    return [Coverage(float(ordered[i]), (i + 1) / len(ordered), float(right[i] / (i + 1))) for i in ends]


def abstain_below(curve: list[Coverage], precision: float, share: float) -> Coverage | None:
    """The least confidence from which on answers reach a precision, with what is left then; None where none does.

    :param share: of the rows that have to be left, since a few lucky ones at the top show nothing.
    """
    reached = (point for point in curve if point.accuracy >= precision and point.coverage >= share)
    return max(reached, key=lambda point: point.coverage, default=None)
