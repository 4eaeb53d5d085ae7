"""Altered copies of texts: drawn from the texts alone, of their kinds of words, the same each time."""

from itertools import pairwise

import numpy as np

from finsight.domain.variants import DROPPED, EXCHANGED, JOINED, variants

TEXTS = ["Operating profit rose to EUR 13.1 mn from EUR 8.7 mn", "Finnish Talentum will lay off 40 people", "Loss"]


def test_each_text_gets_its_copies_in_order_and_none_is_empty() -> None:
    made = variants(TEXTS, 50, np.random.default_rng(1))
    assert len(made) == 150
    assert all(made)
    first_words = [text.split()[0] for text in made[:50]]
    assert first_words.count("Operating") > 25, "a copy begins as its text does, where the first word was not dropped or exchanged"
    assert variants([], 3, np.random.default_rng(1)) == []
    assert variants(TEXTS, 0, np.random.default_rng(1)) == []


def test_they_hold_nothing_but_words_of_the_texts() -> None:
    known = {word for text in TEXTS for word in text.split()}
    assert {word for text in variants(TEXTS, 200, np.random.default_rng(2)) for word in text.split()} == known


def test_a_seed_gives_the_same_again() -> None:
    assert variants(TEXTS, 5, np.random.default_rng(3)) == variants(TEXTS, 5, np.random.default_rng(3))
    assert variants(TEXTS, 5, np.random.default_rng(3)) != variants(TEXTS, 5, np.random.default_rng(4))


def test_words_are_dropped_exchanged_and_joined_as_often_as_said() -> None:
    """Three texts of words that no other has, a kind each, so that each word tells where it came from."""
    n = 40
    plain, capital, number = (" ".join(f"{prefix}{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(n)) for prefix in ("x", "Y", "1"))
    made = [text.split() for text in variants([plain, capital, number], 2000, np.random.default_rng(5))[:2000]]
    joined = [any(word[0] != "x" for word in words) for words in made]
    assert abs(np.mean(joined) - JOINED * 2 / 3) < 0.03, "a third of the joined ones go on with the same text"
    alone = [words for words in made if all(word[0] == "x" for word in words) and len(words) > 30]
    original = plain.split()
    assert abs(np.mean([len(words) for words in alone]) / n - (1 - DROPPED)) < 0.05
    assert all(set(words) <= set(original) for words in alone)
    in_order = np.mean([sum(a < b for a, b in pairwise(words)) / (len(words) - 1) for words in alone])
    assert 1 - 2.5 * EXCHANGED < in_order < 1, "exchanged words stand out of the order"
