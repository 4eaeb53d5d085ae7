"""What a model said of the test rows: the table that every number about it is computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finsight.domain.metrics import OF_CONFUSION, Floats, Ints, by_label, confusion_matrix
from finsight.domain.scores import Statistic, measured, statistics
from finsight.domain.significance import intervals
from finsight.errors import DataError
from finsight.files import atomic_file
from finsight.params.evaluate import EvaluateParams
from finsight.pipeline.tables import read_table

_NEEDED = ("id", "hash", "corpus", "agreement", "leak", "near_group", "text", "label")
# What a test row has beside what tells it from others: numbers for the model, and its split, which is the same for all.
_LEFT_OUT = {"input_ids", "label_id", "split"}
_PROB = "prob_"


@dataclass(frozen=True)
class Predictions:
    """The test rows and the probabilities that a model gave them.

    :param labels: in the order of the columns of ``probs``.
    :param table: the rows, with their texts and where they are from.
    :param actual: label indices (n,).
    :param probs: (n, k).
    """

    labels: Sequence[str]
    table: pa.Table
    actual: Ints
    probs: Floats

    @property
    def predicted(self) -> Ints:
        """Label indices (n,)."""
        return np.asarray(self.probs.argmax(axis=1))

    def take(self, rows: np.ndarray) -> Predictions:
        """The same of some rows, by number or by a mask."""
        numbers = np.arange(len(self.actual))[rows]
        return Predictions(self.labels, self.table.take(pa.array(numbers)), self.actual[numbers], self.probs[numbers])

    def statistics(self, polarity: Mapping[str, float], bins: int) -> dict[str, Statistic]:
        """The headline metrics, as functions of the rows' weights."""
        return statistics(self.actual, self.probs, bins, [polarity[label] for label in self.labels] if polarity else ())


def predictions(test: Path, table: pa.Table, labels: Sequence[str], probs: Floats) -> Predictions:
    """Put what a model said beside the rows it was asked about.

    :param test: where ``table`` is from, for errors.
    :raises DataError: when a row's label is not one of the model's.
    """
    names = table["label"].to_pylist()
    if unknown := sorted(set(names) - set(labels)):
        raise DataError(f"{test}: labels {unknown} are unknown to the model, which has {list(labels)}; run `dvc repro` so that both agree")
    number = {label: i for i, label in enumerate(labels)}
    table = table.select([name for name in table.column_names if name not in _LEFT_OUT])
    return Predictions(labels, table, np.array([number[name] for name in names], dtype=np.int64), probs)


def write_predictions(path: Path, found: Predictions) -> None:
    """Write the table, with a column for the label and one for each probability."""
    columns = {name: found.table[name] for name in found.table.column_names} | {"predicted": [found.labels[i] for i in found.predicted]}
    columns |= {f"{_PROB}{label}": found.probs[:, i] for i, label in enumerate(found.labels)}
    with atomic_file(path) as partial:
        pq.write_table(pa.table(columns), partial)


def read_predictions(path: Path, origin: str = "") -> Predictions:
    """Read what :func:`write_predictions` wrote.

    :param origin: what errors call the file, where its path says nothing.
    :raises ArtifactError: when the file is missing or is no Parquet file.
    :raises DataError: when it holds no predictions.
    """
    table = read_table(path)
    labels = [name.removeprefix(_PROB) for name in table.column_names if name.startswith(_PROB)]
    missing = sorted({*_NEEDED, "predicted"} - {*table.column_names})
    if missing or len(labels) < 2:
        lacks = ", ".join(missing or [f"{_PROB}…"])
        raise DataError(f"{origin or path}: not the predictions of today's `evaluate`: no column {lacks}; `dvc repro evaluate` writes them")
    probs = np.stack([table[f"{_PROB}{label}"].to_numpy() for label in labels], axis=1)
    return predictions(path, table.drop_columns(["predicted", *(f"{_PROB}{label}" for label in labels)]), labels, probs)


def measure(found: Predictions, polarity: Mapping[str, float], params: EvaluateParams) -> dict[str, float]:
    """Every number about the predictions: the headline with its 95 % intervals, each label, and subsets of the rows.

    Accuracy at full agreement is never to be compared with one on all rows.
    """
    headline = found.statistics(polarity, params.calibration_bins)
    content = measured(headline, len(found.actual))
    for name, (low, high) in intervals(headline, found.actual, params.bootstrap_resamples, params.seed).items():
        content |= {f"{name}_low": low, f"{name}_high": high}
    content |= by_label(_confusion(found), found.labels)
    clean = np.array([leak is None for leak in found.table["leak"].to_pylist()])
    if clean.any() and not clean.all():
        matrix = _confusion(found.take(clean))
        content |= {"n_without_leaks": int(clean.sum())}
        content |= {f"{name}_without_leaks": float(OF_CONFUSION[name](matrix)) for name in ("accuracy", "macro_f1")}
    agreed = np.array([agreement == 100 for agreement in found.table["agreement"].to_pylist()])
    if agreed.any():
        right = (found.actual == found.predicted)[agreed]
        content |= {"n_full_agreement": int(agreed.sum()), "accuracy_full_agreement": float(right.mean())}
    return content


def _confusion(found: Predictions) -> Ints:
    return confusion_matrix(found.actual, found.predicted, len(found.labels))
