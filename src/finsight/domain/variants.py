"""Altered copies of texts for a teacher to label: a few thousand texts show a small model little of what the teacher knows."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

# Half of the copies go on with the end of a text, mostly another; then a tenth of the words is left out and a tenth exchanged.
JOINED, DROPPED, EXCHANGED = 0.5, 0.1, 0.1

_DIGIT = re.compile(r"\d")


def variants(texts: Sequence[str], copies: int, rng: np.random.Generator) -> list[str]:
    """``copies`` altered copies of each text, all of the first text's first.

    Words are exchanged for words of their kind (with a digit, capital, other), as often as the texts have them. What comes out is seldom
    a sentence, and its label is whatever the teacher says of it.

    :param texts: normalised, with single spaces.
    :source: Tang et al. 2019, "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks", section 3.3, with words
        left out in place of masked ones, kinds of words in place of parts of speech, and joined pieces in place of n-grams.
    """
    split = [text.split(" ") for text in texts]
    pools: list[list[str]] = [[], [], []]
    for words in split:
        for word in words:
            pools[_kind(word)].append(word)
    found = []
    for words in split:
        for _ in range(copies):
            copy = words
            if rng.random() < JOINED:
                other = split[int(rng.integers(len(split)))]
                copy = words[: int(rng.integers(1, len(words) + 1))] + other[int(rng.integers(len(other))) :]
            found.append(_edited(copy, pools, rng))
    return found


def _edited(words: list[str], pools: Sequence[Sequence[str]], rng: np.random.Generator) -> str:
    """Some words dropped and some exchanged; at least one is left."""
    draws = rng.random(len(words))
    kept = []
    for word, draw in zip(words, draws.tolist(), strict=True):
        if draw < EXCHANGED:
            pool = pools[_kind(word)]
            kept.append(pool[int(rng.integers(len(pool)))])
        elif draw >= EXCHANGED + DROPPED:
            kept.append(word)
    return " ".join(kept or words[:1])


def _kind(word: str) -> int:
    return 0 if _DIGIT.search(word) else 1 if word[:1].isupper() else 2
