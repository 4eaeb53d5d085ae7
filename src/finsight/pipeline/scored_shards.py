"""Scored shards on their way to one file of CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from finsight.errors import ArtifactError, DataError
from finsight.files import read_json, write_json
from finsight.pipeline.shards import Shard, names

WRITTEN = (".csv", ".jsonl", ".parquet")
_OF, _LOCK = "of.json", "lock"  # in a folder of finished shards: what they were made of, and who is at it


@contextmanager
def shard_folder(folder: Path, made_of: Mapping[str, Any]) -> Iterator[None]:
    """The folder of finished shards, as it was left if they were made of the same, and empty otherwise; one process at a time has it.

    It goes when the block ends well.

    :raises DataError: when another process has it, or it is somebody else's.
    """
    if folder.is_symlink():
        raise DataError(f"{folder}: is a link, and the shards need a folder of their own; remove the link")
    folder.mkdir(parents=True, exist_ok=True)
    there = {path.name for path in folder.iterdir()} - {_LOCK}
    if there and not any(name.startswith(_OF) for name in there):
        raise DataError(f"{folder}: holds files that no `finsight score` wrote; move them away")
    with (folder / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{folder}: another `finsight score` is at it; let it end, or write to another file") from None
        if not os.fstat(lock.fileno()).st_nlink:
            raise DataError(f"{folder}: another `finsight score` has just ended; run the command again if you want to score once more")
        if not _same(folder, made_of):
            _remove_shards(folder)
            write_json(folder / _OF, made_of)
        yield
        # In this order: whatever a kill leaves is a folder of ours, and nobody else gets it before it is empty.
        _remove_shards(folder)
        (folder / _OF).unlink()
        (folder / _LOCK).unlink()
        folder.rmdir()


def _remove_shards(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name not in (_OF, _LOCK):
            path.unlink()


def _same(folder: Path, made_of: Mapping[str, Any]) -> bool:
    try:
        return read_json(folder / _OF, "finsight score") == made_of
    except ArtifactError:
        return False


def common_schema(path: Path, shard: Shard, schema: pa.Schema | None) -> pa.Schema:
    """The types that a shard and those before it have in common; Parquet has one a column.

    :raises DataError: when there is none.
    """
    if isinstance(shard, pa.Table):
        return shard.schema
    with _fits_parquet(path):
        here = _table(shard, dict.fromkeys(names(shard))).schema
        return pa.unify_schemas([schema, here], promote_options="permissive") if schema else here


def writable(path: Path | str, schema: pa.Schema) -> pa.Schema:
    """The schema with strings where no row has a value.

    :raises DataError: when Parquet can't hold it.
    """
    schema = pa.schema([field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in schema], schema.metadata)
    with _fits_parquet(path):
        pq.write_table(schema.empty_table(), BytesIO())
    return schema


def write_shard(
    path: Path, source: Path, shard: Shard, added: Mapping[str, pa.Array], schema: pa.Schema | None, columns: Sequence[str] | None = None
) -> None:
    """Write the rows of a shard and further columns.

    :param source: where the rows come from, for the message.
    :param schema: of the rows in Parquet.
    :param columns: of the rows in CSV, whose head is left to :func:`join_shards`; with neither, JSON lines are written.
    :raises DataError: when a row does not fit the schema.
    """
    if schema is not None:
        table = scored_table(source, shard, added, schema)
        with _fits_parquet(source), path.open("wb") as binary:  # Arrow takes a name with a colon for an address
            pq.write_table(table, binary)
        return
    further = zip(*(values.to_pylist() for values in added.values()), strict=True)
    rows = (row | dict(zip(added, values, strict=True)) for row, values in zip(as_objects(source, shard), further, strict=True))
    with _csv_file(path) if columns is not None else path.open("w", encoding="utf-8") as file:
        if columns is not None:
            csv.writer(file).writerows([_cell(row.get(name)) for name in (*columns, *added)] for row in rows)
        else:
            file.writelines(map(_line, rows))


def scored_table(source: Path | str, shard: Shard, added: Mapping[str, pa.Array], schema: pa.Schema) -> pa.Table:
    """The rows of a shard with further columns, for Parquet; the parameters and errors are those of :func:`write_shard`."""
    with _fits_parquet(source):
        table = shard if isinstance(shard, pa.Table) else _table(shard, {field.name: field.type for field in schema})
        table = table.cast(schema)
        for name, values in added.items():
            table = table.append_column(name, values)
    return table


def as_objects(path: Path, shard: Shard) -> list[dict[str, Any]]:
    """The rows for lines of JSON.

    :raises DataError: when one has a value that there is no word for, such as a date after the year 9999.
    """
    if not isinstance(shard, pa.Table):
        return shard
    try:
        rows: list[dict[str, Any]] = shard.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise DataError(f"{path}: JSON can't hold its rows ({' '.join(str(error).split())[:160]}); write .parquet") from None
    return rows


def join_shards(parts: Sequence[Path], path: Path, parquet: bool, head: Sequence[str] = ()) -> None:
    """Write all shards to one file, in their order.

    :param head: names of columns, where the file begins with them.
    """
    if head:
        with _csv_file(path) as file:
            csv.writer(file).writerow(head)
    with path.open("ab" if head else "wb") as whole:
        if not parquet:
            for part in parts:
                with part.open("rb") as shard:
                    shutil.copyfileobj(shard, whole)
            return
        with ExitStack() as closing:
            writer: pq.ParquetWriter | None = None
            for part in parts:
                with part.open("rb") as file:
                    table = pq.read_table(file)
                writer = writer or closing.enter_context(pq.ParquetWriter(whole, table.schema))
                writer.write_table(table)


def _table(rows: Sequence[Mapping[str, Any]], types: Mapping[str, pa.DataType | None]) -> pa.Table:
    """:raises ValueError: when the values of a column have no type in common."""
    columns = {}
    for name, type_ in types.items():
        values = [row.get(name) for row in rows]
        columns[name] = pa.array(values, type_)
        if any(_truth_as_number(value, columns[name].type) for value in values):
            raise ValueError(f"{name}: true or false beside numbers")
    return pa.table(columns)


def _truth_as_number(value: Any, type_: pa.DataType) -> bool:
    """Whether true or false became 1.0 or 0.0, which Arrow lets pass."""
    if isinstance(value, bool):
        return bool(pa.types.is_floating(type_))
    if isinstance(value, list):
        return any(_truth_as_number(part, type_.value_type) for part in value)
    if isinstance(value, dict):
        return any(_truth_as_number(part, type_.field(name).type) for name, part in value.items())
    return False


@contextmanager
def _fits_parquet(path: Path | str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, ValueError, OverflowError) as error:
        what = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: Parquet can't hold its rows ({what}); write .jsonl") from None


def _csv_file(path: Path) -> IO[str]:
    return path.open("w", encoding="utf-8", errors="replace", newline="")  # JSON may escape half a character, which is no UTF-8


def _cell(value: Any) -> Any:
    """A value as CSV has it: what JSON nests stays JSON."""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (dict, list, bool)) else value


def _line(row: Mapping[str, Any]) -> str:
    try:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False, default=str)
        line.encode()
    except ValueError:  # half a character, or a number that JSON has no word for
        line = json.dumps(_finite(row), default=str)
    return line + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
