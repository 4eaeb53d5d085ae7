"""Predict: what a bundle says of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finsight.domain.metrics import softmax

if TYPE_CHECKING:
    from finsight.ports import Classifier


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one text.

    :param label: the most probable one.
    :param probabilities: of each label, calibrated; they sum to 1.
    :param score: mean of the labels' polarity by their probabilities, which for negative (-1), neutral (0) and positive (1) is
        P(positive) - P(negative); None where the labels have no order.
    :param sure: whether the label's probability is one from which on the model was right as often as ``evaluate.abstain_precision``
        wants; None where no probability is.
    """

    label: str
    probabilities: dict[str, float]
    score: float | None
    sure: bool | None


class Model:
    """A classifier with what its bundle says of its labels.

    :param polarity: label → place between worst (-1) and best (1); empty where the labels have no order.
    :param abstain_below: see ``sure`` of :class:`Prediction`.
    :param name: of the bundle's format.
    """

    def __init__(self, classifier: Classifier, polarity: Mapping[str, float], abstain_below: float | None, name: str = "") -> None:
        self._classifier, self._abstain_below = classifier, abstain_below
        self.format = name
        """What the probabilities are computed with."""
        self._places = np.array([polarity[label] for label in classifier.labels]) if polarity else None

    @property
    def labels(self) -> list[str]:
        """In the order of the probabilities."""
        return list(self._classifier.labels)

    @property
    def ordered(self) -> bool:
        """Whether the labels have an order, and texts a score."""
        return self._places is not None

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities (n, k), rows in the order of ``texts``."""
        return softmax(self._classifier.logits(texts))

    def scores(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """The score (n,) of each row of probabilities (n, k); None where the labels have no order."""
        return None if self._places is None else probabilities @ self._places

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction a text, in their order."""
        return self.read(self.probabilities(texts))

    def read(self, probs: NDArray[np.float64]) -> list[Prediction]:
        """What rows of probabilities (n, k) say, one prediction a row."""
        scores, labels = self.scores(probs), self.labels
        found = []
        for i, row in enumerate(probs):
            best, least = int(row.argmax()), self._abstain_below
            found.append(
                Prediction(
                    label=labels[best],
                    probabilities={label: float(p) for label, p in zip(labels, row, strict=True)},
                    score=None if scores is None else float(scores[i]),
                    sure=None if least is None else bool(row[best] >= least),
                )
            )
        return found
