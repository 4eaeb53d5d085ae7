"""Reading the raw table without holding it: its columns, single rows, its hashes as numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from finsight.errors import ArtifactError

# The columns that ingest promises; those that a corpus keeps beside them are strings.
COLUMNS = {
    **dict.fromkeys(("id", "hash", "text", "label", "corpus", "split"), "string"),
    "agreement": "int16",
    "date": "string",
    "group": "string",
}
_NIBBLE = np.full(256, 16, dtype=np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdef", dtype=np.uint8)] = np.arange(16)

Rows = NDArray[np.int64]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say in one line what is wrong with a Parquet or Arrow file.

    :raises ArtifactError: when it is missing or damaged.
    """
    try:
        yield
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; `dvc repro` writes it, `dvc pull` fetches it") from None
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's, not Arrow's
        what, kind = " ".join(str(error).split())[:120], "Arrow" if path.suffix == ".arrow" else "Parquet"
        raise ArtifactError(f"{path}: not a whole {kind} file ({what}); `dvc repro` writes it again") from None


def column_types(path: Path) -> dict[str, str]:
    """The types of a Parquet file's columns, by name, in their order."""
    with readable(path):
        return {field.name: str(field.type) for field in pq.read_schema(path)}


def take_rows(path: Path, rows: Sequence[int] | Rows, columns: Sequence[str]) -> pa.Table:
    """Rows of a Parquet file by their ascending numbers; only the row groups that hold them are read, one at a time."""
    wanted = np.asarray(rows, dtype=np.int64)
    parts, start = [], 0
    with readable(path), pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, end)]
            if len(here):
                parts.append(file.read_row_group(group, columns=list(columns)).take(pa.array(here - start)))
            start = end
        return pa.concat_tables(parts) if parts else file.schema_arrow.empty_table().select(list(columns))


def hash_numbers(column: pa.Array) -> NDArray[np.uint64]:
    """Hashes of 32 hexadecimal digits as ``[rows, 3]``: both halves of the 128 bits, and 1 where a cell is no such hash."""
    fit = pc.fill_null(pc.equal(pc.binary_length(column), 32), False)
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(column)], pc.if_else(fit, column, "0" * 32)), "")
    nibbles = _NIBBLE[np.frombuffer(joined[0].as_buffer(), dtype=np.uint8)].reshape(-1, 32)
    numbers = (nibbles[:, ::2] << 4 | nibbles[:, 1::2] & 15).view(">u8").astype(np.uint64)
    unfit = (nibbles > 15).any(axis=1) | ~fit.to_numpy(zero_copy_only=False)
    return np.column_stack([numbers, unfit.astype(np.uint64)])


def equal_texts(hashes: NDArray[np.uint64], codes: NDArray[np.int16], rows: Rows) -> tuple[Rows, Rows, Rows]:
    """What ``rows`` have in common, by their hashes.

    :param hashes: both halves of each hash in the table, ``[rows, ≥ 2]``.
    :param codes: the label of each row in the table.
    :returns: the first row of each text, in the order of the hashes; rows whose text stands in an earlier one; rows whose text also
        stands with another label. The last two ascend.
    """
    order = rows[np.lexsort((hashes[rows, 1], hashes[rows, 0]))]  # stable: equal hashes stay in the order of the rows
    new = np.ones(len(order), dtype=bool)
    new[1:] = (hashes[order[1:], :2] != hashes[order[:-1], :2]).any(axis=1)
    if not len(order):
        return order, order, order
    starts = np.flatnonzero(new)
    two_labels = np.minimum.reduceat(codes[order], starts) != np.maximum.reduceat(codes[order], starts)
    return order[new], np.sort(order[~new]), np.sort(order[two_labels[np.cumsum(new) - 1]])
