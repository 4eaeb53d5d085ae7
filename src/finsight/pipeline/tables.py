"""The Parquet and Arrow tables between stages."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from finsight.errors import ArtifactError
from finsight.files import atomic_file
from finsight.modeling.batching import Rows
from finsight.pipeline.raw import readable

# Beside the splits in the prepared folder.
TOKENIZER, BACKBONE, UNLABELLED = "tokenizer", "backbone.json", "unlabelled.parquet"
# Suffix of the token ids that stand beside the rows of a split.
TOKENS = ".arrow"


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file with all its columns, or the named ones.

    :raises ArtifactError: when it is missing or damaged.
    """
    with readable(path):
        return pq.read_table(path, columns=columns)


def read_rows(path: Path) -> tuple[Rows, list[int | None]]:
    """The token ids and label indices (-1: none) of a prepared split, for training, and each row's annotator agreement."""
    table, rows = read_table(path, ["label_id", "agreement"]), read_tokens(path.with_suffix(TOKENS))
    if len(rows) != table.num_rows:
        raise ArtifactError(f"{path.with_suffix(TOKENS)}: {len(rows)} rows, {path} has {table.num_rows}; run `dvc repro --force prepare`")
    return Rows(rows, table["label_id"].fill_null(-1).to_numpy().astype(np.int64)), table["agreement"].to_pylist()


def read_tokens(path: Path) -> list[NDArray[np.int32]]:
    """The token ids of each row of an Arrow file, mapped into memory: what is not looked at is not read, and processes share it.

    :raises ArtifactError: when it is missing or damaged.
    """
    with readable(path):
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(i).column(0) for i in range(reader.num_record_batches)]
    found = []
    for batch in batches:
        values = batch.values.to_numpy()
        found += [values[start:end] for start, end in pairwise(batch.offsets.to_numpy())]
    return found


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that :func:`write_csv` wrote.

    :raises ArtifactError: when it is missing, or was changed into something else.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            csv.field_size_limit(2**31 - 1)  # a text may be longer than what Python takes for a mistake
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; `dvc repro` writes it, `dvc pull` fetches it") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"{path}: not the CSV that `dvc repro` writes there ({error}); `dvc checkout --force` restores it") from None
    if any(None in row or None in row.values() for row in rows):
        raise ArtifactError(f"{path}: rows have other columns than the head; `dvc checkout --force` restores it")
    return rows


def read_numbers(path: Path) -> list[dict[str, float]]:
    """The rows of a CSV file that holds numbers only.

    :raises ArtifactError: when it is missing, or was changed into something else.
    """
    try:
        return [{name: float(value) for name, value in row.items()} for row in read_csv(path)]
    except ValueError as error:
        raise ArtifactError(f"{path}: not the numbers that `dvc repro` writes there ({error})") from None


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """A CSV file: the named columns, or those of the first row."""
    with atomic_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
