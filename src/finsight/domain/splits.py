"""Rules that say which row is for training, for choosing and for testing."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from finsight.errors import DataError


def stratified(corpus: str, hashes: Sequence[str], labels: Sequence[str], validation: float, test: float, seed: int) -> list[str]:
    """A split for each row, every class in the same proportions.

    Rows are ranked by a keyed hash of their content instead of drawn from a random generator: NumPy does not promise
    one stream across versions, and a row keeps its rank when others are added. Equal texts get one split.

    :param corpus: its name, for the message.
    :param hashes: content hash of each row.
    :param validation: share of each class for validation, in (0, 1); ``test`` likewise.
    :raises DataError: when a class has too few distinct texts for one in each split.
    """
    by_class: dict[str, set[str]] = defaultdict(set)
    for content, label in zip(hashes, labels, strict=True):
        by_class[label].add(content)
    assigned: dict[tuple[str, str], str] = {}
    taken: dict[str, str] = {}  # a text with two labels goes where its first class sent it
    for label in sorted(by_class):
        ranked = sorted(by_class[label], key=lambda h: hashlib.sha256(f"{seed}:{h}".encode()).digest())
        n_test = max(1, round(test * len(ranked)))
        n_validation = max(1, round(validation * len(ranked)))
        if len(ranked) <= n_test + n_validation:
            raise DataError(
                f"corpora.{corpus}: label {label!r} has {len(ranked)} distinct text(s), none is left for train beside "
                f"{n_validation} for validation and {n_test} for test; add rows, or drop the label from `labels` in params.yaml"
            )
        for rank, content in enumerate(ranked):
            split = "test" if rank < n_test else "validation" if rank < n_test + n_validation else "train"
            assigned[content, label] = taken.setdefault(content, split)
    return [assigned[pair] for pair in zip(hashes, labels, strict=True)]


def finbert(rows: int) -> list[str]:
    """The split of finBERT's published code, by row of ``Sentences_50Agree.txt``.

    Source: github.com/ProsusAI/finBERT, ``scripts/datasets.py``: scikit-learn's ``train_test_split(…, test_size=0.2,
    random_state=0)``, then ``test_size=0.1, random_state=0`` on what is left. scikit-learn draws one permutation from
    the legacy ``RandomState`` (whose stream NumPy has frozen), takes the test rows from its head and rounds them up.
    """

    def cut(indices: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
        n = int(np.ceil(len(indices) * share))
        order = np.random.RandomState(0).permutation(len(indices))
        return indices[order[n:]], indices[order[:n]]

    rest, test = cut(np.arange(rows), 0.2)
    _, validation = cut(rest, 0.1)
    split = np.full(rows, "train", dtype=object)
    split[test], split[validation] = "test", "validation"
    return list(split)
