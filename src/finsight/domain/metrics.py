"""Classification metrics on label indices and probabilities. References: scikit-learn, in tests/unit/test_metrics.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Probabilities (n, k) of logits (n, k), in float64; each row sums to one."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exp = np.exp(shifted)
    return np.asarray(exp / exp.sum(axis=-1, keepdims=True))


def confusion_matrix(actual: Ints, predicted: Ints, k: int) -> Ints:
    """Counts (…, k, k), rows the actual label, columns the predicted one."""
    return np.bincount(actual * k + predicted, minlength=k * k).reshape(k, k).astype(np.int64)


def accuracy(confusion: Ints) -> Floats:
    """Share of correct rows of each confusion matrix (…, k, k); NaN for an empty one."""
    return np.asarray(np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1)))


def precision_recall_f1(confusion: Ints) -> tuple[Floats, Floats, Floats]:
    """Per-class precision, recall and F1, each (…, k), of confusion matrices (…, k, k); 0 where undefined, as scikit-learn does."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    predicted, actual = confusion.sum(axis=-2), confusion.sum(axis=-1)
    return _ratio(hits, predicted), _ratio(hits, actual), _ratio(2 * hits, predicted + actual)


def macro_f1(confusion: Ints) -> Floats:
    """Unweighted mean of the per-class F1 over the classes that occur, actual or predicted, as scikit-learn does."""
    occurs = (confusion.sum(axis=-2) + confusion.sum(axis=-1)) > 0
    return _ratio((precision_recall_f1(confusion)[2] * occurs).sum(axis=-1), occurs.sum(axis=-1))


def mcc(confusion: Ints) -> float:
    """Matthews correlation coefficient for any number of classes (Gorodkin 2004, R_K); 0 where undefined."""
    c = confusion.astype(np.float64)
    actual, predicted, n = c.sum(axis=1), c.sum(axis=0), c.sum()
    covariance = np.trace(c) * n - actual @ predicted
    spread = np.sqrt((n**2 - predicted @ predicted) * (n**2 - actual @ actual))
    return float(covariance / spread) if spread else 0.0


def nll(actual: Ints, probs: Floats) -> float:
    """Mean negative log-likelihood in nats (log loss); probabilities are clipped at 1e-15 to stay finite."""
    return float(-np.log(np.clip(probs[np.arange(len(actual)), actual], 1e-15, 1)).mean())


def _ratio(top: NDArray[np.generic], bottom: NDArray[np.generic]) -> Floats:
    out = np.zeros(np.broadcast(top, bottom).shape)
    np.divide(top, bottom, out=out, where=np.asarray(bottom) > 0)
    return out


def headline(actual: Ints, probs: Floats, labels: Sequence[str]) -> dict[str, float]:
    """The flat metrics of one model on one test set.

    :param actual: label indices (n,), n ≥ 1.
    :param probs: probabilities (n, k), columns in the order of ``labels``.
    """
    matrix = confusion_matrix(actual, probs.argmax(axis=1), len(labels))
    precision, recall, f1 = precision_recall_f1(matrix)
    flat = {
        "accuracy": float(accuracy(matrix)),
        "macro_f1": float(macro_f1(matrix)),
        "mcc": mcc(matrix),
        "nll": nll(actual, probs),
        "n": len(actual),
    }
    for i, label in enumerate(labels):
        flat |= {f"precision_{label}": float(precision[i]), f"recall_{label}": float(recall[i]), f"f1_{label}": float(f1[i])}
    return flat


def ordinal_error(actual: Ints, predicted: Ints, polarity: Sequence[float]) -> float:
    """Mean distance between the polarities of the actual and the predicted label, in [0, 2].

    With -1, 0, 1 a miss by one step counts 1 and an opposite one 2. (Mean absolute error of ordinal classification; Baccianella,
    Esuli, Sebastiani 2009.)

    :param actual: label indices (n,); ``predicted`` likewise.
    :param polarity: of each label, in [-1, 1].
    """
    place = np.asarray(polarity, dtype=np.float64)
    return float(np.abs(place[actual] - place[predicted]).mean())
