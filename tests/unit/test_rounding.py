"""Rounding that minds what a layer gets."""

import numpy as np
import pytest

from finsight.modeling.rounding import round_weights


def inputs(n: int, k: int) -> np.ndarray:
    """Inputs that go together, as those of a trained layer do, some far larger than others."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, k // 4)) @ rng.normal(size=(k // 4, k)) * rng.lognormal(sigma=1.0, size=k)


@pytest.mark.parametrize("largest", [7, 63])
def test_outputs_change_less_than_by_rounding_each_weight_alone(largest: int) -> None:
    x, w = inputs(2000, 160), np.random.default_rng(1).normal(size=(160, 24)).astype(np.float32)
    integers, scale = round_weights(w, x.T @ x, largest)
    assert integers.dtype == np.int8
    assert np.abs(integers).max() <= largest
    np.testing.assert_allclose(scale, np.abs(w).max(axis=0) / largest, rtol=1e-6)
    alone = np.clip(np.rint(w / scale), -largest, largest) * scale
    ours, plain = (float(((x @ found - x @ w) ** 2).mean()) for found in (integers * scale, alone))
    assert ours < 0.5 * plain


def test_inputs_that_have_nothing_to_do_with_each_other_leave_plain_rounding() -> None:
    w = np.random.default_rng(2).normal(size=(40, 8)).astype(np.float32)
    integers, scale = round_weights(w, np.eye(40) * 9.0, 63)
    np.testing.assert_array_equal(integers, np.rint(w / scale))


def test_weights_that_can_be_kept_are_kept_in_their_places() -> None:
    w = np.random.default_rng(3).integers(-63, 64, size=(200, 5)).astype(np.float32)
    w[0] = 63
    x = inputs(500, 200)
    integers, scale = round_weights(w, x.T @ x, 63)
    np.testing.assert_array_equal(integers, w)
    np.testing.assert_array_equal(scale, np.ones(5))


def test_a_layer_that_gets_nothing_and_a_column_of_zeros_are_no_matter() -> None:
    w = np.array([[0.5, 0.0], [-1.0, 0.0]], dtype=np.float32)
    integers, scale = round_weights(w, np.zeros((2, 2)), 63)
    np.testing.assert_array_equal(integers[:, 1], [0, 0])
    np.testing.assert_allclose(integers[:, 0] * scale[0], w[:, 0], atol=0.5 * scale[0])
