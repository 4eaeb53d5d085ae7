"""Rows of any number, read in shards of a fixed size from CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeAlias

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from finsight.errors import DataError

READ = (".csv", ".tsv", ".jsonl", ".parquet")

Shard: TypeAlias = "pa.Table | list[dict[str, Any]]"
"""Rows as their file has them: CSV and Parquet are tables, lines of JSON may each have other names and types."""


def read_shards(path: Path, rows: int) -> Generator[Shard, None, None]:
    """The rows of a file, ``rows`` at a time, in their order; only some shards are in memory at any time.

    Columns of CSV are strings, as they stand in the file.

    :raises DataError: when the file is missing, of another kind, or damaged.
    """
    if path.suffix not in READ:
        raise DataError(f"{path}: can't read {path.suffix or 'a file without a suffix'}; give one of {', '.join(READ)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix == ".jsonl":
        return _json_lines(path, rows)
    return _of_size(_parquet(path, rows) if path.suffix == ".parquet" else _delimited(path), rows)


def names(shard: Shard) -> list[str]:
    """The columns of its rows."""
    return list(shard.column_names) if isinstance(shard, pa.Table) else list(dict.fromkeys(name for row in shard for name in row))


def texts(path: Path, shard: Shard, column: str) -> list[str | None]:
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


def _of_size(tables: Generator[pa.Table, None, None], rows: int) -> Generator[Shard, None, None]:
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
    try:
        with pq.ParquetFile(path) as file:
            _once(path, file.schema_arrow.names)
            for batch in file.iter_batches(rows):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's, not Arrow's
        raise DataError(f"{path}: not a whole Parquet file ({' '.join(str(error).split())[:120]}); write it again") from None


def _delimited(path: Path) -> Generator[pa.Table, None, None]:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = next((row for row in csv.reader(file, delimiter=delimiter) if row), [])
        _once(path, head)
        with pc.open_csv(
            path,
            # In a file of one column an empty line is a row with an empty text.
            parse_options=pc.ParseOptions(delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=len(head) != 1),
            convert_options=pc.ConvertOptions(column_types=dict.fromkeys(head, pa.string()), strings_can_be_null=False),
        ) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; convert it, for example with iconv") from None
    except (pa.ArrowInvalid, csv.Error) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())[:200]}; mend the file, or give it as JSON lines or Parquet") from None


def _once(path: Path, head: Sequence[str]) -> None:
    if twice := sorted({name for name in head if head.count(name) > 1}):
        raise DataError(f"{path}: column {twice[0]!r} stands twice in the head; rename one")


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
