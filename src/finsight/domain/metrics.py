"""Classification metrics on label indices and probabilities. References: scikit-learn, in tests/unit/test_metrics.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Counts = Ints | Floats
"""Numbers of rows; not whole ones where rows have weights."""

CLIP = 1e-15
"""The least probability that a log loss reckons with."""


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Probabilities (n, k) of logits (n, k), in float64; each row sums to one."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exp = np.exp(shifted)
    return np.asarray(exp / exp.sum(axis=-1, keepdims=True))


def confusion_matrix(actual: Ints, predicted: Ints, k: int) -> Ints:
    """Counts (…, k, k), rows the actual label, columns the predicted one."""
    return np.bincount(actual * k + predicted, minlength=k * k).reshape(k, k).astype(np.int64)


def accuracy(confusion: Counts) -> Floats:
    """Share of correct rows of each confusion matrix (…, k, k); NaN for an empty one."""
    return np.asarray(np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1)))


def precision_recall_f1(confusion: Counts) -> tuple[Floats, Floats, Floats]:
    """Per-class precision, recall and F1, each (…, k), of confusion matrices (…, k, k); 0 where undefined, as scikit-learn does."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    predicted, actual = confusion.sum(axis=-2), confusion.sum(axis=-1)
    return _ratio(hits, predicted), _ratio(hits, actual), _ratio(2 * hits, predicted + actual)


def macro_f1(confusion: Counts) -> Floats:
    """Unweighted mean of the per-class F1 over the classes that occur among the actual ones, of confusion matrices (…, k, k).

    scikit-learn's default takes those that are predicted alone in too: two models would then be averaged over different classes.
    """
    occurs = confusion.sum(axis=-1) > 0
    return _ratio((precision_recall_f1(confusion)[2] * occurs).sum(axis=-1), occurs.sum(axis=-1))


def balanced_accuracy(confusion: Counts) -> Floats:
    """Mean recall over the classes that occur among the actual ones, of confusion matrices (…, k, k)."""
    occurs = confusion.sum(axis=-1) > 0
    return _ratio((precision_recall_f1(confusion)[1] * occurs).sum(axis=-1), occurs.sum(axis=-1))


def weighted_f1(confusion: Counts) -> Floats:
    """Mean of the per-class F1 weighted by each class's actual rows, of confusion matrices (…, k, k)."""
    support = confusion.sum(axis=-1)
    return _ratio((precision_recall_f1(confusion)[2] * support).sum(axis=-1), support.sum(axis=-1))


def mcc(confusion: Counts) -> Floats:
    """Matthews correlation coefficient for any number of classes, of confusion matrices (…, k, k); 0 where undefined.

    Source: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    c = confusion.astype(np.float64)
    actual, predicted, n = c.sum(axis=-1), c.sum(axis=-2), c.sum(axis=(-2, -1))
    covariance = np.trace(c, axis1=-2, axis2=-1) * n - (actual * predicted).sum(axis=-1)
    spread = np.sqrt((n**2 - (predicted**2).sum(axis=-1)) * (n**2 - (actual**2).sum(axis=-1)))
    return _ratio(covariance, spread)


def kappa(confusion: Counts) -> Floats:
    """Cohen's kappa of confusion matrices (…, k, k): agreement beyond what both label distributions give by chance; 0 where undefined."""
    c = confusion.astype(np.float64)
    actual, predicted, n = c.sum(axis=-1), c.sum(axis=-2), c.sum(axis=(-2, -1))
    expected = _ratio((actual * predicted).sum(axis=-1), n**2)
    return _ratio(_ratio(np.trace(c, axis1=-2, axis2=-1), n) - expected, 1 - expected)


def nll(actual: Ints, probs: Floats) -> float:
    """Mean negative log-likelihood in nats (log loss); probabilities are clipped to stay finite."""
    return float(-np.log(np.clip(probs[np.arange(len(actual)), actual], CLIP, 1)).mean())


def _ratio(top: NDArray[np.generic], bottom: NDArray[np.generic]) -> Floats:
    out = np.zeros(np.broadcast(top, bottom).shape)
    np.divide(top, bottom, out=out, where=np.asarray(bottom) > 0)
    return out


OF_CONFUSION: dict[str, Callable[[Counts], Floats]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "weighted_f1": weighted_f1,
    "mcc": mcc,
    "kappa": kappa,
}
"""The headline metrics that a confusion matrix tells."""


def by_label(confusion: Counts, labels: Sequence[str]) -> dict[str, float]:
    """Precision, recall and F1 of each label, their plain and weighted means, and the number of rows."""
    precision, recall, f1 = precision_recall_f1(confusion)
    support = confusion.sum(axis=1)
    occurs = support > 0
    flat: dict[str, float] = {"n": int(support.sum())}
    for name, values in (("precision", precision), ("recall", recall)):
        flat |= {f"macro_{name}": float(values[occurs].mean()), f"weighted_{name}": float(np.average(values, weights=support))}
    for i, label in enumerate(labels):
        flat |= {f"precision_{label}": float(precision[i]), f"recall_{label}": float(recall[i]), f"f1_{label}": float(f1[i])}
    return flat
