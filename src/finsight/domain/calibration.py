"""Whether a probability means what it says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finsight.domain.metrics import Floats, Ints


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
    confidence = probs.max(axis=1)
    correct = probs.argmax(axis=1) == actual
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, bins - 1)
    found = []
    for i in range(bins):
        rows = index == i
        if rows.any():
            found.append(Bin(edges[i], edges[i + 1], int(rows.sum()), float(confidence[rows].mean()), float(correct[rows].mean())))
    return found


def ece(actual: Ints, probs: Floats, bins: int) -> float:
    """Expected calibration error in [0, 1]: mean gap between confidence and accuracy over equal-width bins.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3.
    """
    return float(sum(b.n * abs(b.confidence - b.accuracy) for b in reliability(actual, probs, bins)) / len(actual))
