"""Texts that occur more than once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What equal texts did to a split corpus.

    :param keep: for each row, whether it stays.
    :param dropped: rows dropped because an equal text stands earlier in train.
    :param conflicting: of those, rows whose label differs from the one that stays.
    :param crossing: rows of validation or test whose text stands in train too; they stay, and are counted.
    """

    keep: list[bool]
    dropped: int
    conflicting: int
    crossing: int


def drop_duplicates(hashes: Sequence[str], labels: Sequence[str], splits: Sequence[str]) -> Duplicates:
    """Drop repeated texts within train, the first one stays; never touch a row of validation or test."""
    first: dict[str, str] = {}
    keep = [True] * len(hashes)
    dropped = conflicting = 0
    by_split: dict[str, list[str]] = defaultdict(list)
    for row, (content, label, split) in enumerate(zip(hashes, labels, splits, strict=True)):
        by_split[split].append(content)
        if split != "train":
            continue
        if content in first:
            keep[row] = False
            dropped += 1
            conflicting += first[content] != label
        else:
            first[content] = label
    crossing = sum(content in first for split in ("validation", "test") for content in by_split[split])
    return Duplicates(keep, dropped, conflicting, crossing)
