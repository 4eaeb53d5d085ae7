"""What the model has to beat: answers to the test rows that take no transformer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from finsight.domain.lexicon import tone
from finsight.pipeline.linear import regression, sampled, vectorizer

MAJORITY, LEXICON, LINEAR = "majority", "lexicon", "linear"


def baselines(
    texts: Sequence[str], answers: Sequence[str], asked: Sequence[str], labels: Sequence[str], polarity: Mapping[str, float]
) -> dict[str, list[str]]:
    """The labels that each baseline gives to the texts that are asked about.

    ``majority`` is the most frequent label of the training rows; ``lexicon`` counts good and bad words and takes the label whose
    polarity is nearest (left out where labels have no order); ``linear`` is TF-IDF with logistic regression.

    :param texts: of the training rows, ``answers`` their labels.
    """
    counts = Counter(answers)
    majority = max(labels, key=lambda label: counts[label])
    found = {MAJORITY: [majority] * len(asked)}
    if polarity:
        # Of two labels as near, the one further from the middle: good words say something, whichever way they point.
        found[LEXICON] = [
            min(labels, key=lambda label: (abs(polarity[label] - score), -abs(polarity[label]))) for score in map(tone, asked)
        ]
    if len(counts) > 1:
        found[LINEAR] = _linear(texts, answers, asked, majority)
    return found


def _linear(texts: Sequence[str], answers: Sequence[str], asked: Sequence[str], otherwise: str) -> list[str]:
    rows = sampled(len(texts))
    features = vectorizer()
    try:
        learned = features.fit_transform([texts[i] for i in rows])
    except ValueError:  # no two texts have a word in common
        return [otherwise] * len(asked)
    with regression() as model:
        model.fit(learned, [answers[i] for i in rows])
        return [str(label) for label in model.predict(features.transform(asked))]
