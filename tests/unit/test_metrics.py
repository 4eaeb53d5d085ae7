"""Metrics against scikit-learn on random cases, and by hand at the edges."""

import numpy as np
import pytest
from sklearn import metrics as sk

from finsight.domain import metrics
from finsight.domain.calibration import ece, reliability
from finsight.domain.significance import bootstrap_interval


def random_case(seed: int, n: int = 200, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, k, n), metrics.softmax(rng.normal(size=(n, k)) * 2)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("k", [2, 3, 5])
def test_headline_equals_scikit_learn(seed: int, k: int) -> None:
    actual, probs = random_case(seed, k=k)
    predicted = probs.argmax(axis=1)
    labels = [f"l{i}" for i in range(k)]
    got = metrics.headline(actual, probs, labels)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(actual, predicted, labels=range(k), zero_division=0)
    expected = {
        "accuracy": sk.accuracy_score(actual, predicted),
        "macro_f1": sk.f1_score(actual, predicted, average="macro"),
        "mcc": sk.matthews_corrcoef(actual, predicted),
        "nll": sk.log_loss(actual, probs, labels=range(k)),
        "n": 200,
    }
    for i, label in enumerate(labels):
        expected |= {f"precision_{label}": precision[i], f"recall_{label}": recall[i], f"f1_{label}": f1[i]}
    assert got == pytest.approx(expected)


def test_a_class_that_never_occurs_is_left_out_of_macro_f1_as_scikit_learn_does() -> None:
    actual, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    matrix = metrics.confusion_matrix(actual, predicted, 3)
    assert float(metrics.macro_f1(matrix)) == pytest.approx(sk.f1_score(actual, predicted, average="macro"))


def test_mcc_of_a_constant_prediction_is_zero() -> None:
    assert metrics.mcc(metrics.confusion_matrix(np.array([0, 1, 2]), np.array([1, 1, 1]), 3)) == 0.0


def test_softmax_does_not_overflow() -> None:
    assert metrics.softmax(np.array([[1e4, 0.0], [-1e4, 0.0]], dtype=np.float32)).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_nll_of_a_certain_mistake_is_finite() -> None:
    assert metrics.nll(np.array([0]), np.array([[0.0, 1.0]])) == pytest.approx(-np.log(1e-15))


def test_ece_by_hand() -> None:
    # Four rows at confidence .8, three right: gap .05. One row at .55, wrong: gap .55. ECE = (4 * .05 + .55) / 5.
    probs = np.array([[0.8, 0.2]] * 4 + [[0.55, 0.45]])
    actual = np.array([0, 0, 0, 1, 1])
    assert ece(actual, probs, 10) == pytest.approx((4 * 0.05 + 0.55) / 5)
    assert [(b.n, round(b.accuracy, 2)) for b in reliability(actual, probs, 10)] == [(1, 0.0), (4, 0.75)]


def test_a_confidence_of_one_falls_into_the_last_bin() -> None:
    assert ece(np.array([0, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]), 15) == 0.0


def test_interval_equals_resampling_rows() -> None:
    actual, probs = random_case(1)
    predicted = probs.argmax(axis=1)
    low, high = bootstrap_interval(metrics.macro_f1, metrics.confusion_matrix(actual, predicted, 3), 4000, seed=0)
    rng = np.random.default_rng(5)
    by_class = [np.flatnonzero(actual == c) for c in range(3)]
    drawn = []
    for _ in range(2000):
        rows = np.concatenate([rng.choice(rows, len(rows)) for rows in by_class])
        drawn.append(sk.f1_score(actual[rows], predicted[rows], average="macro"))
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.008)


def test_interval_covers_the_true_accuracy_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for i in range(300):
        hits = rng.random((3, 100)) < 0.7  # true accuracy .7 in each class
        matrix = np.array([[h.sum() if r == c else (100 - h.sum()) * (c == (r + 1) % 3) for c in range(3)] for r, h in enumerate(hits)])
        low, high = bootstrap_interval(metrics.accuracy, matrix, 1000, seed=i)
        covered += low <= 0.7 <= high
    assert 0.91 <= covered / 300 <= 0.985
