"""Which format of a bundle is the fastest on this host, of those that give the reference's answers here too."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finsight.domain.gates import outside
from finsight.domain.metrics import softmax
from finsight.errors import ArtifactError

if TYPE_CHECKING:
    from finsight.ports import Classifier

UNLIKELY = 0.01
ROUNDS = 3  # the best of each format counts: other processes only ever make one slower
_SENTENCES = (
    "Profit warning: margins shrink again",
    "Net profit rose to EUR 13.1 mn from EUR 8.7 mn in the corresponding period a year earlier.",
    "The company will hold its annual general meeting on 4 May in Helsinki.",
    "Shares fell 7 % after the chief financial officer resigned without notice",
    "Operating loss widened, and the board proposes that no dividend be paid for the financial year.",
    "Orders were in line with expectations; the outlook for the second half is unchanged.",
    "Raised to buy",
    "The transaction is subject to the approval of the competition authorities and is expected to close in the third quarter.",
)
# Headlines for the greater part, and some texts of up to seven sentences, which reach most maximum lengths.
PROBE = [" ".join(_SENTENCES[(i + j) % 8] for j in range(1 + (i // 8) ** 2 // 8)) for i in range(64)]


@dataclass(frozen=True)
class Fastest:
    """:param rates: texts a second of each format; ``refused`` says why a format is not among them."""

    format: str
    rates: dict[str, float]
    refused: dict[str, str]


def _outside(probs: NDArray[np.float64], expected: NDArray[np.float64], limits: Mapping[str, float]) -> str:
    """What speaks against probabilities (n, k), in words; empty where nothing does.

    These texts are few: labels flip more often than the limit allows where as many flips would be a matter of one chance in a hundred.
    """
    problems = list(outside({"max_abs_diff": float(np.abs(probs - expected).max())}, {"max_abs_diff": limits["max_abs_diff"]}))
    n, flips, rate = len(probs), int((probs.argmax(axis=1) != expected.argmax(axis=1)).sum()), limits["label_flip_rate"]
    if flips and sum(math.comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(flips, n + 1)) < UNLIKELY:
        problems.append(f"{flips} of {n} labels flip, a share of {rate:g} is allowed")
    return "; ".join(problems)


def fastest(open_format: Callable[[str], Classifier], names: Sequence[str], limits: Mapping[str, Mapping[str, float]]) -> Fastest:
    """Time each format on the same texts, in turns.

    :param names: formats that run here; the first is the reference.
    :param limits: of each format; one that exceeds them here is not taken, whatever it was at export.
    """
    opened = {names[0]: open_format(names[0])}
    expected = softmax(opened[names[0]].logits(PROBE))
    refused: dict[str, str] = {}
    for name in names[1:]:
        try:
            classifier = open_format(name)
            problem = _outside(softmax(classifier.logits(PROBE)), expected, limits[name])
        except ArtifactError as unreadable:
            problem = str(unreadable)
        if problem:
            refused[name] = problem
        else:
            opened[name] = classifier
    best = dict.fromkeys(opened, np.inf)
    for _ in range(ROUNDS):
        for name, classifier in opened.items():
            started = time.perf_counter()
            classifier.logits(PROBE)
            best[name] = min(best[name], time.perf_counter() - started)
    return Fastest(min(best, key=best.__getitem__), {name: round(len(PROBE) / seconds, 1) for name, seconds in best.items()}, refused)
