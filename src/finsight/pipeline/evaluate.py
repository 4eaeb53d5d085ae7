"""Evaluate: the checkpoint on the test rows, every number recomputable from the predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finsight.domain.calibration import abstain_below, reliability, risk_coverage, temperature
from finsight.domain.metrics import softmax
from finsight.domain.scores import measured
from finsight.files import read_json, write_json
from finsight.params.evaluate import EvaluateParams
from finsight.pipeline.predictions import Predictions, measure, predictions, write_predictions
from finsight.pipeline.tables import read_table, write_csv

if TYPE_CHECKING:
    from finsight.ports import Classifier

CONFUSION, RELIABILITY, COVERAGE = "confusion.csv", "reliability.csv", "coverage.csv"


def evaluate(
    classifier: Classifier,
    validation: Path,
    test: Path,
    polarity: Mapping[str, float],
    params: EvaluateParams,
    prepare_report: Path,
    scored: Path,
    report: Path,
    plots: Path,
) -> dict[str, Any]:
    """Calibrate on validation and score the test rows; write each prediction, the metrics and the data of three plots.

    :param polarity: label → place between worst and best, for the ordinal error; empty where labels have no order.
    :param prepare_report: where the protocol stands, which the metrics repeat: a score means nothing without it.
    :param scored: Parquet file of the predictions.
    :param plots: folder of the plots' data.
    :returns: what ``report`` says.
    """
    (seen, seen_logits), (raw, logits) = (_ask(classifier, path) for path in (validation, test))
    heat = temperature(seen.actual, seen_logits)
    found = replace(raw, probs=softmax(logits / heat))
    write_predictions(scored, found)
    content: dict[str, Any] = measure(found, polarity, params)
    content["calibration"] = _calibration(heat, replace(seen, probs=softmax(seen_logits / heat)), raw, found, params)
    content["protocol"] = read_json(prepare_report, "dvc repro prepare")["protocol"]
    names = zip(found.table["label"].to_pylist(), (found.labels[i] for i in found.predicted), strict=True)
    write_csv(plots / CONFUSION, [{"actual": actual, "predicted": predicted} for actual, predicted in names])
    bins = reliability(found.actual, found.probs, params.calibration_bins)
    write_csv(plots / RELIABILITY, [{"confidence": b.confidence, "accuracy": b.accuracy, "rows": b.n} for b in bins])
    curve = risk_coverage(found.actual, found.probs)
    write_csv(plots / COVERAGE, [{"coverage": p.coverage, "accuracy": p.accuracy, "threshold": p.threshold} for p in curve])
    write_json(report, content)
    return content


def _ask(classifier: Classifier, path: Path) -> tuple[Predictions, NDArray[np.float32]]:
    """What a model says of the rows of a file, and its logits."""
    table = read_table(path)
    logits = classifier.logits(table["text"].to_pylist())
    return predictions(path, table, list(classifier.labels), softmax(logits)), logits


def _calibration(heat: float, seen: Predictions, raw: Predictions, found: Predictions, params: EvaluateParams) -> dict[str, float]:
    """The temperature, what it changed on the test rows, and from which probability on answers are right as often as is wanted.

    :param seen: the calibrated predictions for validation, which choose the threshold.
    :param raw: the uncalibrated ones for the test rows; ``found``: the calibrated ones.
    """
    before = measured(raw.statistics({}, params.calibration_bins), len(raw.actual))
    content = {"temperature": heat} | {f"{name}_before": before[name] for name in ("nll", "brier", "ece", "adaptive_ece")}
    wanted = abstain_below(risk_coverage(seen.actual, seen.probs), params.abstain_precision)
    if wanted is None:
        return content
    answered = found.probs.max(axis=1) >= wanted.threshold
    content |= {"abstain_below": wanted.threshold, "coverage": float(answered.mean())}
    right = (found.predicted == found.actual)[answered]
    return content | ({"accuracy_answered": float(right.mean())} if answered.any() else {})
