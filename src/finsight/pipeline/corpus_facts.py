"""What a person wants to see of a corpus before using it, gathered in one pass over its reader."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from finsight.domain.records import Example, Rejection, content_hash, normalise

MOST_ROWS = 200_000
SHOWN = 5
WIDTH = 100
PERCENTILES = (5, 50, 95)


@dataclass(slots=True)
class Facts:
    """A corpus in numbers.

    :param rows: that were read, examples or not.
    :param cut: whether there are more, which were not looked at.
    :param labels: of the examples, as the reader gives them.
    :param rejected: rows that are no examples, by reason; those that the user's ``label_map`` leaves out stand under ``left out``.
    :param splits: of the examples that have one.
    :param words: percentiles of the number of words, by percent; 100 is the longest.
    :param repeated: rows whose text stands in an earlier row.
    :param conflicting: distinct texts that stand with more than one label.
    :param damaged: rows that bear marks of a wrong decoding.
    :param repairable: those of them that ``repair_mojibake`` would change.
    :param shown: labels and texts of a few rows, evenly spread.
    """

    rows: int = 0
    cut: bool = False
    labels: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    words: dict[int, int] = field(default_factory=dict)
    repeated: int = 0
    conflicting: int = 0
    damaged: int = 0
    repairable: int = 0
    shown: list[tuple[str, str]] = field(default_factory=list)


def gather(
    rows: Iterable[Example | Rejection], damaged: Callable[[str], bool], repair: Callable[[str], str], most: int = MOST_ROWS
) -> Facts:
    """Read at most ``most`` rows and say what they are.

    :param damaged: whether a text was decoded wrongly once.
    :param repair: the text with that undone as far as it can be.
    """
    facts, spread, lengths = Facts(), _Spread(), []
    labels_of: dict[str, str | None] = {}  # by the text's hash; None: more than one
    remaining = iter(rows)
    for row in itertools.islice(remaining, most):
        facts.rows += 1
        if isinstance(row, Rejection):
            facts.rejected["left out by label_map" if row.ignored else row.reason] += 1
            continue
        if not row.text.strip():
            facts.rejected["empty text"] += 1
            continue
        facts.labels[row.label] += 1
        if row.split:
            facts.splits[row.split] += 1
        if damaged(row.text):
            facts.damaged += 1
            facts.repairable += repair(row.text) != row.text
        lengths.append(len(row.text.split()))
        spread.add((row.label, row.text))
        key = content_hash(normalise(row.text))
        if key in labels_of:
            facts.repeated += 1
            if labels_of[key] not in (None, row.label):
                facts.conflicting += 1
                labels_of[key] = None
        else:
            labels_of[key] = row.label
    facts.cut = next(remaining, None) is not None
    if lengths:
        facts.words = {p: int(np.percentile(lengths, p, method="nearest")) for p in (*PERCENTILES, 100)}
    facts.shown = spread.some(SHOWN)
    return facts


class _Spread:
    """Every 2^k-th item of a stream of unknown length, few at any time."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, str]] = []
        self._step, self._seen = 1, 0

    def add(self, item: tuple[str, str]) -> None:
        if self._seen % self._step == 0:
            self._kept.append(item)
            if len(self._kept) > 64:
                self._kept, self._step = self._kept[::2], 2 * self._step
        self._seen += 1

    def some(self, n: int) -> list[tuple[str, str]]:
        places = sorted({round(i * (len(self._kept) - 1) / max(1, n - 1)) for i in range(min(n, len(self._kept)))})
        return [self._kept[place] for place in places]


def as_lines(facts: Facts) -> list[str]:
    """The facts for a terminal."""
    looked = f"the first {facts.rows:,} rows (there are more)" if facts.cut else f"{facts.rows:,} rows"
    lines = [f"rows        {looked}", f"labels      {_counts(facts.labels) or 'none'}"]
    if facts.splits:
        lines.append(f"splits      {_counts(facts.splits)}")
    if facts.words:
        parts = [f"{facts.words[p]} at the {p}th percentile" for p in PERCENTILES]
        lines.append(f"words       {', '.join(parts)}, {facts.words[100]} at most")
    lines.append(f"duplicates  {facts.repeated:,} rows repeat an earlier text; {facts.conflicting:,} texts stand with more than one label")
    lines.append(
        f"damaged     {facts.damaged:,} rows look as if they had been decoded wrongly once; repair_mojibake changes {facts.repairable:,}"
    )
    if facts.rejected:
        lines.append(f"unfit       {_counts(facts.rejected)}")
    lines += [f"{'examples' if i == 0 else '':<11} {cut(label, 20)}: {cut(text)}" for i, (label, text) in enumerate(facts.shown)]
    return lines


def _counts(counts: Mapping[str, int], most: int = 12) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{cut(name, 60)} {n:,}" for name, n in ordered[:most])
    return shown + (f" and {len(ordered) - most} more" if len(ordered) > most else "")


def cut(text: str, width: int = WIDTH) -> str:
    """A text on one line of at most ``width`` characters, without what could move a terminal's cursor."""
    line = "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + "…"
