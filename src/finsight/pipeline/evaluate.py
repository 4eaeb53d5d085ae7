"""Evaluate: the checkpoint on the test rows, every number recomputable from the predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finsight.domain.calibration import abstain_below, reliability, risk_coverage, temperature
from finsight.domain.metrics import softmax
from finsight.domain.scores import measured
from finsight.errors import DataError
from finsight.files import read_json, write_json
from finsight.params.evaluate import EvaluateParams
from finsight.pipeline.baselines import baselines
from finsight.pipeline.behaviour import COLUMNS as FAILED
from finsight.pipeline.behaviour import behave, read_suite
from finsight.pipeline.mistakes import COLUMNS, mistakes
from finsight.pipeline.predictions import Predictions, by_slice, measure, predictions, write_predictions
from finsight.pipeline.tables import read_table, write_csv

if TYPE_CHECKING:
    from finsight.ports import Classifier


@dataclass(frozen=True)
class Written:
    """What the stage writes.

    :param predictions: Parquet file.
    :param report: JSON file of the metrics; ``slices`` of those by part of the rows.
    :param mistakes: CSV file of the rows that the model has wrong; ``failures`` of the behavioural tests' cases.
    :param plots: folder of the plots' data.
    """

    predictions: Path
    report: Path
    slices: Path
    mistakes: Path
    failures: Path
    plots: Path


CONFUSION, RELIABILITY, COVERAGE = "confusion.csv", "reliability.csv", "coverage.csv"


def evaluate(
    classifier: Classifier,
    train: Path,
    validation: Path,
    test: Path,
    suite: Path,
    polarity: Mapping[str, float],
    params: EvaluateParams,
    prepare_report: Path,
    to: Written,
) -> dict[str, Any]:
    """Calibrate on validation and score the test rows; write each prediction, the metrics and the data of three plots; list the mistakes.

    :param train: Parquet file of the training rows, from which the baselines learn.
    :param suite: folder of the behavioural tests.
    :param polarity: label → place between worst and best, for the ordinal error; empty where labels have no order.
    :param prepare_report: where the protocol stands, which the metrics repeat: a score means nothing without it.
    :returns: what the report says.
    """
    (seen, seen_logits), (raw, logits) = (_ask(classifier, path) for path in (validation, test))
    raw.statistics(polarity, params.calibration_bins)  # refuses a polarity of other labels
    learned, asked = read_table(train, ["text", "label"]), raw.table["text"].to_pylist()
    raw = raw.beside(baselines(learned["text"].to_pylist(), learned["label"].to_pylist(), asked, raw.labels, polarity))
    heat = temperature(seen.actual, seen_logits)
    found = replace(raw, probs=softmax(logits / heat))
    write_predictions(to.predictions, found)
    content: dict[str, Any] = measure(found, polarity, params)
    content["calibration"] = _calibration(heat, replace(seen, probs=softmax(seen_logits / heat)), raw, found, params)
    seed, most = params.seed, params.behaviour_rows

    def probs(texts: Sequence[str]) -> NDArray[np.float64]:
        return softmax(classifier.logits(texts) / heat)

    behaviour = behave(probs, read_suite(suite), raw.labels, polarity, asked, most, seed)
    content |= {"behaviour": behaviour.rates, "behaviour_cases": behaviour.cases} | (
        {"behaviour_left_out": behaviour.left_out} if behaviour.left_out else {}
    )
    content["protocol"] = read_json(prepare_report, "dvc repro prepare")["protocol"]
    names = zip(found.table["label"].to_pylist(), (found.labels[i] for i in found.predicted), strict=True)
    write_csv(to.plots / CONFUSION, [{"actual": actual, "predicted": predicted} for actual, predicted in names])
    bins = reliability(found.actual, found.probs, params.calibration_bins)
    write_csv(to.plots / RELIABILITY, [{"confidence": b.confidence, "accuracy": b.accuracy, "rows": b.n} for b in bins])
    curve = risk_coverage(found.actual, found.probs)
    write_csv(to.plots / COVERAGE, [{"coverage": p.coverage, "accuracy": p.accuracy, "threshold": p.threshold} for p in curve])
    write_json(to.slices, by_slice(found, params))
    write_csv(to.mistakes, mistakes(found, learned, probs), COLUMNS)
    write_csv(to.failures, behaviour.failures, FAILED)
    write_json(to.report, content)
    return content


def _ask(classifier: Classifier, path: Path) -> tuple[Predictions, NDArray[np.float32]]:
    """What a model says of the rows of a file, and its logits."""
    table = read_table(path)
    logits = classifier.logits(table["text"].to_pylist())
    if not (sound := np.isfinite(logits).all(axis=1)).all():
        first = table["id"][int(np.argmin(sound))].as_py()
        raise DataError(
            f"{path}: the model's answer to {first} is no number (the first of {(~sound).sum()}); train again, with a lower train.lr"
        )
    return predictions(path, table, list(classifier.labels), softmax(logits)), logits


def _calibration(heat: float, seen: Predictions, raw: Predictions, found: Predictions, params: EvaluateParams) -> dict[str, float]:
    """The temperature, what it changed on the test rows, and from which probability on answers are right as often as is wanted.

    :param seen: the calibrated predictions for validation, which choose the threshold.
    :param raw: the uncalibrated ones for the test rows; ``found``: the calibrated ones.
    """
    before = measured(raw.statistics({}, params.calibration_bins), len(raw.actual))
    content = {"temperature": heat} | {f"{name}_before": before[name] for name in ("nll", "brier", "ece", "adaptive_ece")}
    curve = risk_coverage(seen.actual, seen.probs)
    wanted = abstain_below(curve, params.abstain_precision, params.min_slice_rows / len(seen.actual))
    if wanted is None:
        return content
    answered = found.probs.max(axis=1) >= wanted.threshold
    content |= {"abstain_below": wanted.threshold, "coverage": float(answered.mean())}
    right = (found.predicted == found.actual)[answered]
    return content | ({"accuracy_answered": float(right.mean())} if answered.any() else {})
