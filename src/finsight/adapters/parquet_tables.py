"""Parquet as a table, streamed by batches of the wanted columns."""

from __future__ import annotations

import io
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from finsight.adapters.compressed import FREE, MAX_RATIO, is_disks, one_line
from finsight.adapters.corpus_files import SourceFile
from finsight.adapters.table_formats import Layout, Rows
from finsight.errors import DataError

BATCH = 512
IN_MEMORY = 1 << 30
"""Bytes of a Parquet file that is itself compressed: its end must be read first, so it is unpacked in memory."""


def rows(source: SourceFile, layout: Layout) -> Rows:
    """See :func:`finsight.adapters.table_formats.rows`."""
    with source.open() as file:
        try:
            table = pq.ParquetFile(file if source.on_disk() else unpack(source, file, IN_MEMORY), pre_buffer=False)
            yield from _rows(source.place, table, layout)
        except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, ValueError) as error:
            if is_disks(error):
                raise
            raise DataError(f"{source.place}: not a whole Parquet file ({one_line(error)}); fetch or write it again") from None


def _rows(place: str, table: Any, layout: Layout) -> Rows:
    names: list[str] = table.schema_arrow.names
    layout.check(place, names)
    sizes = [table.metadata.row_group(i).total_byte_size for i in range(table.num_row_groups)]
    packed = sum(
        table.metadata.row_group(i).column(c).total_compressed_size
        for i in range(table.num_row_groups)
        for c in range(table.metadata.num_columns)
    )
    if sum(sizes) > max(FREE, MAX_RATIO * packed):
        raise DataError(f"{place}: {packed} bytes expand to {sum(sizes)}, as only a decompression bomb does; write it again uncompressed")
    by_column: dict[Any, str] = {c: names[c] if isinstance(c, int) else c for c in layout.wanted.values()} or {n: n for n in names}
    number = 0
    decoded, allowed = 0, max(FREE, MAX_RATIO * max(packed, 1))
    for batch in table.iter_batches(batch_size=BATCH, columns=sorted(set(by_column.values()))):
        lists = [batch.column(name).to_pylist() for name in by_column.values()]
        # A dictionary of long values is small in the file's own account.
        decoded += sum(len(value) for values in lists for value in values if isinstance(value, str))
        if decoded > allowed:
            raise DataError(f"{place}: {packed} bytes expand to more than {allowed}, as only a decompression bomb does; write it again")
        for values in zip(*lists, strict=True):
            number += 1
            yield number, dict(zip(by_column, values, strict=True))


def unpack(source: SourceFile, file: IO[bytes], limit: int) -> io.BytesIO:
    """The whole content of a file that must be read from its end.

    :raises DataError: when it is larger than ``limit`` bytes.
    """
    content = file.read(limit + 1)
    if len(content) > limit:
        raise DataError(
            f"{source.place}: larger than {limit >> 20} MiB once decompressed, which is too large to be read at once; unpack it"
        )
    return io.BytesIO(content)
