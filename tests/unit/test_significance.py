"""Intervals by simulation, tests against scipy and statsmodels."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from finsight.domain import significance
from finsight.domain.scores import statistics
from finsight.domain.significance import Difference, differences, draws, holm, intervals, mcnemar, rows_needed


def model(rng: np.random.Generator, actual: np.ndarray, accuracy: float) -> np.ndarray:
    """Probabilities of a model that is right this often, and otherwise takes one of the other labels."""
    right = rng.random(len(actual)) < accuracy
    predicted = np.where(right, actual, (actual + rng.integers(1, 3, len(actual))) % 3)
    return np.eye(3)[predicted] * 0.7 + 0.1


def test_draws_keep_the_number_of_each_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "_AT_ONCE", 100)
    actual = np.array([0] * 5 + [2] * 7)
    chunks = list(draws(actual, 20, seed=1))
    assert [len(chunk) for chunk in chunks] == [8, 8, 4]
    weights = np.concatenate(chunks)
    assert (weights[:, :5].sum(axis=1) == 5).all()
    assert (weights[:, 5:].sum(axis=1) == 7).all()
    assert len(np.unique(weights, axis=0)) > 15


def test_an_interval_equals_resampling_rows() -> None:
    rng = np.random.default_rng(1)
    actual = rng.integers(0, 3, 200)
    probs = model(rng, actual, 0.7)
    low, high = intervals(statistics(actual, probs, 15), actual, 4000, seed=0)["macro_f1"]
    by_class = [np.flatnonzero(actual == c) for c in range(3)]
    drawn = []
    for _ in range(2000):
        rows = np.concatenate([rng.choice(rows, len(rows)) for rows in by_class])
        drawn.append(sk.f1_score(actual[rows], probs[rows].argmax(axis=1), average="macro"))
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.008)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    actual = np.arange(300) % 3
    truth = {"accuracy": 0.7, "macro_f1": 0.7, "nll": -(0.7 * np.log(0.8) + 0.3 * np.log(0.1)), "brier": 0.7 * 0.06 + 0.3 * 1.46}
    covered = dict.fromkeys(truth, 0)
    for i in range(400):
        wanted = {name: s for name, s in statistics(actual, model(rng, actual, 0.7), 15).items() if name in truth}
        found = intervals(wanted, actual, 1000, seed=i)
        for name, value in truth.items():
            low, high = found[name]
            covered[name] += low <= value <= high
    for name, count in covered.items():
        assert 0.92 <= count / 400 <= 0.985, name


def test_equal_models_are_rarely_called_different_and_a_real_difference_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """1,000 pairs of models that are right equally often, and 300 where one is right three points more often."""
    rng = np.random.default_rng(7)
    actual = rng.integers(0, 3, 970)

    def called_different(first: float, second: float, pairs: int) -> dict[str, float]:
        count = {"accuracy": 0, "macro_f1": 0, "mcnemar": 0}
        for i in range(pairs):
            a, b = model(rng, actual, first), model(rng, actual, second)
            ours, theirs = ({n: s for n, s in statistics(actual, x, 15).items() if n in count} for x in (a, b))
            for name, found in differences(ours, theirs, actual, 200, seed=i).items():
                count[name] += found.p < 0.05
            right, was = a.argmax(axis=1) == actual, b.argmax(axis=1) == actual
            count["mcnemar"] += mcnemar(int((right & ~was).sum()), int((was & ~right).sum())) < 0.05
        return {name: n / pairs for name, n in count.items()}

    equal, power = called_different(0.85, 0.85, 1000), called_different(0.88, 0.85, 300)
    with capsys.disabled():
        print(f"\n970 rows; called different when equal (.85): {equal}; when .88 against .85 (power): {power}")
    assert all(share <= 0.06 for share in equal.values())
    assert all(share >= 0.35 for share in power.values())


def test_the_same_model_does_not_differ() -> None:
    rng = np.random.default_rng(0)
    actual = rng.integers(0, 3, 100)
    found = statistics(actual, model(rng, actual, 0.8), 15)
    for difference in differences(found, found, actual, 200, seed=0).values():
        assert (difference.value, difference.low, difference.high, difference.p) == (0, 0, 0, 1)
        assert rows_needed(difference, 100) is None


@pytest.mark.parametrize(("fixed", "broken"), [(0, 0), (0, 1), (3, 3), (5, 14), (40, 12), (300, 360), (2000, 1900)])
def test_mcnemar_equals_scipy_and_statsmodels(fixed: int, broken: int) -> None:
    expected = stats.binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    assert mcnemar(fixed, broken) == pytest.approx(expected, rel=1e-6)
    assert mcnemar(broken, fixed) == mcnemar(fixed, broken)
    if fixed + broken:
        assert mcnemar(fixed, broken) == pytest.approx(reference_mcnemar([[10, fixed], [broken, 10]], exact=True).pvalue, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_holm_equals_statsmodels(seed: int) -> None:
    ps = {f"m{i}": float(p) for i, p in enumerate(np.random.default_rng(seed).random(9) ** 3)}
    assert list(holm(ps).values()) == pytest.approx(multipletests(list(ps.values()), method="holm")[1])
    assert holm({}) == {}


def test_rows_needed_give_the_power_that_they_promise() -> None:
    # A z-test on a mean: error .1 on 100 rows, a difference of .05 is half an error; normal theory asks for 100 * (2.8 / .5)^2.
    difference = Difference(0.05, -0.1, 0.2, 0.6, 0.1)
    n = rows_needed(difference, 100)
    assert n == pytest.approx(100 * ((1.959964 + 0.841621) * 2) ** 2, abs=1)
    assert n is not None
    assert 1 - stats.norm.cdf(1.959964 - 0.05 / (0.1 * (100 / n) ** 0.5)) == pytest.approx(0.8, abs=0.001)
