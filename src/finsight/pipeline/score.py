"""Score: a file of texts of any size, shard by shard, so that a killed run goes on and no row is lost or moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from finsight.errors import DataError
from finsight.files import atomic_file
from finsight.pipeline.predict import Model
from finsight.pipeline.scored_shards import WRITTEN, as_objects, common_schema, join_shards, shard_folder, writable, write_shard
from finsight.pipeline.shards import names, read_shards, texts

ROWS = 2048  # a shard: what a kill loses at most, some seconds of work


@dataclass(frozen=True, slots=True)
class Scored:
    """:param before: rows that an earlier run had scored; ``without_text`` have nothing to score and got no prediction."""

    rows: int
    before: int
    without_text: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the whole file is like: ``rows``, those ``without_text``, its ``columns``, and the ``schema`` where it goes to Parquet."""

    rows: int
    without_text: int
    columns: list[str]
    schema: pa.Schema | None


def score(
    source: Path,
    target: Path,
    column: str,
    model: Model,
    digest: str,
    progress: Callable[[str, int, int | None], None] = lambda *_: None,
    rows: int = ROWS,
) -> Scored:
    """Write the rows of ``source`` with all their columns, and what the model says of their texts, to ``target``.

    The file is read through once before the first text is scored, so that what is wrong with its end is said at the beginning. Finished
    shards stand in ``TARGET.parts`` until all are there: the same command goes on after a kill. Added are ``predicted``, ``prob_…`` of each
    label and, where labels have an order, ``score``; a row without a text keeps its place and gets none of them.

    :param digest: of the bundle; shards of another one are not gone on from.
    :param progress: is told what is done with how many more rows, and of how many in all where that is known.
    :raises DataError: when a file can't be read, lacks the column, has one that would be added, changes meanwhile, or can't be written as
        ``target``.
    """
    if target.suffix not in WRITTEN:
        raise DataError(f"{target}: can't write {target.suffix or 'a file without a suffix'}; give one of {', '.join(WRITTEN)}")
    if target.is_dir():
        raise DataError(f"{target}: is a folder; name a file")
    if source.resolve() == target.resolve():
        raise DataError(f"{target}: is the file that is read; write to another one")
    parts, parquet = target.with_name(f"{target.name}.parts"), target.suffix == ".parquet"
    added = added_names(model.labels, model.ordered)
    seen = _look_through(source, column, added, parquet, rows, progress)
    columns = seen.columns if target.suffix == ".csv" else None
    about = source.stat()
    made_of = {"source": str(source.resolve()), "bytes": about.st_size, "modified": about.st_mtime_ns, "column": column}
    written: list[Path] = []
    count = before = 0
    with shard_folder(parts, {**made_of, "bundle": digest, "rows": rows}), closing(read_shards(source, rows)) as shards:
        for number, shard in enumerate(shards):
            part = parts / f"{number:08d}{target.suffix}"
            if part.exists():
                before += len(shard)
            else:
                with atomic_file(part) as partial:
                    write_shard(partial, source, shard, predicted_columns(texts(source, shard, column), model), seen.schema, columns)
            written.append(part)
            count += len(shard)
            progress("scored", len(shard), seen.rows)
        now = source.stat()
        if (count, now.st_size, now.st_mtime_ns) != (seen.rows, about.st_size, about.st_mtime_ns):
            raise DataError(f"{source}: has changed since this run began; run the command again")
        with atomic_file(target) as partial:
            join_shards(written, partial, parquet, [*columns, *added] if columns is not None else ())
    return Scored(seen.rows, before, seen.without_text)


def _look_through(
    source: Path, column: str, added: Sequence[str], parquet: bool, rows: int, progress: Callable[[str, int, int | None], None]
) -> _Seen:
    """Read the file to its end.

    :raises DataError: when something in it will not do.
    """
    schema: pa.Schema | None = None
    known: dict[str, None] = {}
    count = without = 0
    with closing(read_shards(source, rows)) as shards:
        for shard in shards:
            known |= dict.fromkeys(names(shard))
            if taken := [name for name in added if name in known]:
                raise DataError(f"{source}: column {taken[0]!r} is one that is added; rename it")
            if isinstance(shard, pa.Table) and column not in known:
                break
            count += len(shard)
            without += texts(source, shard, column).count(None)
            if parquet:
                schema = common_schema(source, shard, schema)
            else:
                as_objects(source, shard)
            progress("read", len(shard), None)
    if not (count or known):
        raise DataError(f"{source}: no rows")
    if column not in known:
        raise DataError(f"{source}: no column {column!r}; it has {', '.join(known) or 'none'}: name one with --text")
    return _Seen(count, without, list(known), writable(source, schema) if schema is not None else None)


def added_names(labels: Sequence[str], ordered: bool) -> list[str]:
    """The columns that are added.

    :param ordered: whether the labels have an order, and rows a score.
    """
    return ["predicted", *(f"prob_{label}" for label in labels), *(["score"] if ordered else [])]


def predicted_columns(asked: Sequence[str | None], model: Model) -> dict[str, pa.Array]:
    """The columns that are added, for each text; nothing where there is none."""
    there = np.array([text is not None for text in asked], dtype=bool)
    probs = np.full((len(asked), len(model.labels)), np.nan)
    probs[there] = model.probabilities([text for text in asked if text is not None])
    labels = np.array(model.labels, dtype=object)
    added = {"predicted": pa.array(np.where(there, labels[np.nan_to_num(probs).argmax(axis=1)], None), pa.string())}
    added |= {f"prob_{label}": pa.array(probs[:, i].astype(np.float32), mask=~there) for i, label in enumerate(model.labels)}
    if (scores := model.scores(probs)) is not None:
        added["score"] = pa.array(scores, mask=~there)
    return added
