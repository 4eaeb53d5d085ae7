"""Intervals by simulation, tests against scipy and statsmodels."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from finsight.domain import significance
from finsight.domain.scores import statistics
from finsight.domain.significance import Difference, Sample, differences, holm, intervals, mcnemar, rows_needed


def model(rng: np.random.Generator, actual: np.ndarray, accuracy: float) -> np.ndarray:
    """Probabilities of a model that is right this often, and otherwise takes one of the other labels."""
    right = rng.random(len(actual)) < accuracy
    predicted = np.where(right, actual, (actual + rng.integers(1, 3, len(actual))) % 3)
    return np.eye(3)[predicted] * 0.7 + 0.1


def sample(actual: np.ndarray, resamples: int, seed: int) -> Sample:
    return Sample(actual, np.arange(len(actual)), resamples, seed)


def compared(actual: np.ndarray, ours: np.ndarray, theirs: np.ndarray, names: set[str], resamples: int, seed: int) -> dict[str, Difference]:
    """Two models' differences in the named metrics."""
    sides = ((actual, ours), (actual, theirs), (np.r_[actual, actual], np.vstack([ours, theirs])))
    found = ({n: s for n, s in statistics(*side, 15).items() if n in names} for side in sides)
    return differences(*found, sample(actual, resamples, seed))


def test_draws_keep_the_number_of_each_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "_AT_ONCE", 100)
    actual = np.array([0] * 5 + [2] * 7)
    chunks = list(sample(actual, 20, 1).draws())
    assert [len(chunk) for chunk in chunks] == [8, 8, 4]
    weights = np.concatenate(chunks)
    assert (weights[:, :5].sum(axis=1) == 5).all()
    assert (weights[:, 5:].sum(axis=1) == 7).all()
    assert len(np.unique(weights, axis=0)) > 15


def test_rows_of_one_unit_are_drawn_and_swapped_together() -> None:
    actual, units = np.array([0, 0, 0, 2, 2, 2, 2]), np.array([5, 5, 1, 2, 3, 3, 3])
    drawn = Sample(actual, units, 50, 0)
    for weights in (np.concatenate(list(drawn.draws())), np.concatenate(list(drawn.swaps()))):
        assert (weights[:, 0] == weights[:, 1]).all()
        assert (weights[:, 4] == weights[:, 6]).all()
        assert (weights[:, 0] != weights[:, 2]).any()
    assert set(np.concatenate(list(drawn.swaps())).ravel()) == {0.0, 1.0}


def test_an_interval_equals_resampling_rows() -> None:
    rng = np.random.default_rng(1)
    actual = rng.integers(0, 3, 200)
    probs = model(rng, actual, 0.7)
    low, high = intervals(statistics(actual, probs, 15), sample(actual, 4000, 0))["macro_f1"]
    by_class = [np.flatnonzero(actual == c) for c in range(3)]
    drawn = []
    for _ in range(2000):
        rows = np.concatenate([rng.choice(rows, len(rows)) for rows in by_class])
        drawn.append(sk.f1_score(actual[rows], probs[rows].argmax(axis=1), average="macro"))
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.008)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    actual = np.arange(300) % 3
    truth = dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1"), 0.7) | dict.fromkeys(("kappa", "mcc"), 0.55)
    # A row gets .8 for its label in .7 of the cases, for another label in .15; a wrong answer is 4/3 places away on average.
    truth |= {"auroc": 0.7 * 0.85 + (0.7 * 0.15 + 0.3 * 0.85) / 2, "ordinal_error": 0.3 * 4 / 3}
    truth |= {"nll": -(0.7 * np.log(0.8) + 0.3 * np.log(0.1)), "brier": 0.7 * 0.06 + 0.3 * 1.46}
    covered = dict.fromkeys(truth, 0)
    for i in range(400):
        wanted = {name: s for name, s in statistics(actual, model(rng, actual, 0.7), 15, [-1, 0, 1]).items() if name in truth}
        found = intervals(wanted, sample(actual, 1000, i))
        for name, value in truth.items():
            low, high = found[name]
            covered[name] += low <= value <= high
    for name, count in covered.items():
        assert 0.92 <= count / 400 <= 0.985, (name, count)


def test_the_interval_of_a_calibration_error_covers_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a model that is .1 too sure, on 564 rows; the percentile interval would lie above the truth for the adaptive error."""
    rng = np.random.default_rng(3)
    inside = dict.fromkeys(("ece", "adaptive_ece"), 0)
    for seed in range(100):
        confidence = rng.uniform(0.5, 1.0, 564)
        right = rng.random(564) < confidence - 0.1
        predicted = rng.integers(0, 2, 564)
        actual = np.where(right, predicted, 1 - predicted)
        probs = np.where(np.eye(2)[predicted] > 0, confidence[:, None], 1 - confidence[:, None])
        wanted = {name: s for name, s in statistics(actual, probs, 15).items() if name in inside}
        for name, (low, high) in intervals(wanted, sample(actual, 200, seed)).items():
            inside[name] += low <= 0.1 <= high
    with capsys.disabled():
        print(f"\ncalibration errors: the truth is inside {inside} of 100 intervals")
    assert min(inside.values()) >= 80


@pytest.mark.long
def test_equal_models_are_rarely_called_different_and_a_real_difference_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """1,000 pairs of models that are right equally often, and 300 where one is right three points more often."""
    rng = np.random.default_rng(7)
    actual = rng.integers(0, 3, 970)

    def called_different(first: float, second: float, pairs: int) -> dict[str, float]:
        count = {"accuracy": 0, "macro_f1": 0, "mcnemar": 0}
        for i in range(pairs):
            a, b = model(rng, actual, first), model(rng, actual, second)
            for name, found in compared(actual, a, b, {*count}, 200, i).items():
                count[name] += found.p < 0.05
            right, was = a.argmax(axis=1) == actual, b.argmax(axis=1) == actual
            count["mcnemar"] += mcnemar(int((right & ~was).sum()), int((was & ~right).sum())) < 0.05
        return {name: n / pairs for name, n in count.items()}

    equal, power = called_different(0.85, 0.85, 1000), called_different(0.88, 0.85, 300)
    with capsys.disabled():
        print(f"\n970 rows; called different when equal (.85): {equal}; when .88 against .85 (power): {power}")
    assert all(share <= 0.06 for share in equal.values())
    assert all(share >= 0.35 for share in power.values())


@pytest.mark.long
@pytest.mark.parametrize("moved", [6, 12])
def test_models_that_err_alike_are_rarely_called_different_too(moved: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Two fine-tunes of one backbone: on 970 rows they part on a handful, either being right as often."""
    rng = np.random.default_rng(moved)
    actual = rng.integers(0, 3, 970)
    base = model(rng, actual, 0.85)
    called = 0
    for i in range(1000):
        a, b = base.copy(), base.copy()
        for row in rng.choice(970, moved, replace=False):
            one, other = (a, b) if rng.random() < 0.5 else (b, a)
            one[row], other[row] = np.eye(3)[actual[row]] * 0.7 + 0.1, np.eye(3)[(actual[row] + 1) % 3] * 0.7 + 0.1
        called += compared(actual, a, b, {"macro_f1"}, 200, i)["macro_f1"].p < 0.05
    with capsys.disabled():
        print(f"\n970 rows, equal models that part on {moved}: called different in {called / 1000:.1%} of 1,000 pairs")
    assert called / 1000 <= 0.06


@pytest.mark.parametrize(("fixed", "broken"), [(4, 0), (6, 1), (9, 1), (30, 12)])
def test_the_p_value_of_accuracy_is_that_of_the_exact_test(fixed: int, broken: int) -> None:
    """Exchanging the models' answers leaves the binomial of McNemar's test."""
    actual = np.arange(300) % 3
    right, wrong = np.eye(3)[actual] * 0.7 + 0.1, np.eye(3)[(actual + 1) % 3] * 0.7 + 0.1
    ours, theirs = right.copy(), right.copy()
    theirs[:fixed], ours[fixed : fixed + broken] = wrong[:fixed], wrong[fixed : fixed + broken]
    found = compared(actual, ours, theirs, {"accuracy"}, 20_000, 0)["accuracy"]
    assert found.value == pytest.approx((fixed - broken) / 300)
    assert found.p == pytest.approx(mcnemar(fixed, broken), abs=0.01)


def test_the_same_model_does_not_differ() -> None:
    rng = np.random.default_rng(0)
    actual = rng.integers(0, 3, 100)
    probs = model(rng, actual, 0.8)
    found = compared(actual, probs, probs, {"accuracy", "macro_f1", "mcc", "nll", "brier", "ece", "adaptive_ece", "auroc"}, 200, 0)
    assert len(found) == 8
    for difference in found.values():
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
