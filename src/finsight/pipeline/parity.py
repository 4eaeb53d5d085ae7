"""How far a format of the bundle is from the checkpoint, on the test rows and on texts that graphs trip over, and what it costs here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finsight.domain.metrics import macro_f1, softmax
from finsight.domain.scores import confusions
from finsight.domain.significance import Sample, intervals
from finsight.pipeline.tables import read_table

if TYPE_CHECKING:
    from finsight.ports import Classifier

# One character, no character, more than the maximum length, other scripts and directions, line ends, nothing visible.
HARD = (
    "",
    "x",
    "profit warning " * 700,
    "Sales 📈 up 12 % 🙂🙂",
    "הרווח הנקי עלה ב-12 אחוזים",
    "净利润增长百分之十二",
    "a\nb\tc\r\nd",
    "\u200b\u200e",
    "Net loss narrowed to EUR 1.2 mn from EUR 9.4 mn a year earlier; outlook unchanged.",
)
SINGLES = 200  # texts that are timed one by one: two of them are slower than the 99th percentile
RESAMPLES = 2000  # for the interval of the change of macro-F1


@dataclass(frozen=True)
class Reference:
    """What the checkpoint says.

    :param texts: of the n test rows; ``actual`` (n,) are their label indices.
    :param units: number (n,) of the group of near-duplicates that each belongs to.
    :param probs: calibrated probabilities (n, k); ``hard`` those of ``HARD``.
    """

    texts: Sequence[str]
    actual: NDArray[np.int64]
    units: NDArray[np.int64]
    probs: NDArray[np.float64]
    hard: NDArray[np.float64]


def reference(checkpoint: Classifier, test: Path, temperature: float) -> Reference:
    """Ask the checkpoint."""
    rows = read_table(test)
    texts = rows["text"].to_pylist()
    units = np.unique(np.array(rows["near_group"].to_pylist(), dtype=str), return_inverse=True)[1]
    probs, hard = (softmax(checkpoint.logits(asked) / temperature) for asked in (texts, HARD))
    return Reference(texts, rows["label_id"].to_numpy().astype(np.int64), units, probs, hard)


def differences(classifier: Classifier, expected: Reference) -> dict[str, float]:
    """How far a format is from the checkpoint.

    ``max_abs_diff`` is over all texts; the hard ones are asked all at once, so that short and long are padded together, and one by one.
    ``macro_f1_delta`` is the format's macro-F1 less the checkpoint's, with its 95 % paired bootstrap interval.
    """
    probs = softmax(classifier.logits(expected.texts))
    together = softmax(classifier.logits(HARD))
    alone = np.concatenate([softmax(classifier.logits([text])) for text in HARD])
    gaps = [np.abs(ours - theirs).max() for ours, theirs in ((probs, expected.probs), (together, expected.hard), (alone, expected.hard))]
    k = probs.shape[1]
    ours, theirs = (confusions(expected.actual, found.argmax(axis=1), k) for found in (probs, expected.probs))
    sample = Sample(expected.actual, expected.units, RESAMPLES, seed=0)
    change = {"macro_f1": lambda weights: macro_f1(ours(weights)) - macro_f1(theirs(weights))}
    low, high = intervals(change, sample)["macro_f1"]
    return {
        "max_abs_diff": float(np.max(gaps)),  # not a number where one of them is not, which no limit allows
        "label_flip_rate": float((probs.argmax(axis=1) != expected.probs.argmax(axis=1)).mean()),
        "macro_f1_delta": float(change["macro_f1"](np.ones((1, len(probs))))[0]),
        "macro_f1_delta_low": low,
        "macro_f1_delta_high": high,
    }


def speed(classifier: Classifier, texts: Sequence[str]) -> dict[str, float]:
    """Texts a second all at once, and the median and 99th percentile of the milliseconds for one alone."""
    classifier.logits(texts[:8])  # the first call plans memory
    started = time.perf_counter()
    classifier.logits(texts)
    seconds = time.perf_counter() - started
    singles = []
    for text in texts[:SINGLES]:
        begun = time.perf_counter()
        classifier.logits([text])
        singles.append(1000 * (time.perf_counter() - begun))
    return {
        "texts_per_second": round(len(texts) / seconds, 1),
        "single_text_p50_ms": round(float(np.median(singles)), 2),
        "single_text_p99_ms": round(float(np.quantile(singles, 0.99)), 2),
    }


def gated(found: Mapping[str, float], rows: int, macro_f1_rows: int) -> dict[str, float]:
    """What the limits are held against; the loss of macro-F1 is the worst that its interval reaches, and none where rows are too few."""
    loss = max(0.0, -found["macro_f1_delta_low"]) if rows >= macro_f1_rows else 0.0
    return {"max_abs_diff": found["max_abs_diff"], "label_flip_rate": found["label_flip_rate"], "macro_f1_loss": loss}
