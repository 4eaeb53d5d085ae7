"""Which rows of the raw corpus belong together: near-duplicates, and what a corpus's ``group`` column joins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finsight.domain.dedup import Hashes, Ids, equal_pairs, groups, min_hashes, near_groups
from finsight.domain.records import SPLITS
from finsight.pipeline.raw import hash_numbers
from finsight.pipeline.row_groups import RowGroup, Run, in_threads, row_groups
from finsight.pipeline.splitting import NO_SPLIT, Columns
from finsight.pipeline.texts import normal_texts
from finsight.pipeline.words import features, split_words

Report = Callable[[str, int], None]
READ = ["text", "hash", "label", "corpus", "split", "date", "group"]


@dataclass(frozen=True, slots=True)
class Corpus:
    """All rows, without their texts.

    :param near: for each row the number of its near-duplicate group, which is the number of the group's first row.
    :param unit_of: likewise, rows of one ``group`` column joined too.
    """

    columns: Columns
    near: Ids
    unit_of: Ids


class Looked(NamedTuple):
    """A row group without its texts, and what makes them alike: see :func:`finsight.pipeline.words.features` and
    :func:`finsight.domain.dedup.min_hashes`."""

    table: pa.Table
    in_order: NDArray[np.uint64]
    sets: Hashes
    offsets: Ids
    keys: Hashes | None
    sketch: NDArray[np.uint8] | None


def looking(near_duplicates: bool) -> Callable[[RowGroup], Looked]:
    """A function that looks at a row group.

    :param near_duplicates: whether more than equal texts are wanted.
    """

    def look(group: RowGroup) -> Looked:
        table = group.read(READ)
        sets, offsets, in_order = features(split_words(normal_texts(table["text"])))
        keys, sketch = min_hashes(sets, offsets) if near_duplicates else (None, None)
        return Looked(table.drop_columns("text"), in_order, sets, offsets, keys, sketch)

    return look


def read_corpus(paths: Sequence[Path], near_duplicates: float, progress: Report | None = None, run: Run = in_threads) -> Corpus:
    """The columns of all rows of some tables, and which rows belong together.

    :param near_duplicates: Jaccard similarity from which two texts are near-duplicates; 0: only texts that are equal up to case and
        punctuation.
    :param run: where row groups are looked at; what they have in common is found here.
    """
    parts = []
    for part in run(partial(looking, near_duplicates > 0), [group for path in paths for group in row_groups(path)]):
        parts.append(part)
        if progress:
            progress("compared", part.table.num_rows)
    tables, in_order, sets, offsets, keys, sketches = map(list, zip(*parts, strict=True))
    del parts, part  # a million rows' features are there once, not twice
    table = pa.concat_tables(tables)
    columns = _columns(table)
    equal = np.concatenate([equal_pairs(columns.texts), equal_pairs(np.concatenate(in_order))])
    near = groups(equal, np.arange(len(columns.hashes)))
    if near_duplicates:
        ends = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(more) for more in offsets]))])
        near = near_groups(near, _joined(keys), _joined(sketches), _joined(sets), ends, near_duplicates)
    return Corpus(columns, near, groups(equal_pairs(_group_codes(table)), near))


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """One array of all parts, which are let go."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def _columns(table: pa.Table) -> Columns:
    """The columns as numbers."""

    def numbered(name: str, values: Sequence[str]) -> NDArray[np.int64]:
        found = pa.compute.index_in(table[name], pa.array(values, pa.string())).fill_null(NO_SPLIT)
        return np.asarray(found.to_numpy(), dtype=np.int64)

    labels, corpora = (sorted(set(table[name].unique().to_pylist())) for name in ("label", "corpus"))
    hashes = table["hash"].to_pylist()
    return Columns(
        hashes=hashes,
        texts=hash_numbers(table["hash"].combine_chunks())[:, 0],
        labels=numbered("label", labels),
        label_names=labels,
        corpora=numbered("corpus", corpora),
        corpus_names=corpora,
        own=numbered("split", SPLITS).astype(np.int8),
        dates=np.array(table["date"].fill_null("").to_pylist(), dtype=np.str_),
    )


def _group_codes(table: pa.Table) -> NDArray[np.uint64]:
    """A number for each (corpus, ``group`` column), 0 where there is no group."""
    both = pa.compute.binary_join_element_wise(table["corpus"], table["group"], "\0").combine_chunks().dictionary_encode()
    return np.asarray(both.indices.fill_null(-1).to_numpy().astype(np.int64) + 1, dtype=np.uint64)
