"""How far a number would move on another sample of the same size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from finsight.domain.metrics import Floats, Ints


def bootstrap_interval(
    statistic: Callable[[Ints], Floats], confusion: Ints, resamples: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of the confusion matrix, stratified by actual label.

    Drawing rows with replacement within each actual label is the same as drawing each row of the confusion matrix from a
    multinomial, so no row of the test set is touched and 10,000 resamples take milliseconds.
    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", ch. 13.

    :param statistic: maps confusion matrices (m, k, k) to values (m,).
    :param confusion: counts (k, k), rows the actual label.
    """
    rng = np.random.default_rng(seed)
    drawn = np.zeros((resamples, *confusion.shape), dtype=np.int64)
    for i, row in enumerate(confusion):
        if row.sum():
            drawn[:, i] = rng.multinomial(row.sum(), row / row.sum(), size=resamples)
    low, high = np.quantile(statistic(drawn), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
