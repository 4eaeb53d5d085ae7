"""Evaluate: the checkpoint on the test rows, every number recomputable from the predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finsight.domain.calibration import ece, reliability
from finsight.domain.metrics import accuracy, confusion_matrix, headline, macro_f1, ordinal_error, softmax
from finsight.domain.significance import bootstrap_interval
from finsight.errors import DataError
from finsight.files import atomic_file, read_json, write_json
from finsight.params.evaluate import EvaluateParams
from finsight.pipeline.tables import read_table, write_csv

if TYPE_CHECKING:
    from finsight.ports import Classifier


def evaluate(
    classifier: Classifier,
    test: Path,
    polarity: Mapping[str, float],
    params: EvaluateParams,
    prepare_report: Path,
    predictions: Path,
    report: Path,
    confusion: Path,
    calibration: Path,
) -> dict[str, Any]:
    """Score the test rows; write each prediction, the metrics and the data of two plots; return what ``report`` says.

    :param polarity: label → place between worst and best, for the ordinal error; empty where labels have no order.
    :param prepare_report: where the protocol stands, which the metrics repeat: a score means nothing without it.
    """
    table = read_table(test)
    labels = list(classifier.labels)
    actual = label_indices(test, table["label"].to_pylist(), labels)
    probs = softmax(classifier.logits(table["text"].to_pylist()))
    predicted = [labels[i] for i in probs.argmax(axis=1)]
    columns = {name: table[name] for name in ("id", "hash", "corpus", "agreement", "leak", "near_group", "text", "label")}
    columns |= {"predicted": predicted} | {f"prob_{label}": probs[:, i] for i, label in enumerate(labels)}
    with atomic_file(predictions) as partial:
        pq.write_table(pa.table(columns), partial)

    matrix = confusion_matrix(actual, probs.argmax(axis=1), len(labels))
    content = headline(actual, probs, labels)
    content["ece"] = ece(actual, probs, params.calibration_bins)
    for name, statistic in (("accuracy", accuracy), ("macro_f1", macro_f1)):
        low, high = bootstrap_interval(statistic, matrix, params.bootstrap_resamples, params.seed)
        content |= {f"{name}_low": low, f"{name}_high": high}
    if polarity:
        content["ordinal_error"] = ordinal_error(actual, probs.argmax(axis=1), [polarity[label] for label in labels])
    content |= _subsets(table, actual, probs.argmax(axis=1), len(labels))
    content["protocol"] = read_json(prepare_report, "dvc repro prepare")["protocol"]
    write_csv(confusion, [{"actual": a, "predicted": p} for a, p in zip(table["label"].to_pylist(), predicted, strict=True)])
    bins = reliability(actual, probs, params.calibration_bins)
    write_csv(calibration, [{"confidence": b.confidence, "accuracy": b.accuracy, "rows": b.n} for b in bins])
    write_json(report, content)
    return content


def label_indices(path: Path, names: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Indices (n,) of label names.

    :raises DataError: when a name is not a label of the model.
    """
    if unknown := sorted(set(names) - set(labels)):
        raise DataError(f"{path}: labels {unknown} are unknown to the model, which has {list(labels)}; run `dvc repro` so that both agree")
    return np.array([labels.index(name) for name in names], dtype=np.int64)


def _subsets(table: pa.Table, actual: np.ndarray, predicted: np.ndarray, k: int) -> dict[str, float]:
    """The metrics once more without the rows that leak, and on those that all annotators agreed on, where there are such rows.

    Accuracy at full agreement is never to be compared with one on all rows.
    """
    found: dict[str, float] = {}
    clean = np.array([leak is None for leak in table["leak"].to_pylist()])
    if clean.any() and not clean.all():
        matrix = confusion_matrix(actual[clean], predicted[clean], k)
        found |= {"n_without_leaks": int(clean.sum())}
        found |= {"accuracy_without_leaks": float(accuracy(matrix)), "macro_f1_without_leaks": float(macro_f1(matrix))}
    agreed = np.array([agreement == 100 for agreement in table["agreement"].to_pylist()])
    if agreed.any():
        found |= {"n_full_agreement": int(agreed.sum()), "accuracy_full_agreement": float((actual == predicted)[agreed].mean())}
    return found
