"""Which format of a bundle is the fastest on this host, of those that give the reference's answers here too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finsight.domain.gates import outside
from finsight.domain.metrics import softmax

if TYPE_CHECKING:
    from finsight.ports import Classifier

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


def fastest(open_format: Callable[[str], Classifier], names: Sequence[str], limits: Mapping[str, Mapping[str, float]]) -> Fastest:
    """Time each format on the same texts, in turns.

    :param names: formats that run here; the first is the reference.
    :param limits: of each format; one that exceeds them here is not taken, whatever it was at export.
    """
    opened = {name: open_format(name) for name in names}
    expected = softmax(opened[names[0]].logits(PROBE))
    refused: dict[str, str] = {}
    for name in names[1:]:
        probs = softmax(opened[name].logits(PROBE))
        found = {
            "max_abs_diff": float(np.abs(probs - expected).max()),
            "label_flip_rate": float((probs.argmax(axis=1) != expected.argmax(axis=1)).mean()),
        }
        if problems := list(outside(found, limits[name])):
            refused[name] = "; ".join(problems)
            del opened[name]
    best = dict.fromkeys(opened, np.inf)
    for _ in range(ROUNDS):
        for name, classifier in opened.items():
            started = time.perf_counter()
            classifier.logits(PROBE)
            best[name] = min(best[name], time.perf_counter() - started)
    return Fastest(min(best, key=best.__getitem__), {name: round(len(PROBE) / seconds, 1) for name, seconds in best.items()}, refused)
