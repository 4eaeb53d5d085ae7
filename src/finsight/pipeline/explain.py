"""Explain: what each word of a text does for the label that it gets.

Occlusion: a word weighs as much as the probability falls when it is left out. It asks nothing of the model but probabilities, so it
holds for a checkpoint and for every graph of a bundle. Source: Li, Monroe and Jurafsky 2016, "Understanding Neural Networks through
Representation Erasure".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finsight.domain.metrics import Floats

Probs = Callable[[Sequence[str]], Floats]
MOST_WORDS = 256  # of a text, from its beginning: each costs a pass, and models cut long texts anyway

_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text.

    :param effect: by how much the label's probability falls without it (-1 to 1); below 0 it speaks against the label.
    """

    text: str
    effect: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a text gets a label.

    :param label: its number.
    :param probability: what the model gives it.
    :param words: in reading order.
    """

    label: int
    probability: float
    words: list[Word]


def explain(probs: Probs, texts: Sequence[str], label: int | None = None) -> list[Explanation]:
    """Explain each text's most probable label, or the one of number ``label``.

    :param probs: maps texts to probabilities (n, k); it is asked once, about the texts and all that they become.
    """
    words = [list(_WORD.finditer(text))[:MOST_WORDS] for text in texts]
    without = [[text[: word.start()] + text[word.end() :].lstrip() for word in found] for text, found in zip(texts, words, strict=True)]
    asked = list(dict.fromkeys([*texts, *(text for shorter in without for text in shorter)]))
    answers = dict(zip(asked, probs(asked), strict=True)) if asked else {}
    explanations = []
    for text, found, shorter in zip(texts, words, without, strict=True):
        number = int(answers[text].argmax()) if label is None else label
        whole = float(answers[text][number])
        effects = [Word(word[0], whole - float(answers[rest][number])) for word, rest in zip(found, shorter, strict=True)]
        explanations.append(Explanation(number, whole, effects))
    return explanations
