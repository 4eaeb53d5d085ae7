"""Labels as training targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finsight.domain.metrics import Floats, Ints

# The levels that published corpora state are lower bounds ("at least 75 % agree"): the expected agreement of a row is taken as the
# middle between its level and the next.
LEVELS = (50, 66, 75, 100)


def confidence(agreement: int | None) -> float:
    """The probability that the stated label deserves, in [0.5, 1]; 1 where the agreement is unknown.

    Less than half is no evidence against a label that was stated all the same: it counts as half.

    Source of the idea: Uma et al. 2021, "Learning from Disagreement: A Survey".
    """
    if agreement is None:
        return 1.0
    above = [level for level in LEVELS if level > agreement]
    return max(0.5, (agreement + above[0]) / 200) if above else 1.0


def targets(labels: Ints, k: int, agreements: Sequence[int | None] | None = None) -> Floats:
    """Probabilities (n, k): one-hot, or with ``agreements`` the confidence on the label and the rest spread over the others."""
    on = np.ones(len(labels)) if agreements is None else np.array([confidence(a) for a in agreements])
    spread = np.repeat(((1 - on) / (k - 1))[:, None], k, axis=1)
    spread[np.arange(len(labels)), labels] = on
    return spread
