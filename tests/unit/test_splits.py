"""Split rules, against scikit-learn and by their properties."""

from collections import Counter

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from finsight.domain.dedup import drop_duplicates
from finsight.domain.records import content_hash
from finsight.domain.splits import finbert, stratified
from finsight.errors import DataError

HASHES = [content_hash(str(i)) for i in range(1000)]
NAMES = ["a"] * 600 + ["b"] * 300 + ["c"] * 100


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


def test_each_class_has_its_share_of_each_split() -> None:
    splits = stratified("c", HASHES, NAMES, validation=0.1, test=0.2, seed=1)
    for name, n in (("a", 600), ("b", 300), ("c", 100)):
        counts = Counter(s for s, label in zip(splits, NAMES, strict=True) if label == name)
        assert (counts["test"], counts["validation"]) == (n // 5, n // 10)


def test_the_seed_decides_and_the_order_of_rows_does_not() -> None:
    forward = dict(zip(HASHES, stratified("c", HASHES, NAMES, 0.1, 0.2, seed=1), strict=True))
    backward = dict(zip(HASHES[::-1], stratified("c", HASHES[::-1], NAMES[::-1], 0.1, 0.2, seed=1), strict=True))
    other = dict(zip(HASHES, stratified("c", HASHES, NAMES, 0.1, 0.2, seed=2), strict=True))
    assert forward == backward
    assert forward != other


def test_equal_texts_never_straddle_two_splits_whatever_their_labels() -> None:
    hashes, names = HASHES + HASHES[:300], NAMES + ["b"] * 300
    splits = stratified("c", hashes, names, 0.1, 0.2, seed=3)
    by_text: dict[str, set[str]] = {}
    for content, split in zip(hashes, splits, strict=True):
        by_text.setdefault(content, set()).add(split)
    assert all(len(found) == 1 for found in by_text.values())


def test_three_texts_are_the_least_a_class_can_be_split_with() -> None:
    assert sorted(stratified("c", HASHES[:3], ["a"] * 3, 0.1, 0.2, seed=0)) == ["test", "train", "validation"]
    with pytest.raises(DataError, match="has 4 distinct"):
        stratified("c", HASHES[:4], ["a"] * 4, 0.45, 0.5, seed=0)
    with pytest.raises(DataError, match=r"corpora\.c: label 'a' has 2 distinct text\(s\), none is left for train"):
        stratified("c", HASHES[:2], ["a"] * 2, 0.1, 0.2, seed=0)


def test_duplicates_are_dropped_in_train_and_counted_elsewhere() -> None:
    hashes = ["x", "x", "x", "y", "y", "z"]
    labels = ["a", "a", "b", "a", "a", "a"]
    splits = ["train", "train", "train", "test", "test", "validation"]
    found = drop_duplicates([*hashes, "x"], [*labels, "a"], [*splits, "test"])
    assert found.keep == [True, False, False, True, True, True, True]
    assert (found.dropped, found.conflicting, found.crossing) == (2, 1, 1)
