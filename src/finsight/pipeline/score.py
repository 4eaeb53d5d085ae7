"""Score: a file of texts of any size, shard by shard, so that a killed run goes on and no row is lost or moved."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finsight.errors import ArtifactError, DataError
from finsight.files import atomic_file, read_json, write_json
from finsight.pipeline.predict import Model
from finsight.pipeline.shards import WRITTEN, join_shards, read_shards, write_shard

ROWS = 2048  # a shard: what a kill loses at most, some seconds of work
_OF = "of.json"  # in the folder of finished shards: what they were made of


@dataclass(frozen=True, slots=True)
class Scored:
    """:param before: rows that an earlier run had scored; ``without_text`` have nothing to score and got no prediction."""

    rows: int
    before: int
    without_text: int


def score(
    source: Path,
    target: Path,
    column: str,
    model: Model,
    digest: str,
    progress: Callable[[int], None] = lambda _: None,
    rows: int = ROWS,
) -> Scored:
    """Write the rows of ``source`` with all their columns, and what the model says of their texts, to ``target``.

    Finished shards stand in ``TARGET.parts`` until all are there, so that the same command goes on after a kill. Added are ``predicted``,
    ``prob_…`` of each label and, where labels have an order, ``score``; a row without a text keeps its place and gets none of them.

    :param digest: of the bundle; shards of another one are not gone on from.
    :param progress: is told how many more rows are done.
    :raises DataError: when a file can't be read, lacks the column, or has one that would be added.
    """
    if target.suffix not in WRITTEN:
        raise DataError(f"{target}: can't write {target.suffix or 'a file without a suffix'}; give one of {', '.join(WRITTEN)}")
    parts, parquet = target.with_name(f"{target.name}.parts"), target.suffix == ".parquet"
    shards = read_shards(source, rows)
    about = source.stat()
    made_of = {"source": str(source.resolve()), "bytes": about.st_size, "modified": about.st_mtime_ns, "column": column}
    _begin(parts, {**made_of, "bundle": digest, "rows": rows})
    written: list[Path] = []
    done = before = without = 0
    with closing(shards):
        for number, table in enumerate(shards):
            part = parts / f"{number:08d}{target.suffix}"
            if column not in table.column_names:
                raise DataError(f"{source}: no column {column!r}; it has {', '.join(table.column_names) or 'none'}: name one with --text")
            without += table[column].null_count
            if part.exists():
                before += table.num_rows
            else:
                found = _with_predictions(source, table, column, model)
                with atomic_file(part) as partial:
                    write_shard(partial, found, parquet, written[0] if written else None)
            written.append(part)
            done += table.num_rows
            progress(table.num_rows)
    if not written:
        raise DataError(f"{source}: no rows")
    with atomic_file(target) as partial:
        join_shards(written, partial, parquet)
    shutil.rmtree(parts)
    return Scored(done, before, without)


def _begin(parts: Path, made_of: dict[str, Any]) -> None:
    """The folder of finished shards: as it was left, if they were made of the same."""
    try:
        same = read_json(parts / _OF, "finsight score") == made_of
    except ArtifactError:
        same = False
    if not same:
        shutil.rmtree(parts, ignore_errors=True)
        write_json(parts / _OF, made_of)


def _with_predictions(source: Path, table: pa.Table, column: str, model: Model) -> pa.Table:
    kind, missing = table[column].type, table[column].null_count
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or missing == table.num_rows):
        raise DataError(f"{source}: column {column!r} holds {kind}, expected texts: name another with --text")
    texts = table[column].to_pylist()
    there = np.array([text is not None for text in texts])
    probs = np.full((len(texts), len(model.labels)), np.nan)
    probs[there] = model.probabilities([text for text in texts if text is not None])
    labels = np.array(model.labels, dtype=object)
    added: dict[str, pa.Array] = {"predicted": pa.array(np.where(there, labels[np.nan_to_num(probs).argmax(axis=1)], None), pa.string())}
    added |= {f"prob_{label}": pa.array(probs[:, i].astype(np.float32), mask=~there) for i, label in enumerate(model.labels)}
    if (scores := model.scores(probs)) is not None:
        added["score"] = pa.array(scores, mask=~there)
    if taken := [name for name in added if name in table.column_names]:
        raise DataError(f"{source}: column {taken[0]!r} is one that is added; rename it")
    for name, values in added.items():
        table = table.append_column(name, values)
    return table
