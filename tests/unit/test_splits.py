"""Split rules, against scikit-learn and by their properties."""

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from finsight.domain.records import content_hash
from finsight.domain.splits import TEST, TRAIN, VALIDATION, Units, by_date, finbert, kfold, stratified
from finsight.errors import DataError

HASHES = [content_hash(str(i)) for i in range(1000)]
LABELS = ["a", "b", "c"]


def units(labels: Sequence[int], sizes: Sequence[int] | None = None, keys: Sequence[str] | None = None) -> Units:
    n = len(labels)
    return Units(keys or HASHES[:n], np.array(labels), np.array(sizes or [1] * n))


THREE = units([0] * 600 + [1] * 300 + [2] * 100)


@pytest.mark.parametrize("rows", [10, 101, 4846])
def test_finbert_is_the_split_of_its_published_code(rows: int) -> None:
    train, test = train_test_split(np.arange(rows), test_size=0.2, random_state=0)
    train, validation = train_test_split(train, test_size=0.1, random_state=0)
    got = finbert(rows)
    for name, expected in (("train", train), ("validation", validation), ("test", test)):
        assert [i for i, split in enumerate(got) if split == name] == sorted(expected)


def test_finbert_equals_the_rows_listed_with_the_official_files(phrasebank) -> None:
    import csv

    with (phrasebank / "finbert_split.csv").open() as file:
        listed = [row["split"] for row in csv.DictReader(file)]
    assert finbert(4846) == listed


def test_each_label_has_its_share_of_each_split() -> None:
    splits = stratified(THREE, LABELS, validation=0.1, test=0.2, seed=1)
    for label, n in enumerate((600, 300, 100)):
        mine = splits[THREE.strata == label]
        assert ((mine == TEST).sum(), (mine == VALIDATION).sum()) == (n // 5, n // 10)


def test_the_seed_decides_and_the_order_of_units_does_not() -> None:
    forward = dict(zip(THREE.keys, stratified(THREE, LABELS, 0.1, 0.2, seed=1), strict=True))
    back = THREE.take(np.arange(1000)[::-1])
    backward = dict(zip(back.keys, stratified(back, LABELS, 0.1, 0.2, seed=1), strict=True))
    other = dict(zip(THREE.keys, stratified(THREE, LABELS, 0.1, 0.2, seed=2), strict=True))
    assert forward == backward
    assert forward != other


def test_a_text_keeps_its_rank_when_others_come() -> None:
    few = THREE.take(np.flatnonzero(THREE.strata == 0)[:500])
    splits = dict(zip(few.keys, stratified(few, LABELS, 0.1, 0.2, seed=1), strict=True))
    more = dict(zip(THREE.keys, stratified(THREE, LABELS, 0.1, 0.2, seed=1), strict=True))
    tests = [key for key, split in splits.items() if split == TEST]
    assert np.mean([more[key] == TEST for key in tests]) > 0.9


def test_a_large_unit_never_fills_a_small_split() -> None:
    sizes = [1] * 99 + [60]
    for seed in range(20):
        splits = stratified(units([0] * 100, sizes), ["a"], 0.1, 0.2, seed)
        assert splits[99] == TRAIN
        big = stratified(units([0] * 100, [1] * 99 + [5]), ["a"], 0.1, 0.2, seed)
        rows = np.array([1] * 99 + [5])
        assert rows[big == TEST].sum() == round(0.2 * 104)


def test_three_texts_are_the_least_a_label_can_be_split_with() -> None:
    assert sorted(stratified(units([0] * 3), ["a"], 0.1, 0.2, seed=0)) == [TRAIN, VALIDATION, TEST]
    assert sorted(stratified(units([0] * 3), ["a"], 0.1, 0.0, seed=0)) == [TRAIN, TRAIN, VALIDATION]
    assert sorted(stratified(units([0] * 3, [9, 9, 9]), ["a"], 0.1, 0.2, seed=0)) == [TRAIN, VALIDATION, TEST]
    with pytest.raises(DataError, match=r"has 20 distinct text\(s\) in 1 group"):
        stratified(units([0], [20]), ["a"], 0.1, 0.2, seed=0)
    with pytest.raises(DataError, match="has 4 distinct"):
        stratified(units([0] * 4), ["a"], 0.45, 0.5, seed=0)
    with pytest.raises(DataError, match=r"corpora\.c: label 'a' has 2 distinct text\(s\) in 2 group\(s\), too few for train beside 1 for"):
        stratified(units([0] * 2), ["corpora.c: label 'a'"], 0.1, 0.2, seed=0)


def test_folds_have_equal_shares_of_each_label_and_every_unit_is_tested_once() -> None:
    sizes = [1] * 990 + [7] * 10
    both = Units(HASHES, THREE.strata, np.array(sizes))
    folds = kfold(both, 10, seed=3)
    for label in range(3):
        rows = np.bincount(folds[both.strata == label], weights=both.sizes[both.strata == label], minlength=10)
        assert rows.max() - rows.min() <= 1
    assert set(folds.tolist()) == set(range(10))
    assert not np.array_equal(folds, kfold(both, 10, seed=4))


DAYS = np.array([f"2024-01-{day:02}T09:00:00+00:00" for day in range(1, 31)])


def test_the_latest_are_tested_and_one_moment_is_never_parted() -> None:
    splits = by_date(DAYS, np.ones(30, int), validation=0.1, test=0.2)
    assert splits.tolist() == [TRAIN] * 21 + [VALIDATION] * 3 + [TEST] * 6
    tied = DAYS.copy()
    tied[20:27] = tied[20]
    splits = by_date(tied, np.ones(30, int), validation=0.1, test=0.2)
    assert len(set(splits[20:27].tolist())) == 1


def test_dates_can_be_cut_by_the_calendar() -> None:
    splits = by_date(DAYS, np.ones(30, int), validation="2024-01-10", test="2024-01-20")
    assert splits.tolist() == [TRAIN] * 9 + [VALIDATION] * 10 + [TEST] * 11
    with pytest.raises(DataError, match=r"test from 2025-01-01 leave no rows for test; the rows' dates go from 2024-01-01T09"):
        by_date(DAYS, np.ones(30, int), validation=0.1, test="2025-01-01")
    with pytest.raises(DataError, match="1 texts have none"):
        by_date(np.array(["", *DAYS]), np.ones(31, int), validation=0.1, test=0.2)
