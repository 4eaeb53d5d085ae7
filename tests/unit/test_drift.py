"""Drift against numbers worked out by hand and by SciPy."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from finsight.domain.drift import index_drift, jensen_shannon_distance, population_stability_index, word_drift


def test_the_index_is_the_one_worked_out_by_hand() -> None:
    # With half a row in each bin: (50.5, 50.5) / 101 and (80.5, 20.5) / 101.
    expected = (80.5 - 50.5) / 101 * math.log(80.5 / 50.5) + (20.5 - 50.5) / 101 * math.log(20.5 / 50.5)
    assert population_stability_index([50, 50], [80, 20]) == pytest.approx(expected)
    assert expected == pytest.approx(0.4063, abs=1e-4)


def test_an_empty_bin_gives_a_finite_index() -> None:
    assert 0 < population_stability_index([100, 0], [90, 10]) < 1
    assert population_stability_index([30, 50, 20], [30, 50, 20]) == 0


def test_the_distance_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        before, after = rng.integers(0, 50, 40), rng.integers(0, 50, 40)
        expected = jensenshannon(before, after, base=2)
        assert jensen_shannon_distance(before.tolist(), after.tolist()) == pytest.approx(expected)


def test_the_distance_goes_from_0_to_1() -> None:
    assert jensen_shannon_distance([1, 3], [2, 6]) == pytest.approx(0, abs=1e-7)
    assert jensen_shannon_distance([5, 0], [0, 7]) == pytest.approx(1)
    # Half of one bin against all of it, by hand: sqrt of 1.5 - 0.75 log2(3).
    assert jensen_shannon_distance([1, 1], [2, 0]) == pytest.approx(math.sqrt((0.5 + math.log2(4 / 3) - 0.5 * math.log2(3) + 0.5) / 2))
    assert jensen_shannon_distance([0, 0], [1, 0]) == 1
    assert jensen_shannon_distance([0, 0], [0, 0]) == 0


def test_two_samples_of_one_population_do_not_drift() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(200))
    plain, corrected, indices = [], [], []
    for _ in range(40):
        before, after = rng.multinomial(20_000, shares).tolist(), rng.multinomial(10_000, shares).tolist()
        plain.append(jensen_shannon_distance(before, after))
        corrected.append(word_drift(before, after))
        indices.append(index_drift(before[:10], after[:10]))
    assert min(plain) > 0.05
    assert sum(d > 0 for d in corrected) <= 4
    assert sum(d > 0 for d in indices) <= 4


def test_what_chance_adds_is_taken_off_a_real_shift_too() -> None:
    plain = population_stability_index([500, 500], [800, 200])
    assert index_drift([500, 500], [800, 200]) == pytest.approx(plain - (1 + 2 * math.sqrt(2)) * (1 / 1000 + 1 / 1000))
    assert index_drift([0, 0], [0, 0]) == 0
