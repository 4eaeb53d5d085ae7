"""Metrics against scikit-learn on random cases, and by hand at the edges."""

import numpy as np
import pytest
from scipy.stats import binned_statistic
from sklearn import metrics as sk

from finsight.domain import metrics
from finsight.domain.scores import equal_mass, measured, statistics


def random_case(seed: int, n: int = 200, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, k, n), metrics.softmax(rng.normal(size=(n, k)) * 2)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_headline_equals_scikit_learn(seed: int, k: int) -> None:
    actual, probs = random_case(seed, k=k)
    predicted = probs.argmax(axis=1)
    auroc = sk.roc_auc_score(actual, probs[:, 1]) if k == 2 else sk.roc_auc_score(actual, probs, multi_class="ovr")
    expected = {
        "accuracy": sk.accuracy_score(actual, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(actual, predicted),
        "macro_f1": sk.f1_score(actual, predicted, average="macro"),
        "weighted_f1": sk.f1_score(actual, predicted, average="weighted"),
        "mcc": sk.matthews_corrcoef(actual, predicted),
        "kappa": sk.cohen_kappa_score(actual, predicted),
        "nll": sk.log_loss(actual, probs, labels=range(k)),
        "brier": sk.brier_score_loss(np.eye(k)[actual][:, 1], probs[:, 1]) * 2 if k == 2 else sk.brier_score_loss(actual, probs),
        "auroc": auroc,
    }
    got = measured(statistics(actual, probs, 15), len(actual))
    assert {name: got[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("k", [2, 3, 5])
def test_each_label_equals_scikit_learn(seed: int, k: int) -> None:
    actual, probs = random_case(seed, k=k)
    predicted = probs.argmax(axis=1)
    labels = [f"l{i}" for i in range(k)]
    precision, recall, f1, _ = sk.precision_recall_fscore_support(actual, predicted, labels=range(k), zero_division=0)
    expected: dict[str, float] = {"n": 200}
    for i, label in enumerate(labels):
        expected |= {f"precision_{label}": precision[i], f"recall_{label}": recall[i], f"f1_{label}": f1[i]}
    for average in ("macro", "weighted"):
        expected[f"{average}_precision"] = sk.precision_score(actual, predicted, average=average, zero_division=0)
        expected[f"{average}_recall"] = sk.recall_score(actual, predicted, average=average, zero_division=0)
    assert metrics.by_label(metrics.confusion_matrix(actual, predicted, k), labels) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_weights_are_how_often_a_row_counts(seed: int) -> None:
    actual, probs = random_case(seed)
    probs = probs.round(2) + 1e-3  # so that some are equal
    weights = np.random.default_rng(seed).integers(0, 4, size=(7, 200)).astype(float)
    found = statistics(actual, probs, 15, polarity=[-1, 0, 1])
    for row, *values in zip(weights, *(found[name](weights) for name in found), strict=True):
        rows = np.repeat(np.arange(200), row.astype(int))
        repeated = statistics(actual[rows], probs[rows], 15, polarity=[-1, 0, 1])
        for name, value in zip(found, values, strict=True):
            if name != "adaptive_ece":  # whose bins follow from the rows, and stay in a resample
                assert value == pytest.approx(repeated[name](np.ones((1, len(rows))))[0]), name


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("k", [2, 3, 5])
def test_errors_that_scikit_learn_has_no_name_for_equal_what_they_are_made_of(seed: int, k: int) -> None:
    """Ordinal error is the mean absolute error of the places; both calibration errors are sums over scipy's bins."""
    actual, probs = random_case(seed, k=k)
    place = np.random.default_rng(seed).normal(size=k)
    predicted, confidence = probs.argmax(axis=1), probs.max(axis=1)
    gap = confidence - (predicted == actual)
    equal_width = binned_statistic(confidence, gap, "sum", bins=np.linspace(0, 1, 16)).statistic
    equal_rows = binned_statistic(confidence, gap, "sum", bins=np.r_[np.sort(confidence)[::20], 1.1]).statistic  # 10 bins of 20
    got, of_ten = (measured(statistics(actual, probs, bins, place), len(actual)) for bins in (15, 10))
    assert got["ordinal_error"] == pytest.approx(sk.mean_absolute_error(place[actual], place[predicted]))
    assert got["ece"] == pytest.approx(np.abs(equal_width).sum() / 200)
    assert of_ten["adaptive_ece"] == pytest.approx(np.abs(equal_rows).sum() / 200)


def test_an_opposite_flip_counts_twice() -> None:
    actual, predicted = np.array([0, 0, 1, 2]), np.array([2, 1, 1, 2])
    assert measured(statistics(actual, np.eye(3)[predicted], 15, [-1.0, 0.0, 1.0]), 4)["ordinal_error"] == pytest.approx((2 + 1) / 4)


def test_a_class_that_never_occurs_is_left_out_as_scikit_learn_does() -> None:
    actual, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    matrix = metrics.confusion_matrix(actual, predicted, 3)
    assert float(metrics.macro_f1(matrix)) == pytest.approx(sk.f1_score(actual, predicted, average="macro"))
    assert float(metrics.balanced_accuracy(matrix)) == pytest.approx(sk.balanced_accuracy_score(actual, predicted))
    assert metrics.by_label(matrix, list("abc"))["macro_recall"] == pytest.approx(0.75)


def test_what_is_not_defined_is_left_out() -> None:
    got = measured(statistics(np.zeros(4, dtype=np.int64), np.full((4, 2), 0.5), 15), 4)
    assert "auroc" not in got
    assert (got["mcc"], got["kappa"], got["accuracy"]) == (0.0, 0.0, 1.0)


def test_softmax_does_not_overflow() -> None:
    assert metrics.softmax(np.array([[1e4, 0.0], [-1e4, 0.0]], dtype=np.float32)).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_nll_of_a_certain_mistake_is_finite() -> None:
    assert metrics.nll(np.array([0]), np.array([[0.0, 1.0]])) == pytest.approx(-np.log(1e-15))


def test_bins_of_equal_mass_keep_equal_confidences_together() -> None:
    assert equal_mass(np.array([0.9, 0.5, 0.6, 0.8, 0.7, 0.55]), 3).tolist() == [2, 0, 1, 2, 1, 0]
    assert equal_mass(np.array([0.5, 0.5, 0.5, 0.9]), 2).tolist() == [0, 0, 0, 1]
