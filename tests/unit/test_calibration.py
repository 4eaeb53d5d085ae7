"""Calibration of models whose miscalibration is known."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from finsight.domain.calibration import abstain_below, reliability, risk_coverage, temperature
from finsight.domain.metrics import softmax
from finsight.domain.scores import measured, statistics


def too_sure(by: float, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from a model's true probabilities, and its logits times a factor."""
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(n, 3)) * 1.5
    actual = (softmax(logits).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return actual, logits * by


@pytest.mark.parametrize("by", [0.4, 1.0, 2.5, 6.0])
def test_the_temperature_undoes_what_was_done(by: float) -> None:
    actual, logits = too_sure(by)
    found = temperature(actual, logits)
    assert found == pytest.approx(by, rel=0.04)
    before, after = (measured(statistics(actual, softmax(logits / t), 15), len(actual)) for t in (1.0, found))
    assert after["ece"] < 0.01
    assert after["adaptive_ece"] < 0.01
    assert after["nll"] <= before["nll"]
    assert after["accuracy"] == before["accuracy"]
    if by != 1.0:
        assert before["ece"] > 0.05


@pytest.mark.parametrize("margin", [2.0, 6.0, 8.0, 12.0, 15.0, 40.0])
def test_a_model_that_is_sure_and_wrong_is_cooled_as_far_as_a_grid_says(margin: float) -> None:
    """88 % right, and as sure of the rest."""
    rng = np.random.default_rng(5)
    actual = rng.integers(0, 3, 300)
    said = np.where(rng.random(300) < 0.88, actual, (actual + 1) % 3)
    logits = np.eye(3)[said] * margin + rng.normal(size=(300, 3))
    grid = np.geomspace(0.05, 20, 400)
    best = grid[np.argmin([log_loss(actual, softmax(logits / t), labels=[0, 1, 2]) for t in grid])]
    assert temperature(actual, logits) == pytest.approx(best, rel=0.015)


def test_the_limits_of_a_temperature() -> None:
    actual = np.array([0, 1, 2] * 10)
    assert temperature(actual, np.eye(3)[actual]) == 1.0, "all right: no reason to be surer"
    assert temperature(actual, np.eye(3)[(actual + 1) % 3]) == pytest.approx(20.0, rel=0.01), "all wrong: as unsure as can be"


def test_ece_by_hand() -> None:
    # Four rows at confidence .8, three right: gap .05. One row at .55, wrong: gap .55. ECE = (4 * .05 + .55) / 5.
    probs = np.array([[0.8, 0.2]] * 4 + [[0.55, 0.45]])
    actual = np.array([0, 0, 0, 1, 1])
    assert measured(statistics(actual, probs, 10), 5)["ece"] == pytest.approx((4 * 0.05 + 0.55) / 5)
    assert [(b.n, round(b.accuracy, 2)) for b in reliability(actual, probs, 10)] == [(1, 0.0), (4, 0.75)]


def test_a_confidence_of_one_falls_into_the_last_bin() -> None:
    assert measured(statistics(np.array([0, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]), 15), 2)["ece"] == 0.0


def test_abstaining_below_a_threshold_gives_the_wanted_precision() -> None:
    confidence = np.array([0.95, 0.9, 0.8, 0.8, 0.7, 0.6])
    probs = np.stack([confidence, 1 - confidence], axis=1)
    actual = np.array([0, 0, 0, 1, 0, 1])
    curve = risk_coverage(actual, probs)
    assert [(p.threshold, round(p.coverage, 2), round(p.accuracy, 2)) for p in curve] == [
        (0.95, 0.17, 1.0),
        (0.9, 0.33, 1.0),
        (0.8, 0.67, 0.75),  # the two at .8 come together
        (0.7, 0.83, 0.8),
        (0.6, 1.0, 0.67),
    ]
    assert abstain_below(curve, 1.0, 0.5) is None, "the surest two are right, which is luck"
    found = abstain_below(curve, 0.8, 0.0)
    assert found is not None
    assert (found.threshold, found.accuracy) == (0.7, 0.8)
    assert abstain_below(risk_coverage(np.array([1, 1]), np.array([[0.9, 0.1], [0.8, 0.2]])), 0.5, 0.0) is None
