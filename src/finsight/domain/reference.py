"""What the predictions of a model in service are held against: the labels it learnt from, and how sure it was of rows it had not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Upper ends of the bins of the predicted label's probability; the last are narrow: most predictions of a good model lie there."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Counted when the model was made.

    :param labels: training rows of each label, in the order of the model's labels.
    :param confidences: test rows by the probability of their predicted label, in the bins of CONFIDENCES.
    """

    labels: Sequence[int]
    confidences: Sequence[int]


def counted(probs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows of probabilities (n, k) by their most probable label and the bin of its probability (k, bins)."""
    n, k = probs.shape
    best = probs.argmax(axis=1)
    bins = np.minimum(np.searchsorted(CONFIDENCES, probs[np.arange(n), best]), len(CONFIDENCES) - 1)
    found = np.bincount(best * len(CONFIDENCES) + bins, minlength=k * len(CONFIDENCES))
    return found.reshape(k, len(CONFIDENCES))
