"""The simple model that a transformer has to beat: TF-IDF over words and word pairs, with logistic regression."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEATURES = 100_000
ROWS = 50_000  # that are learned from, at most: more take minutes, and change little
_SEED = 0


def sampled(n: int) -> NDArray[np.int64]:
    """Numbers of the rows, of ``n``, to learn from."""
    return np.random.default_rng(_SEED).permutation(n)[:ROWS]


def vectorizer(least: int = 2) -> Any:
    """Texts → sparse features of the words and word pairs that stand in so many of them at least."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=least, max_features=FEATURES)


@contextmanager
def regression() -> Iterator[Any]:
    """A logistic regression to fit and ask in the block, on one thread: sums come out alike on any number of cores, and matrices this
    small gain nothing from a second."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield LogisticRegression(C=5.0, tol=1e-3, max_iter=1000)
