"""The rows of a prepared split that are read in pieces, since there are too many to be held."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from finsight.errors import ArtifactError
from finsight.files import sha256
from finsight.pipeline.raw import readable, take_rows
from finsight.pipeline.tables import TOKENS

# Rows that are read at once: few, so that many pieces from all over the corpus make a shuffle buffer, and enough that a bucket
# is not asked too often (some 200 KB).
PIECE = 8192


class Piece(NamedTuple):
    """Rows as they were prepared: token ids of each, label numbers (n,), agreement of annotators where it is known."""

    ids: list[NDArray[np.int32]]
    labels: NDArray[np.int64]
    agreements: list[int | None]


class PreparedRows:
    """The rows of a prepared split, which are not held: sizes of the pieces, what all have in common, and a piece when it is wanted.

    :param path: its Parquet file, beside which the token ids lie.
    :param most: rows of a piece; record batches are divided into equal ones.
    :raises ArtifactError: when a file is missing or damaged, or the two are not of the same rows.
    """

    def __init__(self, path: Path, most: int = PIECE) -> None:
        self._path, self._arrow = path, path.with_suffix(TOKENS)
        self._at: list[tuple[int, int, int]] = []  # of each piece: record batch, its first row in that, and in the whole
        sizes: list[int] = []
        self.tokens = self.longest = rows = 0
        with readable(self._arrow), pa.memory_map(str(self._arrow)) as source:
            reader = pa.ipc.open_file(source)
            for number in range(reader.num_record_batches):
                lengths = np.diff(reader.get_batch(number).column(0).offsets.to_numpy())
                self.tokens, self.longest = self.tokens + int(lengths.sum()), max(self.longest, int(lengths.max(initial=0)))
                bounds = np.linspace(0, len(lengths), -(-len(lengths) // most) + 1).astype(int).tolist()
                for start, end in pairwise(bounds):
                    self._at.append((number, start, rows))
                    sizes.append(end - start)
                    rows += end - start
        self.sizes = np.array(sizes, dtype=np.int64)
        with readable(path):
            expected = pq.read_metadata(path).num_rows
        if rows != expected:
            raise ArtifactError(f"{self._arrow}: {rows} rows, {path} has {expected}; run `dvc repro --force prepare`")

    def __str__(self) -> str:
        return str(self._path)

    def digest(self) -> str:
        """SHA-256 of all there is, in hexadecimal."""
        return hashlib.sha256(f"{sha256(self._path)} {sha256(self._arrow)}".encode()).hexdigest()

    def labels(self, k: int) -> NDArray[np.int64]:
        """Rows of each label (k,)."""
        counts = np.zeros(k, dtype=np.int64)
        with readable(self._path), pq.ParquetFile(self._path) as file:
            for batch in file.iter_batches(PIECE, columns=["label_id"]):
                counts += np.bincount(batch.column(0).to_numpy(), minlength=k)
        return counts

    def read(self, piece: int) -> Piece:
        """The rows of a piece."""
        number, start, first = self._at[piece]
        size = int(self.sizes[piece])
        with readable(self._arrow), pa.memory_map(str(self._arrow)) as source:
            ids = token_rows(pa.ipc.open_file(source).get_batch(number).column(0).slice(start, size))
        table = take_rows(self._path, np.arange(first, first + size), ["label_id", "agreement"])
        return Piece(ids, table["label_id"].to_numpy().astype(np.int64), table["agreement"].to_pylist())


def token_rows(column: pa.ListArray) -> list[NDArray[np.int32]]:
    """Token ids of each row, in memory of their own."""
    offsets = column.offsets.to_numpy()
    values = column.values.to_numpy()[offsets[0] : offsets[-1]].copy()
    return [values[start:end] for start, end in pairwise((offsets - offsets[0]).tolist())]
