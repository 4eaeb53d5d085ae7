"""Which split each row gets: the corpus's own where it has one, the method of params.yaml for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finsight.domain.records import SPLITS
from finsight.domain.splits import TEST, TRAIN, VALIDATION, Codes, Units, by_date, kfold, stratified
from finsight.errors import DataError
from finsight.params.prepare import SplitParams

NO_SPLIT = -1
FEW = 10  # units below which a label of a corpus is no stratum of its own
_MAY_VALIDATION, _MAY_TEST = 1, 2


@dataclass(frozen=True, slots=True)
class Columns:
    """What a split depends on, for all rows.

    :param hashes: content hash of each row's text.
    :param texts: its first 64 bits, as a number.
    :param labels: index into ``label_names``; ``corpora`` likewise.
    :param own: the corpus's own split, an index into ``SPLITS``, or ``NO_SPLIT``.
    :param dates: ISO 8601, or empty.
    """

    hashes: Sequence[str]
    texts: NDArray[np.uint64]
    labels: NDArray[np.int64]
    label_names: Sequence[str]
    corpora: NDArray[np.int64]
    corpus_names: Sequence[str]
    own: Codes
    dates: NDArray[np.str_]


def split_rows(columns: Columns, unit_of: NDArray[np.int64], params: SplitParams) -> Codes:
    """A split for each row, or ``NO_SPLIT`` for one that is set aside: with held-out corpora, the others' own test rows.

    Rows that share a unit get one split; what a corpus's own split has parted stays parted. Of a split that a corpus's own lacks, the
    share is cut from its train rows.

    :param unit_of: for each row the number of its unit, which is the number of the unit's first row.
    """
    if params.method == "date" and params.own and (columns.own != NO_SPLIT).any():
        mine = {columns.corpus_names[i] for i in np.unique(columns.corpora[columns.own != NO_SPLIT]).tolist()}
        raise DataError(
            f"prepare.split.method: date goes by one calendar, but {', '.join(sorted(mine))} has a split of its own; "
            "set prepare.split.own to false in params.yaml"
        )
    splits, may = _given(columns, params)
    n = len(splits)
    # Free rows of a unit with given ones follow the earliest of these, so that nothing free leaks; one that may not follow goes to train,
    # and takes the others with it.
    anchor = np.full(n, TEST + 1, dtype=np.int8)
    given = (splits != NO_SPLIT) & (may == 0)
    np.minimum.at(anchor, unit_of[given], splits[given])
    follow = (may > 0) & (anchor[unit_of] <= TEST)
    kept = follow & (anchor[unit_of] > TRAIN) & ((anchor[unit_of] & may) == 0)  # a split's number is its bit in ``may``
    anchor[unit_of[kept]] = TRAIN
    splits[follow] = anchor[unit_of][follow]

    free = np.flatnonzero((may > 0) & ~follow)
    if len(free):
        splits[free] = _drawn(columns, unit_of[free], may[free], free, params)
    return splits


def _given(columns: Columns, params: SplitParams) -> tuple[Codes, NDArray[np.int8]]:
    """The splits that are given, and for each free row a bit for each split that it may get beside train (0: the row is not free)."""
    own = columns.own if params.own else np.full_like(columns.own, NO_SPLIT)
    wanted = _MAY_VALIDATION if params.held_out else _MAY_VALIDATION | _MAY_TEST
    may = np.where(own == NO_SPLIT, wanted, 0).astype(np.int8)
    splits = own.copy()
    for number, name in enumerate(columns.corpus_names):
        mine = columns.corpora == number
        if name in params.held_out:
            splits[mine], may[mine] = TEST, 0
            continue
        has = set(own[mine].tolist())
        lacks = (VALIDATION not in has) * _MAY_VALIDATION | (TEST not in has) * _MAY_TEST
        may[mine & (own == TRAIN)] = lacks & wanted
    if params.held_out:
        aside = (own == TEST) & (splits == TEST) & ~np.isin(columns.corpora, [columns.corpus_names.index(c) for c in params.held_out])
        splits[aside] = NO_SPLIT
    return splits, may


def _drawn(columns: Columns, unit_of: NDArray[np.int64], may: NDArray[np.int8], free: NDArray[np.int64], params: SplitParams) -> Codes:
    """The splits of the free rows, drawn unit by unit."""
    first, unit = np.unique(unit_of, return_index=True, return_inverse=True)[1:]
    k = len(columns.label_names)
    votes = np.bincount(unit * k + columns.labels[free], minlength=len(first) * k).reshape(-1, k)
    order = np.lexsort((columns.texts[free], unit))
    texts = columns.texts[free][order]
    starts = np.searchsorted(unit[order], np.arange(len(first)))
    distinct = np.r_[True, (texts[1:] != texts[:-1]) | (unit[order][1:] != unit[order][:-1])]
    home = columns.corpora[free[first]]
    units = Units(
        keys=[columns.hashes[row] for row in free[order[starts]]],  # the smallest hash of each unit
        strata=votes.argmax(axis=1),
        sizes=np.add.reduceat(distinct.astype(np.int64), starts),
    )
    both = np.full(len(first), _MAY_VALIDATION | _MAY_TEST, dtype=np.int8)
    np.bitwise_and.at(both, unit, may)
    dates = columns.dates[free]
    if params.method == "date":  # for each unit its earliest date
        by_day = np.lexsort((dates, unit))
        dates = dates[by_day[np.searchsorted(unit[by_day], np.arange(len(first)))]]
    assigned = np.full(len(first), TRAIN, dtype=np.int8)
    names = [f"corpora.{corpus}: label {label!r}" for corpus in columns.corpus_names for label in columns.label_names]
    for bits in np.unique(both[both > 0]).tolist():
        pool = np.flatnonzero(both == bits)
        mine = units.take(pool)
        strata = _strata(home[pool], mine.strata, k)
        # Beside the rows that get all splits, those of a corpus with a split of its own; a label with too few of them stays in train.
        enough = np.bincount(strata)[strata] > 2 if bits != _MAY_VALIDATION | _MAY_TEST else np.ones(len(pool), dtype=bool)
        chosen = np.flatnonzero(enough)
        if len(chosen):
            drawn = Units([mine.keys[i] for i in chosen.tolist()], strata[chosen], mine.sizes[chosen])
            assigned[pool[chosen]] = _assign(names, bits, drawn, dates[pool[chosen]], params)
    return assigned[unit]


def _strata(corpora: NDArray[np.int64], labels: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The stratum of each unit: its label in its corpus; one with few units joins the same label of the corpus that has most."""
    strata = corpora * k + labels
    counts = np.bincount(strata, minlength=(int(corpora.max()) + 1) * k).reshape(-1, k)
    few = counts[corpora, labels] < FEW
    strata[few] = counts.argmax(axis=0)[labels[few]] * k + labels[few]
    return strata


def _assign(names: Sequence[str], bits: int, units: Units, dates: NDArray[np.str_], params: SplitParams) -> Codes:
    tested = bool(bits & _MAY_TEST)
    if params.method == "date":
        return by_date(dates, units.sizes, params.validation, params.test)
    validation = float(params.validation) if bits & _MAY_VALIDATION else 0.0
    if params.method == "kfold" and tested:
        folds = kfold(units, params.folds, params.seed)
        rest = np.flatnonzero(folds != params.fold)
        assigned = np.full(len(folds), TEST, dtype=np.int8)
        assigned[rest] = stratified(units.take(rest), names, validation, 0.0, params.seed)
        return assigned
    return stratified(units, names, validation, float(params.test) if tested else 0.0, params.seed)


def names(splits: Codes) -> NDArray[np.object_]:
    """The names of split codes, None where a row is set aside."""
    return np.array([*SPLITS, None], dtype=object)[splits]
