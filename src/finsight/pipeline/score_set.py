"""Score a data set: files of Parquet in one place, to parts in another, by any number of workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from socket import gethostname

import pyarrow as pa
import pyarrow.parquet as pq

from finsight.errors import DataError
from finsight.pipeline.predict import Model
from finsight.pipeline.score import ROWS, Scored, predicted_columns
from finsight.pipeline.score_parts import MadeOf, Part, begin, end, plan
from finsight.pipeline.scored_shards import scored_table, writable
from finsight.pipeline.shards import of_size, parquet_rows, texts
from finsight.shard_ports import FileFacts, FileStore, WorkerPool


def score_set(
    source: FileStore,
    files: Mapping[str, FileFacts],
    target: FileStore,
    made_of: MadeOf,
    added: Sequence[str],
    pool: WorkerPool,
    open_model: Callable[[], Model],
    progress: Callable[[str, int, int | None], None] = lambda *_: None,
) -> Scored:
    """Write the rows of files with all their columns, and what the model says of their texts, to ``part-….parquet`` in ``target``.

    Parts, by name, have the rows in the order of ``files``; each is written whole or not at all. A run that was killed is gone on with by
    the next one of the same source, column and bundle.

    :param files: of ``source``, see :func:`finsight.pipeline.score_parts.parquet_files`.
    :param added: columns that the model adds.
    :param open_model: picklable; each worker calls it once.
    :raises DataError: when a file can't be read or lacks the column, one changes meanwhile, or ``target`` holds something else.
    """
    parts = plan(source, files, made_of, added, ROWS, lambda rows: progress("looked at", rows, None))
    total = sum(part.rows for part in parts)
    if not total:
        raise DataError(f"{source.place}: no rows")
    done = {part.name: part for part in begin(target, made_of, parts)}
    before = sum(part.rows for part in done.values())
    if before:
        progress("scored", before, total)
    left = [part for part in parts if part.name not in done]
    for part in pool.run(ScoreParts(source, target, made_of.column, open_model), left):
        done[part.name] = part
        progress("scored", part.rows, total)
    finished = [done[part.name] for part in parts]
    end(target, made_of, finished)
    return Scored(total, before, sum(part.without_text or 0 for part in finished))


@dataclass(frozen=True, slots=True)
class ScoreParts:
    """What a worker is made ready with: it scores one part at a time."""

    source: FileStore
    target: FileStore
    column: str
    open_model: Callable[[], Model]

    def __call__(self) -> Callable[[Part], Part]:
        """Load the model."""
        model = self.open_model()
        return lambda part: self._score(part, model)

    def _score(self, part: Part, model: Model) -> Part:
        """Texts go to the model in the portions in which :func:`finsight.pipeline.score.score` has them: its numbers depend on them in the
        last digit.
        """
        where, tables, without = f"{self.source.place}/{part.source}", [], 0
        with self.source.open(part.source) as binary:
            for table in of_size(parquet_rows(where, binary, ROWS, part.first, part.rows), ROWS):
                asked = texts(where, table, self.column)
                without += asked.count(None)
                tables.append(scored_table(where, table, predicted_columns(asked, model), writable(where, table.schema)))
        if self.source.facts(part.source) != FileFacts(part.size, part.changed):
            raise DataError(f"{where}: on {gethostname()} it is not the file that it was when this run began; run the command again")
        written = BytesIO()
        pq.write_table(pa.concat_tables(tables), written)
        self.target.put(part.name, written.getvalue())
        return replace(part, bytes=written.tell(), without_text=without)
