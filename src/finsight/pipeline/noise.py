"""Labels that are likely wrong, for a person to look at."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finsight.files import atomic_file
from finsight.pipeline.cells import plain
from finsight.pipeline.linear import regression, vectorizer

HEADER = ("hash", "label", "suggested", "quality", "id", "text")
FOLDS = 5
CHARACTERS = 2000  # of a text that are read: more adds time, hardly evidence


@dataclass(frozen=True)
class Suspects:
    """Rows in the order of ``HEADER``, the most doubtful label first.

    :param examined: rows that were looked at.
    :param skipped: why none was, if so.
    """

    examined: int = 0
    rows: list[tuple[str, str, str, str, str, str]] = field(default_factory=list)
    skipped: str = ""


def find_suspects(table: pa.Table, labels: Sequence[str]) -> Suspects:
    """Rows whose label a simple model, which never saw the row, contradicts with confidence.

    Each row gets its probabilities from a model of the other folds; which of them are label errors is told by confident learning, and
    ``quality`` is the probability that the model gives to the row's own label.

    :param table: ``id``, ``hash``, ``text`` and ``label`` of distinct texts; rows without a known label are left out.
    :source: Northcutt, Jiang and Chuang, Confident Learning, JAIR 2021, as cleanlab implements it.
    """
    rows = [row for row in table.to_pylist() if row["text"] and row["label"] in labels]
    by_label = Counter(row["label"] for row in rows)
    rarest = min(labels, key=lambda label: by_label[label])
    if by_label[rarest] < FOLDS:
        return Suspects(skipped=f"label {rarest!r} has {by_label[rarest]} rows, {FOLDS} are needed")
    codes = np.array([list(labels).index(row["label"]) for row in rows])
    probs = out_of_fold([row["text"][:CHARACTERS] for row in rows], codes, len(labels))
    if probs is None:
        return Suspects(skipped="no two texts have a word in common")

    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    issues = find_label_issues(codes, probs, filter_by="both", n_jobs=1)
    quality = get_label_quality_scores(codes, probs, method="self_confidence")
    found = sorted((round(float(quality[i]), 4), rows[i]["hash"], i) for i in np.flatnonzero(issues))
    return Suspects(
        len(rows),
        [
            (hash_, rows[i]["label"], labels[int(probs[i].argmax())], f"{q:.4f}", plain(rows[i]["id"]), plain(rows[i]["text"]))
            for q, hash_, i in found
        ],
    )


def out_of_fold(texts: Sequence[str], codes: NDArray[np.int64], n_labels: int) -> NDArray[np.float64] | None:
    """Probabilities ``[rows, labels]`` of TF-IDF over words and word pairs with logistic regression, or None where no word recurs."""
    from sklearn.model_selection import StratifiedKFold

    try:
        features = vectorizer().fit_transform(texts)
    except ValueError:  # an empty vocabulary, which it can't say beforehand
        return None
    probs = np.zeros((len(texts), n_labels))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(features, codes)
    with regression() as model:
        for train, held_out in folds:
            probs[held_out] = model.fit(features[train], codes[train]).predict_proba(features[held_out])
    return probs


def write_suspects(path: Path, found: Suspects) -> None:
    """Write ``reports/suspects.csv``; edited labels, saved as ``data/corrections.csv``, are applied by ingest."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(found.rows)
