"""Evaluate: the checkpoint on the test rows, every number recomputable from the predictions."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finsight.domain.calibration import ece, reliability
from finsight.domain.metrics import accuracy, confusion_matrix, headline, macro_f1, softmax
from finsight.domain.significance import bootstrap_interval
from finsight.errors import DataError
from finsight.files import atomic_file, write_json
from finsight.params.evaluate import EvaluateParams
from finsight.pipeline.tables import read_table

if TYPE_CHECKING:
    from finsight.ports import Classifier


def evaluate(
    classifier: Classifier, test: Path, params: EvaluateParams, predictions: Path, report: Path, confusion: Path, calibration: Path
) -> dict[str, Any]:
    """Score the test rows; write each prediction, the metrics and the data of two plots; return what ``report`` says."""
    table = read_table(test)
    labels = list(classifier.labels)
    actual = label_indices(test, table["label"].to_pylist(), labels)
    probs = softmax(classifier.logits(table["text"].to_pylist()))
    predicted = [labels[i] for i in probs.argmax(axis=1)]
    columns = {name: table[name] for name in ("id", "hash", "corpus", "agreement", "text", "label")}
    columns |= {"predicted": predicted} | {f"prob_{label}": probs[:, i] for i, label in enumerate(labels)}
    with atomic_file(predictions) as partial:
        pq.write_table(pa.table(columns), partial)

    matrix = confusion_matrix(actual, probs.argmax(axis=1), len(labels))
    content = headline(actual, probs, labels)
    content["ece"] = ece(actual, probs, params.calibration_bins)
    for name, statistic in (("accuracy", accuracy), ("macro_f1", macro_f1)):
        low, high = bootstrap_interval(statistic, matrix, params.bootstrap_resamples, params.seed)
        content |= {f"{name}_low": low, f"{name}_high": high}
    content |= _full_agreement(table, actual, probs.argmax(axis=1))
    _write_rows(confusion, [{"actual": a, "predicted": p} for a, p in zip(table["label"].to_pylist(), predicted, strict=True)])
    bins = reliability(actual, probs, params.calibration_bins)
    _write_rows(calibration, [{"confidence": b.confidence, "accuracy": b.accuracy, "rows": b.n} for b in bins])
    write_json(report, content)
    return content


def label_indices(path: Path, names: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Indices (n,) of label names.

    :raises DataError: when a name is not a label of the model.
    """
    if unknown := sorted(set(names) - set(labels)):
        raise DataError(f"{path}: labels {unknown} are unknown to the model, which has {list(labels)}; run `dvc repro` so that both agree")
    return np.array([labels.index(name) for name in names], dtype=np.int64)


def _full_agreement(table: pa.Table, actual: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy on the rows that all annotators agreed on, where the corpus says; never to be compared with one on all rows."""
    rows = np.array([a == 100 for a in table["agreement"].to_pylist()])
    return {"accuracy_full_agreement": float((actual == predicted)[rows].mean()), "n_full_agreement": int(rows.sum())} if rows.any() else {}


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with atomic_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
