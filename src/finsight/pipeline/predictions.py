"""What a model said of the test rows: the table that every number about it is computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finsight.domain.metrics import OF_CONFUSION, Floats, Ints, by_label, confusion_matrix
from finsight.domain.scores import Statistic, measured, statistics
from finsight.domain.significance import Sample, differences, intervals
from finsight.errors import DataError
from finsight.files import atomic_file
from finsight.params.evaluate import EvaluateParams
from finsight.pipeline.slices import slices
from finsight.pipeline.tables import read_table

PRIMARY = "macro_f1"  # what baselines are compared in: they have labels, not probabilities
_NEEDED = ("id", "hash", "corpus", "agreement", "leak", "near_group", "text", "label")
# What a test row has beside what tells it from others: numbers for the model, and its split, which is the same for all.
_LEFT_OUT = {"label_id", "split"}
_PROB, _BASELINE = "prob_", "baseline_"


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

    def beside(self, answers: Mapping[str, Sequence[str]]) -> Predictions:
        """The same with the labels that baselines gave to the rows, by the baseline's name."""
        table = self.table
        for name, labels in answers.items():
            table = table.append_column(f"{_BASELINE}{name}", pa.array(labels, pa.string()))
        return replace(self, table=table)

    def baselines(self) -> dict[str, Predictions]:
        """What each baseline answered, with all probability on its answer."""
        number = {label: i for i, label in enumerate(self.labels)}
        names = [name for name in self.table.column_names if name.startswith(_BASELINE)]
        answers = {name: [number[label] for label in self.table[name].to_pylist()] for name in names}
        return {n.removeprefix(_BASELINE): replace(self, probs=np.eye(len(self.labels))[given]) for n, given in answers.items()}

    def counts(self) -> Ints:
        """The confusion matrix (k, k)."""
        return confusion_matrix(self.actual, self.predicted, len(self.labels))

    def sample(self, params: EvaluateParams) -> Sample:
        """The rows, and how they are drawn again."""
        units = np.unique(np.array(self.table["near_group"].to_pylist(), dtype=str), return_inverse=True)[1]
        return Sample(self.actual, units, params.bootstrap_resamples, params.seed)

    def statistics(self, polarity: Mapping[str, float], bins: int) -> dict[str, Statistic]:
        """The headline metrics, as functions of the rows' weights.

        :raises DataError: when ``polarity`` is of other labels.
        """
        if polarity and set(polarity) != set(self.labels):
            raise DataError(
                f"the predictions have the labels {list(self.labels)}, params.yaml has {list(polarity)}; `dvc repro` brings them together"
            )
        return statistics(self.actual, self.probs, bins, [polarity[label] for label in self.labels] if polarity else ())

    def pooled(self, other: Predictions) -> Predictions:
        """These rows, then those of ``other``; without what stands beside them."""
        return Predictions(self.labels, self.table.slice(0, 0), np.r_[self.actual, other.actual], np.vstack([self.probs, other.probs]))


def predictions(origin: Path | str, table: pa.Table, labels: Sequence[str], probs: Floats) -> Predictions:
    """Put what a model said beside the rows it was asked about.

    :param origin: where ``table`` is from, for errors.
    :raises DataError: when a row's label is not one of the model's.
    """
    names = table["label"].to_pylist()
    if unknown := sorted(set(names) - set(labels)):
        raise DataError(
            f"{origin}: labels {unknown} are unknown to the model, which has {list(labels)}; run `dvc repro`, so that both agree"
        )
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
    origin = origin or str(path)
    labels = [name.removeprefix(_PROB) for name in table.column_names if name.startswith(_PROB)]
    missing = sorted({*_NEEDED, "predicted"} - {*table.column_names})
    if missing or len(labels) < 2:
        lacks = ", ".join(missing or [f"{_PROB}…"])
        raise DataError(f"{origin}: not the predictions of today's `evaluate`: no column {lacks}; `dvc repro evaluate` writes them")
    probs = np.stack([table[f"{_PROB}{label}"].to_numpy() for label in labels], axis=1)
    return predictions(origin, table.drop_columns(["predicted", *(f"{_PROB}{label}" for label in labels)]), labels, probs)


def measure(found: Predictions, polarity: Mapping[str, float], params: EvaluateParams) -> dict[str, Any]:
    """Every number about the predictions: the headline with its 95 % intervals, each label, and subsets of the rows.

    Accuracy at full agreement is never to be compared with one on all rows.
    """
    headline = found.statistics(polarity, params.calibration_bins)
    content: dict[str, Any] = measured(headline, len(found.actual))
    for name, (low, high) in intervals(headline, found.sample(params)).items():
        content |= {f"{name}_low": low, f"{name}_high": high}
    content |= by_label(found.counts(), found.labels)
    clean = np.array([leak is None for leak in found.table["leak"].to_pylist()])
    if clean.any():
        matrix = found.take(clean).counts()
        content |= {"n_without_leaks": int(clean.sum())}
        content |= {f"{name}_without_leaks": float(OF_CONFUSION[name](matrix)) for name in ("accuracy", "macro_f1")}
    agreed = np.array([agreement == 100 for agreement in found.table["agreement"].to_pylist()])
    if agreed.any():
        right = (found.actual == found.predicted)[agreed]
        content |= {"n_full_agreement": int(agreed.sum()), "accuracy_full_agreement": float(right.mean())}
    return content | {"baselines": {name: _against(found, other, params) for name, other in found.baselines().items()}}


def by_slice(found: Predictions, params: EvaluateParams) -> dict[str, dict[str, Any]]:
    """Rows, accuracy, macro-F1 and what is taken for what in each slice; ``few`` marks one whose numbers say little."""
    content: dict[str, dict[str, Any]] = {}
    for name, mask in slices(found.table, params.slices).items():
        matrix, n = found.take(mask).counts(), int(mask.sum())
        wrong = {f"{found.labels[i]} as {found.labels[j]}": int(rows) for (i, j), rows in np.ndenumerate(matrix) if i != j and rows}
        content[name] = {"rows": n, "few": n < params.min_slice_rows}
        content[name] |= {m: float(OF_CONFUSION[m](matrix)) for m in ("accuracy", "macro_f1")}
        content[name]["confused"] = dict(sorted(wrong.items(), key=lambda pair: -pair[1]))
    return content


def _against(found: Predictions, baseline: Predictions, params: EvaluateParams) -> dict[str, float]:
    """A baseline's metrics, and how much more macro-F1 the model has, with its 95 % interval and p-value."""
    sides = (found, baseline, found.pooled(baseline))
    ours, theirs, pooled = ({n: s for n, s in side.statistics({}, 1).items() if n in (PRIMARY, "accuracy")} for side in sides)
    more = differences(ours, theirs, pooled, found.sample(params))[PRIMARY]
    return measured(theirs, len(found.actual)) | {"model_has_more": more.value, "low": more.low, "high": more.high, "p": more.p}
