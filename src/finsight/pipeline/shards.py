"""Tables of any size in shards of a fixed number of rows: read from CSV, JSON lines or Parquet, written as JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from finsight.errors import DataError
from finsight.pipeline.raw import readable

READ, WRITTEN = (".csv", ".tsv", ".jsonl", ".parquet"), (".jsonl", ".parquet")


def read_shards(path: Path, rows: int) -> Generator[pa.Table, None, None]:
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


def write_shard(path: Path, table: pa.Table, parquet: bool, like: Path | None = None) -> None:
    """Write one shard, as Parquet or else as JSON lines.

    :param like: the first shard; Parquet has one type a column, and it says which.
    :raises DataError: when a column has another type than there.
    """
    if parquet:
        if like:
            table = _cast(table, pq.read_schema(like))
        pq.write_table(table, path)
        return
    with path.open("w", encoding="utf-8") as file:
        for row in table.to_pylist():
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def join_shards(parts: Sequence[Path], path: Path, parquet: bool) -> None:
    """Write all shards to one file, in their order."""
    with ExitStack() as files:
        if parquet:
            writer = files.enter_context(pq.ParquetWriter(path, pq.read_schema(parts[0])))
            for part in parts:
                writer.write_table(pq.read_table(part))
        else:
            whole = files.enter_context(path.open("wb"))
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole)


def _of_size(tables: Generator[pa.Table, None, None], rows: int) -> Generator[pa.Table, None, None]:
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
    with readable(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(rows):
            yield pa.Table.from_batches([batch])


def _delimited(path: Path) -> Generator[pa.Table, None, None]:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file, delimiter=delimiter), [])
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"{path}: column {twice[0]!r} stands twice in the head; rename one")
        with pc.open_csv(
            path,
            parse_options=pc.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pc.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        ) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; convert it, for example with iconv") from None
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: {' '.join(str(error).split())[:200]}; mend the file, or give it as JSON lines or Parquet") from None


def _json_lines(path: Path, rows: int) -> Generator[pa.Table, None, None]:
    with path.open("rb") as file:
        objects = _objects(path, file)
        while shard := list(islice(objects, rows)):
            names = list(dict.fromkeys(name for row in shard for name in row))
            columns = {}
            for name in names:
                try:
                    columns[name] = pa.array([row.get(name) for row in shard])
                except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                    what = " ".join(str(error).split())[:120]
                    raise DataError(f"{path}: {name!r} has values of several types ({what}); make them one type") from None
            yield pa.table(columns)


def _objects(path: Path, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON ({error}); mend the line") from None
        if not isinstance(found, dict):
            raise DataError(f"{path}:{number}: got a JSON {type(found).__name__}, expected an object")
        yield found


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    for name in table.column_names:
        if name not in schema.names:
            raise DataError(f"column {name!r} is not in the first rows, and Parquet has the same columns throughout; write .jsonl")
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
        elif table.schema.field(field.name).type != field.type:
            at = table.schema.get_field_index(field.name)
            try:
                table = table.set_column(at, field, table[field.name].cast(field.type))
            except pa.ArrowInvalid:
                there = table.schema.field(at).type
                raise DataError(f"column {field.name!r} is {field.type} in the first rows and {there} further on; write .jsonl") from None
    return table.select(schema.names)
