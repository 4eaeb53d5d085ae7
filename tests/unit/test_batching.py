"""Batches by token budget."""

import numpy as np
import pytest

from finsight.modeling.batching import batches, collate

LENGTHS = np.random.default_rng(0).integers(3, 60, 2500)


@pytest.mark.parametrize("rng", [None, 7])
def test_every_row_comes_once_and_no_batch_is_over_budget(rng: int | None) -> None:
    found = batches(LENGTHS, 512, None if rng is None else np.random.default_rng(rng))
    assert sorted(np.concatenate(found)) == list(range(len(LENGTHS)))
    assert all(len(rows) * LENGTHS[rows].max() <= 512 for rows in found)


def test_little_padding_is_left() -> None:
    found = batches(LENGTHS, 1024, np.random.default_rng(1))
    padded = sum(len(rows) * LENGTHS[rows].max() for rows in found)
    assert LENGTHS.sum() / padded > 0.93


def test_a_seed_is_an_order() -> None:
    def order(seed: int) -> list[int]:
        return list(np.concatenate(batches(LENGTHS, 512, np.random.default_rng(seed))))

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_a_row_longer_than_the_budget_stands_alone() -> None:
    assert [list(rows) for rows in batches(np.array([5, 100, 5]), 10)] == [[1], [0, 2]]


def test_no_rows_no_batches() -> None:
    assert batches(np.array([], dtype=np.int64), 10) == []
    assert batches(np.array([], dtype=np.int64), 10, np.random.default_rng(0)) == []


def test_padding_is_on_the_right_and_masked() -> None:
    tokens, mask = collate([np.array([1, 2, 3], dtype=np.int32), np.array([4], dtype=np.int32)], pad_id=9)
    assert tokens.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
