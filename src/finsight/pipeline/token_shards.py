"""Prepared training rows in files of a fixed number of rows, for a corpus that one file or one machine is too small for.

A shard is an Arrow file: token ids, label, annotator agreement. Beside the shards stands an index, written last, which says where
each record batch lies: a training asks for one at a time, by its bytes, of a folder or a bucket.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finsight.errors import ArtifactError, DataError
from finsight.files import read_json
from finsight.pipeline.prepared_rows import PIECE, Piece, PreparedRows, token_rows
from finsight.pipeline.tables import BACKBONE

if TYPE_CHECKING:
    from finsight.shard_ports import FileStore

INDEX, VERSION = "shards.json", 1
_NAME = re.compile(r"train-\d+\.arrow")
_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("label_id", pa.int16()), ("agreement", pa.int16())])


class Shards:
    """The rows of all shards of a folder, likewise.

    :param labels: names in the order of their numbers.
    :param backbone: SHA-256 of the weights of the backbone that is to learn from them.
    :raises ArtifactError: when they were made for others, or not made to the end.
    """

    def __init__(self, store: FileStore, labels: Sequence[str], backbone: str) -> None:
        self._store, place = store, store.place
        if store.facts(INDEX) is None:
            raise ArtifactError(f"{place}: holds no {INDEX}; `finsight shards {place}` writes it, after the last shard")
        content = store.read(INDEX)
        self._digest = hashlib.sha256(content).hexdigest()
        try:
            index = json.loads(content)
            version, made_for, theirs = index["version"], index["backbone"]["sha256"], index["labels"]
            self.tokens, self.longest = int(index["tokens"]), int(index["longest"])
            self._files = [file["name"] for file in index["files"]]
            found = [(number, *batch) for number, file in enumerate(index["files"]) for batch in file["batches"]]
            self._batches = np.array(found, dtype=np.int64).reshape(-1, 5)
            self._labels = np.array(list(theirs.values()), dtype=np.int64)
            if strays := [name for name in self._files if not _NAME.fullmatch(name)]:
                raise ValueError(strays[0])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ArtifactError(f"{place}/{INDEX}: not what `finsight shards` writes there; write the shards again") from None
        for what, got, expected in (
            ("version", version, VERSION),
            ("labels", list(theirs), list(labels)),
            ("a backbone with weights", made_for, backbone),
        ):
            if got != expected:
                raise ArtifactError(f"{place}: made for {what} {got}, expected {expected}; `finsight shards` writes others")
        self.sizes: NDArray[np.int64] = self._batches[:, 3]

    def __str__(self) -> str:
        return self._store.place

    def digest(self) -> str:
        """SHA-256 of all there is, in hexadecimal."""
        return self._digest

    def labels(self, _: int) -> NDArray[np.int64]:
        """Rows of each label (k,)."""
        return self._labels

    def read(self, piece: int) -> Piece:
        """The rows of a piece.

        :raises ArtifactError: when they are not what was written.
        """
        number, start, size, _, checksum = self._batches[piece].tolist()
        content = self._store.read(self._files[number], start, size)
        if zlib.crc32(content) != checksum:
            raise ArtifactError(
                f"{self._store.place}/{self._files[number]}: damaged at byte {start}, or not the file that {INDEX} was written for; "
                "copy it again, or write the shards again"
            )
        batch = pa.ipc.read_record_batch(pa.py_buffer(content), _SCHEMA)
        return Piece(token_rows(batch.column(0)), batch.column(1).to_numpy().astype(np.int64), batch.column(2).to_pylist())


def write_shards(
    prepared: Path, labels: Sequence[str], store: FileStore, rows: int, progress: Callable[[str, int, int], None] | None = None
) -> tuple[int, int]:
    """Write the training rows of a prepared folder as shards to ``store``; how many rows, and how many shards.

    :param rows: of a shard, at most.
    :param progress: is told what was done to how many more rows, of how many.
    :raises DataError: when it has shards already: a training may be reading them.
    """
    if store.facts(INDEX) is not None:
        raise DataError(f"{store.place}: holds shards already; give a place without any")
    source = PreparedRows(prepared / "train.parquet", min(PIECE, rows))
    about, total = read_json(prepared / BACKBONE, "dvc repro prepare"), int(source.sizes.sum())
    files: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="finsight-shards-") as temporary:
        for pieces in _grouped(source.sizes, rows):
            name = f"train-{len(files):05}.arrow"
            files.append({"name": name, "batches": _write(Path(temporary) / name, source, pieces)})
            store.put(name, (Path(temporary) / name).read_bytes())
            (Path(temporary) / name).unlink()
            if progress:
                progress("sharded", int(source.sizes[pieces].sum()), total)
        known = {"rows": total, "tokens": source.tokens, "longest": source.longest}
        counts = dict(zip(labels, source.labels(len(labels)).tolist(), strict=True))
        whole = {"version": VERSION, "backbone": about, **known, "labels": counts, "files": files}
    store.put(INDEX, json.dumps(whole, indent=2).encode())
    return total, len(files)


def _grouped(sizes: NDArray[np.int64], rows: int) -> Iterator[list[int]]:
    """The numbers of the pieces of each shard."""
    pieces, held = [0], int(sizes[0])
    for piece, size in enumerate(sizes[1:].tolist(), start=1):
        if held + size > rows:
            yield pieces
            pieces, held = [], 0
        pieces, held = [*pieces, piece], held + size
    yield pieces


def _write(path: Path, source: PreparedRows, pieces: Sequence[int]) -> list[list[int]]:
    """Write a shard; of each record batch its first byte, its bytes, its rows, and their CRC-32."""
    ends, rows = [8 + _SCHEMA.serialize().size], []  # the magic bytes and the schema are written with the first record batch
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        for piece in pieces:
            ids, labels, agreements = source.read(piece)
            offsets = np.cumsum([0, *map(len, ids)])
            column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.concatenate(ids), pa.int32()))
            writer.write_batch(pa.record_batch([column, pa.array(labels, pa.int16()), pa.array(agreements, pa.int16())], schema=_SCHEMA))
            ends.append(file.tell())
            rows.append(len(ids))
    with path.open("rb") as file:
        file.seek(ends[0])
        return [[start, end - start, n, zlib.crc32(file.read(end - start))] for start, end, n in zip(ends, ends[1:], rows, strict=False)]
