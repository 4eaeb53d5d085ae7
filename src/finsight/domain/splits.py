"""Rules that say which row is for training, for choosing and for testing.

What is assigned is a unit: rows that must not be parted, since they say nearly the same or belong to one company. Units are ranked by a
keyed hash of their content instead of drawn from a random generator: NumPy does not promise one stream across versions, and a unit keeps
its rank when others are added.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finsight.domain.records import SPLITS
from finsight.errors import DataError

TRAIN, VALIDATION, TEST = range(3)  # indices into finsight.domain.records.SPLITS

Codes = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Units:
    """Rows that get one split, as parallel arrays of units.

    :param keys: a content hash among each unit's rows, which names it on any machine.
    :param strata: number of the class (a label of a corpus) that each is one of.
    :param sizes: how many distinct texts they are.
    """

    keys: Sequence[str]
    strata: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def take(self, chosen: NDArray[np.int64]) -> Units:
        """The units of these indices."""
        return Units([self.keys[i] for i in chosen.tolist()], self.strata[chosen], self.sizes[chosen])


def ranked(units: Units, seed: int) -> NDArray[np.int64]:
    """The indices of the units in the order of SHA-256(``seed:key``)."""
    digests = b"".join([hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8] for key in units.keys])
    return np.argsort(np.frombuffer(digests, ">u8"), kind="stable")


def stratified(units: Units, names: Sequence[str], validation: float, test: float, seed: int) -> Codes:
    """A split for each unit, every stratum in the same proportions.

    A unit that is larger than what a split still lacks is passed over for it, so that one large group never fills a test set; a split
    that none fits gets the smallest.

    :param names: of the strata, for the message.
    :param validation: share of each stratum for validation, in [0, 1); ``test`` likewise; 0 takes none.
    :raises DataError: when a stratum has too few units for one in each split.
    """
    assigned = np.full(len(units.keys), TRAIN, dtype=np.int8)
    order = ranked(units, seed)
    for stratum in np.unique(units.strata):
        mine = order[units.strata[order] == stratum]
        n = int(units.sizes[mine].sum())
        wanted = {split: max(1, round(share * n)) for split, share in ((TEST, test), (VALIDATION, validation)) if share}
        lacking = dict(wanted)
        for unit in mine:
            if not any(rows > 0 for rows in lacking.values()):
                break
            size = int(units.sizes[unit])
            split = next((split for split, rows in lacking.items() if rows > 0 and (size <= rows or size == 1)), TRAIN)
            assigned[unit] = split
            if split in lacking:
                lacking[split] -= size
        for split in wanted:
            left = mine[assigned[mine] == TRAIN]
            if split not in assigned[mine] and len(left):
                assigned[left[np.argmin(units.sizes[left])]] = split
        if TRAIN not in assigned[mine]:
            beside = " and ".join(f"{rows} for {SPLITS[split]}" for split, rows in reversed(wanted.items()))
            raise DataError(
                f"{names[stratum]} has {n} distinct text(s) in {len(mine)} group(s), too few for train beside {beside}; "
                "add rows, or drop the label from `labels` in params.yaml"
            )
    return assigned


def kfold(units: Units, folds: int, seed: int) -> NDArray[np.int64]:
    """A fold, from 0, for each unit: of each stratum every fold gets the same number of rows, as far as units allow."""
    assigned = np.zeros(len(units.keys), dtype=np.int64)
    order = ranked(units, seed)
    order = order[np.argsort(-units.sizes[order], kind="stable")]  # large units first: they are the ones that could unbalance the folds
    for stratum in np.unique(units.strata):
        filled = [(0, fold) for fold in range(folds)]
        for unit in order[units.strata[order] == stratum]:
            rows, fold = filled[0]
            assigned[unit] = fold
            heapq.heapreplace(filled, (rows + int(units.sizes[unit]), fold))
    return assigned


def by_date(first: NDArray[np.str_], sizes: NDArray[np.int64], validation: float | str, test: float | str) -> Codes:
    """A split for each unit by the earliest date of its rows: the latest are for testing, those before them for validation.

    A text that was published again stays with its first publication, so that no test row has been seen before. Units of one date are
    never parted.

    :param first: the earliest date of each unit, ISO 8601; empty where it has none.
    :param validation: share of the rows, or the date from which rows are for validation; ``test`` likewise.
    :raises DataError: when a unit has no date, or a split would be empty.
    """
    if undated := int((first == "").sum()):
        raise DataError(f"prepare.split.method: date, but {undated} texts have none; name the column under corpora.X.date in params.yaml")
    ordered = np.repeat(np.sort(first), sizes[np.argsort(first, kind="stable")])

    def start(share: float | str, after: int) -> str:
        if isinstance(share, str):
            return share
        return str(ordered[max(0, after - max(1, round(share * len(ordered))))])

    test_from = start(test, len(ordered))
    validation_from = start(validation, int((ordered < test_from).sum()))
    assigned = np.where(first >= test_from, TEST, np.where(first >= validation_from, VALIDATION, TRAIN)).astype(np.int8)
    if missing := sorted({TRAIN, VALIDATION, TEST} - set(assigned.tolist())):
        raise DataError(
            f"prepare.split: validation from {validation_from} and test from {test_from} leave no rows for "
            f"{', '.join(SPLITS[split] for split in missing)}; the rows' dates go from {ordered[0]} to {ordered[-1]}"
        )
    return assigned


def finbert(rows: int) -> list[str]:
    """The split of finBERT's published code, by row of ``Sentences_50Agree.txt``.

    Source: github.com/ProsusAI/finBERT, ``scripts/datasets.py``: scikit-learn's ``train_test_split(…, test_size=0.2,
    random_state=0)``, then ``test_size=0.1, random_state=0`` on what is left. scikit-learn draws one permutation from
    the legacy ``RandomState`` (whose stream NumPy has frozen), takes the test rows from its head and rounds them up.
    """

    def cut(indices: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
        n = int(np.ceil(len(indices) * share))
        order = np.random.RandomState(0).permutation(len(indices))
        return indices[order[n:]], indices[order[:n]]

    rest, test = cut(np.arange(rows), 0.2)
    _, validation = cut(rest, 0.1)
    split = np.full(rows, SPLITS[TRAIN], dtype=object)
    split[test], split[validation] = SPLITS[TEST], SPLITS[VALIDATION]
    return list(split)
