"""Rows of any number, read in shards of a fixed size from CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import IO, Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from finsight.errors import DataError

_BUFFER = 2**20  # bytes of a column that are read at a time; without it a whole row group, often a million rows
_LONGEST = 2**24  # characters of a row of CSV: a quote that is never closed would take the rest of the file into memory
READ = (".csv", ".tsv", ".jsonl", ".parquet")

Shard: TypeAlias = "pa.Table | list[dict[str, Any]]"
"""Rows as their file has them: Parquet is a table, lines of JSON and of CSV have a value for each name."""


def read_shards(path: Path, rows: int) -> Generator[Shard, None, None]:
    """The rows of a file, ``rows`` at a time, in their order; only some shards are in memory at any time.

    Columns of CSV are strings, as they stand in the file.

    :raises DataError: when the file is missing, of another kind, or damaged.
    """
    if path.suffix not in READ:
        raise DataError(f"{path}: can't read {path.suffix or 'a file without a suffix'}; give one of {', '.join(READ)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix == ".parquet":
        return of_size(_parquet(path, rows), rows)
    return _json_lines(path, rows) if path.suffix == ".jsonl" else _delimited(path, rows)


def names(shard: Shard) -> list[str]:
    """The columns of its rows."""
    return list(shard.column_names) if isinstance(shard, pa.Table) else list(dict.fromkeys(name for row in shard for name in row))


def texts(path: Path | str, shard: Shard, column: str) -> list[str | None]:
    """The text of each row; None where there is none, or a blank one.

    :raises DataError: when the column holds something else.
    """
    if isinstance(shard, pa.Table):
        found = shard[column]
        if pa.types.is_dictionary(found.type):
            found = found.cast(found.type.value_type)
        if not any(is_a(found.type) for is_a in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)):
            raise DataError(f"{path}: column {column!r} holds {found.type}, expected texts: name another with --text")
        values = found.to_pylist()
    else:
        values = [row.get(column) for row in shard]
        if others := [value for value in values if not isinstance(value, str | None)]:
            raise DataError(f"{path}: {column!r} is {json.dumps(others[0])[:40]} in a row, expected a text: name another with --text")
    # JSON may escape half a character; what can't be UTF-8 can't be tokenised.
    return [text.encode("utf-8", "replace").decode() if text and text.strip() else None for text in values]


def of_size(tables: Generator[pa.Table, None, None], rows: int) -> Generator[pa.Table, None, None]:
    """The same rows in tables of a size; the last one may have less."""
    waiting: pa.Table | None = None
    with closing(tables):
        for table in tables:
            waiting = pa.concat_tables([waiting, table]) if waiting is not None else table
            while waiting.num_rows >= rows:
                yield waiting.slice(0, rows)
                waiting = waiting.slice(rows)
    if waiting is not None and waiting.num_rows:
        yield waiting


def _parquet(path: Path, rows: int) -> Generator[pa.Table, None, None]:
    # Opened here: Arrow takes a name with a colon for an address.
    with path.open("rb") as binary:
        yield from parquet_rows(path, binary, rows)


def parquet_rows(
    path: Path | str, binary: IO[bytes], at_once: int, first: int = 0, rows: int | None = None
) -> Generator[pa.Table, None, None]:
    """Rows of an open Parquet file in their order, ``at_once`` at most at a time; row groups that have none of them are not read.

    :param path: for messages.
    :param first: number of the first row that is wanted.
    :param rows: how many are wanted; all that follow when None.
    :raises DataError: when it is damaged.
    """
    with _whole_parquet(path), pq.ParquetFile(binary, buffer_size=_BUFFER) as file:
        _once(path, file.schema_arrow.names)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        *starts, whole = accumulate(sizes, initial=0)
        end = whole if rows is None else first + rows
        groups = [i for i, (start, size) in enumerate(zip(starts, sizes, strict=True)) if start < end and start + size > first]
        here = starts[groups[0]] if groups else end
        for batch in file.iter_batches(at_once, row_groups=groups):
            batch.validate(full=True)
            wanted = batch.slice(max(0, first - here), max(0, min(end, here + len(batch)) - max(first, here)))
            here += len(batch)
            if len(wanted):
                yield pa.Table.from_batches([wanted])


@contextmanager
def _whole_parquet(path: Path | str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's, not Arrow's
        raise DataError(f"{path}: not a whole Parquet file ({' '.join(str(error).split())[:120]}); write it again") from None


@dataclass(frozen=True, slots=True)
class Footer:
    """What the end of a Parquet file says of it.

    :param uncompressed: bytes of its rows in memory, roughly.
    """

    rows: int
    uncompressed: int
    schema: pa.Schema


def parquet_footer(path: Path | str, binary: IO[bytes]) -> Footer:
    """Read the end of an open Parquet file.

    :param path: for messages.
    :raises DataError: when it is damaged, or a column stands twice.
    """
    with _whole_parquet(path), pq.ParquetFile(binary) as file:
        _once(path, file.schema_arrow.names)
        about = file.metadata
        size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        return Footer(about.num_rows, size, file.schema_arrow)


def nulls(path: Path | str, binary: IO[bytes], column: str) -> int:
    """How many rows of an open Parquet file, one that we wrote, have nothing in a column.

    :raises DataError: when it is damaged.
    """
    with _whole_parquet(path), pq.ParquetFile(binary) as file:
        about, number = file.metadata, file.schema_arrow.names.index(column)
        # Ours end with plain columns, so that counted from the end names and leaves agree.
        leaf = about.num_columns - (len(file.schema_arrow) - number)
        return sum(about.row_group(i).column(leaf).statistics.null_count for i in range(about.num_row_groups))


def _delimited(path: Path, rows: int) -> Generator[Shard, None, None]:
    csv.field_size_limit(sys.maxsize)  # of the whole process; a text may be longer than the 131,072 characters that it is set to
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Strict: a quote that is never closed would take all lines up to the next one into its cell.
            bounded = _Lines(file)
            lines = csv.reader(bounded, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
            head = next((line for line in lines if line), [])
            _once(path, head)
            objects = _cells(path, lines, head, bounded)
            while shard := list(islice(objects, rows)):
                yield shard
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; convert it, for example with iconv") from None
    except csv.Error as error:
        raise DataError(f"{path}:{lines.line_num}: {error}; mend the quotes, or give the file as JSON lines or Parquet") from None


class _Lines:
    """The lines of a file; too many characters between two times that :attr:`row` is set to 0 are an error of CSV."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self.row = file, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(_LONGEST + 1 - self.row)
        self.row += len(line)
        if self.row > _LONGEST:
            raise csv.Error(f"a row of more than {_LONGEST} characters")
        if not line:
            raise StopIteration
        return line


def _cells(path: Path, lines: Any, head: Sequence[str], bounded: _Lines) -> Iterator[dict[str, Any]]:
    bounded.row = 0
    for line in lines:
        bounded.row = 0
        if not line and len(head) != 1:
            continue
        cells = line or [""]  # in a file of one column an empty line is a row with an empty text
        if len(cells) != len(head):
            raise DataError(f"{path}:{lines.line_num}: expected {len(head)} columns, got {len(cells)}; mend the line")
        yield dict(zip(head, cells, strict=True))


def _once(path: Path | str, head: Sequence[str]) -> None:
    if twice := sorted(name for name, times in Counter(head).items() if times > 1):
        raise DataError(f"{path}: column {twice[0][:100]!r} stands twice in the head; rename one")


def _json_lines(path: Path, rows: int) -> Generator[Shard, None, None]:
    with path.open("rb") as file:
        objects = _objects(path, file)
        while shard := list(islice(objects, rows)):
            yield shard


def _objects(path: Path, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not JSON ({error}); mend the line") from None
        if not isinstance(found, dict):
            raise DataError(f"{path}:{number}: got a JSON {type(found).__name__}, expected an object")
        yield found
