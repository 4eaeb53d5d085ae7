"""Reading what ``prepare`` wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finsight.errors import ArtifactError
from finsight.modeling.batching import Rows

TOKENIZER = "tokenizer"  # folder beside the splits


def read_table(path: Path) -> pa.Table:
    """The rows of a prepared split with all their columns.

    :raises ArtifactError: when the file is missing.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; `dvc repro prepare` writes it, `dvc pull` fetches it")
    return pq.read_table(path)


def read_rows(path: Path) -> Rows:
    """The token ids and label indices of a prepared split, for training."""
    table = read_table(path)
    ids = [np.asarray(row, dtype=np.int32) for row in table["input_ids"].to_pylist()]
    return Rows(ids, table["label_id"].to_numpy().astype(np.int64))
