"""Near-duplicates: exact Jaccard similarity as the reference, and the texts that people mean."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest

from conftest import starter_rows
from finsight.domain.dedup import equal_pairs, groups, min_hashes, near_groups
from finsight.domain.records import normalise
from finsight.pipeline.words import features, split_words


def ragged(sets: list[set[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([f for s in sets for f in sorted(s)], np.uint32), np.r_[0, np.cumsum([len(s) for s in sets])]


def near(sets: list[set[int]], threshold: float = 0.7) -> list[int]:
    features, offsets = ragged(sets)
    keys, sketch = min_hashes(features, offsets)
    found: list[int] = near_groups(np.arange(len(sets)), keys, sketch, features, offsets, threshold).tolist()
    return found


def same(*texts: str) -> bool:
    """Whether all texts come into one group, among others."""
    rows = [normalise(t) for t in [*texts, *(row["text"] for row in starter_rows(80))]]
    sets, offsets, in_order = features(split_words(pa.array(rows)))
    root = groups(equal_pairs(in_order), np.arange(len(rows)))
    found = near_groups(root, *min_hashes(sets, offsets), sets, offsets, 0.7)
    assert len(set(found[len(texts) :].tolist())) == len(rows) - len(texts)  # the others stay apart
    return len(set(found[: len(texts)].tolist())) == 1


def test_pairs_above_the_threshold_are_found_and_pairs_below_are_not() -> None:
    rng = np.random.default_rng(0)
    sets: list[set[int]] = []
    for _ in range(300):  # a family: a random set and one that shares a random part of it
        base = {int(x) for x in rng.integers(0, 2**32, 20)}
        keep = set(rng.permutation(sorted(base))[: rng.integers(4, 21)].tolist())
        sets += [base, keep | {int(x) for x in rng.integers(0, 2**32, 20 - len(keep))}]
    found = near(sets)
    missed = wrong = 0
    for i, j in ((2 * k, 2 * k + 1) for k in range(300)):
        similar = len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= 0.7
        missed += similar and found[i] != found[j]
        wrong += not similar and found[i] == found[j]
    assert wrong == 0
    assert missed <= 1  # probability of a miss at the threshold itself: about 1 %
    assert len({found[2 * k] for k in range(300)}) == 300


def test_groups_are_connected_components_named_by_their_first_row() -> None:
    assert groups(np.array([[3, 4], [1, 2], [4, 1]]), np.arange(6)).tolist() == [0, 1, 1, 1, 1, 5]
    chain = np.stack([np.arange(999), np.arange(1, 1000)], axis=1)[::-1]
    assert set(groups(chain, np.arange(1000)).tolist()) == {0}
    assert groups(np.empty((0, 2), int), np.arange(3)).tolist() == [0, 1, 2]


def test_equal_keys_are_linked_and_zero_is_none() -> None:
    pairs = equal_pairs(np.array([5, 0, 5, 7, 0, 5], np.uint64))
    assert groups(pairs, np.arange(6)).tolist() == [0, 1, 0, 3, 4, 0]


def test_the_order_of_rows_changes_no_group() -> None:
    rng = np.random.default_rng(1)
    bases = [{int(x) for x in rng.integers(0, 2**32, 20)} for _ in range(60)]
    sets = [base - set(sorted(base)[i : i + 1]) for base in bases for i in range(4)]  # families of four, one feature apart
    order = rng.permutation(len(sets))
    forward, backward = near(sets, 0.6), near([sets[i] for i in order], 0.6)
    assert len(set(forward)) == 60
    for a, b in combinations(range(len(sets)), 2):
        assert (forward[order[a]] == forward[order[b]]) == (backward[a] == backward[b])


@pytest.mark.parametrize(
    "texts",
    [
        ("Operating profit rose to EUR 13.1 mn from EUR 8.7 mn", "Operating profit rose to EUR 2.4 mn from EUR 1.9 mn"),
        ("Shares of Nokia Oyj fell 4 % in Helsinki trading", "Shares of Elisa Oyj fell 9.5% in Stockholm trading"),
        ("PSA trade unions give the nod to merger with Fiat", "UPDATE 1-PSA trade unions give the nod to merger with Fiat"),
        ("Trade momentum rose in September for the first time https://t.co/abc", "RT Trade momentum rose in September for the first time"),
        ("Not much happened today .", "NOT MUCH HAPPENED TODAY"),
        ("Apple shares fall 3 %", "Apple shares fall 5 %"),
        ("Nokia Q3 profit rises 10 %", "Nokia Q3 profit rises 12 %"),
        ("$MPLX cut at the bank on potential dilution from review", "$MPC cut at the bank on potential dilution from review"),
    ],
)
def test_wire_copies_are_one_group(texts: tuple[str, str]) -> None:
    assert same(*texts)


@pytest.mark.parametrize(
    "texts",
    [
        ("Nokia : 4 %", "Elisa : 9 %"),  # too few words for names to be masked
        ("4 %", "9 %"),  # nothing is left but masks
        ("Sales rose in the north of the country", "Profit fell in the south of the city"),
        ("Apple Shares Rise After Earnings Beat", "Tesla Bonds Fall Before Ratings Review"),  # capitals mark no names in a headline
        ("…", "!!!"),
    ],
)
def test_different_news_are_not(texts: tuple[str, str]) -> None:
    assert not same(*texts)
