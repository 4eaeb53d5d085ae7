"""Reading the tables that earlier stages wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finsight.errors import ArtifactError
from finsight.modeling.batching import Rows

# Beside the splits in the prepared folder.
TOKENIZER, BACKBONE = "tokenizer", "backbone.json"


def read_table(path: Path) -> pa.Table:
    """A Parquet file with all its columns.

    :raises ArtifactError: when it is missing or damaged.
    """
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; `dvc repro` writes it, `dvc pull` fetches it") from None
    except pa.ArrowInvalid as error:
        raise ArtifactError(
            f"{path}: not a whole Parquet file ({' '.join(str(error).split())[:120]}); `dvc repro` writes it again"
        ) from None


def read_rows(path: Path) -> Rows:
    """The token ids and label indices of a prepared split, for training."""
    table = read_table(path)
    ids = [np.asarray(row, dtype=np.int32) for row in table["input_ids"].to_pylist()]
    return Rows(ids, table["label_id"].to_numpy().astype(np.int64))
